from tests.fsclap.training.conftest import one_thread

__all__ = ["one_thread"]  # fixtures of the training tests
