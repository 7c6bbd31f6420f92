from tests.fsclap.training.conftest import one_thread

__all__ = ["one_thread"]  # vectors are compared to the last bit
