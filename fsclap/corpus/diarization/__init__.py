"""Diarization with transcript: who speaks when, what they say, and an embedding of their voice."""

from functools import lru_cache

from fsclap.corpus.diarization.base import DiarizationSettings, Diarizer
from fsclap.settings import unknown_engine


@lru_cache(maxsize=1)
def load_diarizer(settings: DiarizationSettings, device: str = "cpu") -> Diarizer:
    """Load the engine that the settings name, once per process.

    Raises:
        WeightsError: Weights are missing, incomplete, damaged, or not what the engine needs; the
            message names the file and the command that brings it.
        DeviceError: The machine has no such device.
    """
    # Imported here: engines need PyTorch, which reading the settings should not load.
    match settings.engine:
        case "funasr":
            from fsclap.corpus.diarization.funasr import FunASRDiarizer

            return FunASRDiarizer(settings, device=device)
        case "whisper-campplus":
            from fsclap.corpus.diarization.whisper_campplus import WhisperCAMPlusPlus

            return WhisperCAMPlusPlus(settings, device=device)
        case unknown:
            raise unknown_engine("diarization", unknown)
