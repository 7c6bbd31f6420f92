"""Diarization with transcript: who speaks when, what they say, and an embedding of their voice."""

from functools import lru_cache

from fsclap.corpus.diarization.base import DiarizationSettings, Diarizer
from fsclap.settings import unknown_engine


@lru_cache(maxsize=1)
def load_diarizer(settings: DiarizationSettings, device: str = "cpu") -> Diarizer:
    """The engine that the settings name, loaded once per process.

    Raises:
        ModuleNotFoundError, FileNotFoundError: The weights of the embedded engine are not installed; the message
            names the package, the file and the command that installs them.
        WeightsError: A folder of weights is missing, incomplete, damaged, or not what the engine needs.
        DeviceError: The machine has no such device.
    """
    # Inside, since an engine brings in PyTorch, which whoever only reads the settings does not need.
    match settings.engine:
        case "funasr":
            from fsclap.corpus.diarization.funasr import FunASRDiarizer

            return FunASRDiarizer(settings, device=device)
        case "whisper-resemblyzer":
            from fsclap.corpus.diarization.whisper_resemblyzer import WhisperResemblyzer

            return WhisperResemblyzer(settings, device=device)
        case unknown:
            raise unknown_engine("diarization", unknown)
