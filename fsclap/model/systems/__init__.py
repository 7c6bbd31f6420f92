"""The systems of the paper behind one protocol: a library of models that find speech by description.

    from fsclap.model.systems import build_system, load_system

    model = load_system("data/models/<name>")      # whatever system it is
    model.embed_text(["a weary voice"]) @ model.embed_audio(waves).T

Each file holds one system's own idea; `ModelSettings.system` names it. What they share is in
`fsclap.model.systems.base`.
"""

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.constants import CONFIG_NAME

from fsclap.model.encoders import Encoders
from fsclap.model.settings import ModelSettings
from fsclap.model.systems.audioclip import AudioClip
from fsclap.model.systems.base import ModelError, System, saved_folder
from fsclap.model.systems.clap_laion import ClapLaion
from fsclap.model.systems.clap_microsoft import ClapMicrosoft
from fsclap.model.systems.emotion_rank_clap import EmotionRankClap
from fsclap.model.systems.fs_clap import FSCLAP
from fsclap.model.systems.mga_clap import MgaClap
from fsclap.model.systems.ra_clap import RaClap

__all__ = ["SYSTEMS", "ModelError", "System", "build_system", "load_system"]

SYSTEMS: dict[str, type[System]] = {
    cls.system: cls for cls in (ClapLaion, ClapMicrosoft, AudioClip, RaClap, MgaClap, EmotionRankClap, FSCLAP)
}
"""By the name in `ModelSettings.system`."""


def build_system(settings: ModelSettings, *, encoders: Encoders | None = None) -> System:
    """Build the system that the settings name, with the weights that they start from.

    Args:
        settings: Architecture.
        encoders: Encoders to use instead of those the settings name, for tests and studies.

    Raises:
        WeightsError: Weights of its encoders are missing or do not fit.
    """
    model = SYSTEMS[settings.system](settings, encoders=encoders)
    if encoders is None and settings.encoders == "own":
        model.load_published()
    return model


def load_system(place: str | Path, device: str = "auto", **options: Any) -> System:
    """Load a trained model of any system, ready to embed.

    Args:
        place: A folder that `save_pretrained` wrote, or a model's name on Hugging Face.
        device: "cpu", "cuda", or "auto": a GPU if there is one.
        options: As `System.from_pretrained`.

    Raises:
        WeightsError: The installed encoders are missing, or not those the model was trained on.
        ModelError: A file is damaged, or the model is of a system that this version does not know.
        FileNotFoundError: There are no weights.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    system = SYSTEMS.get(_saved_system(saved_folder(str(place), options)))
    if system is None:
        raise ModelError(f"{place} is a model of a system that this version does not know; it knows {list(SYSTEMS)}")
    model = system.from_pretrained(str(place), **options)
    return model.to(device).eval()


def _saved_system(folder: Path) -> str:
    """Read the name of the system; models saved before there were several are FS-CLAP, as is what can't be read."""
    try:
        return str(json.loads((folder / CONFIG_NAME).read_text())["settings"].get("system", FSCLAP.system))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return FSCLAP.system  # whose loader says what is wrong with the file
