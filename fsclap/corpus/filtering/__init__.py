"""Which turns stay in the corpus: sound quality, selection, and Eq. 4-5."""

from functools import lru_cache

from fsclap.corpus.filtering.quality import QualitySettings, Scorer


@lru_cache(maxsize=1)
def load_scorer(settings: QualitySettings) -> Scorer | None:
    """Load the engine that the settings name, once per process; None for engine none.

    Raises:
        WeightsError: Its weights are not installed; the message names the package, the file and the
            command that installs them.
    """
    if settings.engine == "none":
        return None
    # Imported here: it needs the ONNX runtime, which reading the settings should not load.
    from fsclap.corpus.filtering.dnsmos import DnsmosScorer

    return DnsmosScorer(threads=settings.threads)
