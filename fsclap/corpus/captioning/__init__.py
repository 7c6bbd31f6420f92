"""Captioning: from measured attributes and tags to a description in words."""

from functools import lru_cache

from fsclap.corpus.captioning.base import CaptioningSettings, EmotionTagger
from fsclap.settings import unknown_engine


@lru_cache(maxsize=1)
def load_tagger(settings: CaptioningSettings, device: str = "cpu") -> EmotionTagger | None:
    """Load the engine that tags emotion and events, once per process; None for acoustic.

    Raises:
        WeightsError: Its weights are missing, damaged or another model's.
        DeviceError: The machine has no such device.
    """
    # Imported here: engines need PyTorch, which reading the settings should not load.
    match settings.engine:
        case "acoustic":
            return None
        case "sensevoice":
            from fsclap.corpus.captioning.sensevoice import SenseVoiceTagger

            return SenseVoiceTagger(settings.sensevoice, device=device)
        case unknown:
            raise unknown_engine("captioning", unknown)
