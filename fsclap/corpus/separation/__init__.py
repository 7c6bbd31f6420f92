"""Vocal separation: music and effects out, voices kept."""

from functools import lru_cache

from fsclap.corpus.separation.base import SeparationSettings, Separator
from fsclap.settings import unknown_engine


@lru_cache(maxsize=1)
def load_separator(settings: SeparationSettings, device: str = "cpu") -> Separator:
    """Load the engine that the settings name, once per process.

    Raises:
        WeightsError: Its weights are missing or damaged; the message names
            the file and the command that brings it.
        DeviceError: The machine has no such device.
    """
    # Imported here: engines need PyTorch, which reading the settings should not load.
    match settings.engine:
        case "demucs":
            from fsclap.corpus.separation.demucs import DemucsSeparator

            return DemucsSeparator(settings.demucs, device=device, batch=settings.batch)
        case "spleeter":
            from fsclap.corpus.separation.spleeter import SpleeterSeparator

            return SpleeterSeparator(device=device, batch=settings.batch)
        case unknown:
            raise unknown_engine("separation", unknown)
