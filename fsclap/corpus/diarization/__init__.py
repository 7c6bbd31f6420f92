"""Diarization with transcript: who speaks when, what they say, and an embedding of their voice."""

from functools import lru_cache

from fsclap.corpus.diarization.base import EMBEDDED, DiarizationSettings, Diarizer


def load_diarizer(settings: DiarizationSettings) -> Diarizer:
    """The engine that `settings` asks for, loaded once in a process; the embedded one where they name none.

    Raises:
        ModuleNotFoundError, FileNotFoundError: The weights of the embedded engine are not installed; the message
            says which package and file, and the command that installs them.
        WeightsError: A folder of weights is missing, incomplete, damaged, or not what the engine needs.
        DeviceError: This machine has no such device.
        ValueError: The engine does not know the language.
    """
    if settings.engine is None:
        settings = DiarizationSettings.model_validate(settings.model_dump() | {"engine": EMBEDDED})
    return _load(settings)


@lru_cache(maxsize=1)
def _load(settings: DiarizationSettings) -> Diarizer:
    # Inside, since an engine brings in PyTorch, which whoever only reads the settings does not need.
    if settings.engine == "funasr":
        from fsclap.corpus.diarization.funasr import FunASRDiarizer

        return FunASRDiarizer(settings)
    from fsclap.corpus.diarization.whisper_resemblyzer import WhisperResemblyzer

    return WhisperResemblyzer(settings)
