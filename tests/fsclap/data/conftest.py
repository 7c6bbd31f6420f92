from tests.fsclap.training.conftest import cache, corpus, one_thread, split, store, tiny  # noqa: F401 (fixtures)
