"""Vocal separation: music and effects out, voices kept."""

from functools import lru_cache

from fsclap.corpus.separation.base import SeparationSettings, Separator


@lru_cache(maxsize=1)
def load_separator(settings: SeparationSettings) -> Separator:
    """The engine that `settings` asks for (None: spleeter), loaded once in a process.

    Raises:
        ModuleNotFoundError, FileNotFoundError, WeightsError: Its weights are not there, or damaged; the message says
            which file, and the command that brings it.
        DeviceError: The device is not there.
    """
    # Inside, since an engine brings in PyTorch, which whoever only reads the settings does not need.
    if settings.engine == "demucs":
        from fsclap.corpus.separation.demucs import DemucsSeparator

        return DemucsSeparator(settings.demucs, device=settings.device or "cpu", batch=settings.batch)
    from fsclap.corpus.separation.spleeter import SpleeterSeparator

    return SpleeterSeparator(device=settings.device or "cpu", batch=settings.batch)
