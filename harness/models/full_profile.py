"""All weights of the full profile, random, laid out as `fsclap models fetch` leaves them."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from fsclap.corpus.settings import BuildSettings, weights_in_use
from fsclap.weights import place, write_manifest
from harness.models.demucs import write_demucs
from harness.models.funasr import write_campplus, write_ct_punc, write_fsmn_vad, write_paraformer
from harness.models.sensevoice import write_sensevoice

WRITERS: dict[str, Callable[..., object]] = {
    "separation.demucs.weights": write_demucs,
    "diarization.funasr.asr": write_paraformer,
    "diarization.funasr.vad": write_fsmn_vad,
    "diarization.funasr.punc": write_ct_punc,
    "diarization.funasr.speaker": write_campplus,
    "captioning.sensevoice.weights": write_sensevoice,
}


def write_library(*, size: Literal["small", "full"] = "small", seed: int = 0) -> dict[str, Path]:
    """Write the weights of the full profile to the folder FSCLAP_WEIGHTS; return setting -> folder.

    What is there already is left alone.
    """
    folders = {}
    for setting, weights in weights_in_use(BuildSettings(profile="full")).items():
        folders[setting] = folder = place(weights)
        if not folder.exists():
            WRITERS[setting](folder, size=size, seed=seed)
            write_manifest(
                folder, name=weights.name, hub=weights.hub, revision=weights.revision, licence="random weights"
            )
    return folders
