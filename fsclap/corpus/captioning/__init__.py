"""Captioning: from measured attributes and tags to a description in words."""

from functools import lru_cache

from fsclap.corpus.captioning.base import CaptioningSettings, EmotionTagger


@lru_cache(maxsize=1)
def load_tagger(settings: CaptioningSettings) -> EmotionTagger | None:
    """The engine that hears emotion, loaded once in a process; None where captions are from attributes alone.

    Raises:
        WeightsError: Its weights are missing, damaged or another model's.
        DeviceError: The machine has no such device.
    """
    if settings.engine != "sensevoice":
        return None
    # Inside, since an engine brings in PyTorch, which whoever only reads the settings does not need.
    from fsclap.corpus.captioning.sensevoice import SenseVoiceTagger

    return SenseVoiceTagger(settings.sensevoice, device=settings.device or "cpu")
