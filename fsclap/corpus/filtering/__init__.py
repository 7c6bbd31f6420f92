"""Which turns stay in the corpus: sound quality, selection by length, language and overlap, and Eq. 4-5."""

from functools import lru_cache

from fsclap.corpus.filtering.quality import QualitySettings, Scorer


@lru_cache(maxsize=1)
def load_scorer(settings: QualitySettings) -> Scorer | None:
    """The engine that the settings name, loaded once per process; None for engine none.

    Raises:
        ModuleNotFoundError, FileNotFoundError: Its weights are not installed; the message names the package, the file
            and the command that installs them.
    """
    if settings.engine == "none":
        return None
    # Inside, since whoever only reads the settings needs no ONNX runtime.
    from fsclap.corpus.filtering.dnsmos import DnsmosScorer

    return DnsmosScorer(threads=settings.threads)
