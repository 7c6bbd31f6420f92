"""What a training starts from: random weights, the starter model of the package, or any other model."""

import hashlib
import json
from pathlib import Path

from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from safetensors import SafetensorError
from safetensors.torch import load_file

from fsclap.model.settings import ModelSettings
from fsclap.model.systems.base import REVISIONS_FILE, ModelError, System
from fsclap.training.settings import TrainSettings

STARTER = Path(__file__).parents[1] / "starter"
"""A model that knows the words of the caption grammar, and how they are said in everyday English.
`bench.starter` makes it; its README says from what."""
_FREE = {"dropout"}
"""Settings of a model that fit any weights."""


def initial_model(settings: TrainSettings) -> Path | None:
    """Return the folder of the model to start from; None for random weights.

    Raises:
        ModelError: The model that the settings name has another architecture.
    """
    if settings.init == "none":
        return None
    if settings.init == "auto":
        return STARTER if (STARTER / SAFETENSORS_SINGLE_FILE).is_file() and _fits(STARTER, settings.model) else None
    folder = STARTER if settings.init == "starter" else Path(settings.init)
    if not (folder / SAFETENSORS_SINGLE_FILE).is_file():
        raise ModelError(f"init={settings.init}: there is no model in {folder}; name the folder of a trained model")
    if not _fits(folder, settings.model):
        raise ModelError(
            f"init={settings.init}: the model in {folder} has other settings than `model` "
            f"({_differences(folder, settings.model)}). Choose the same ones, or init=none"
        )
    return folder


def start_of(settings: TrainSettings) -> str | None:
    """Identify the weights that a training starts from: their SHA-256; None for random ones.

    Raises:
        ModelError: As `initial_model`.
    """
    folder = initial_model(settings)
    return None if folder is None else hashlib.sha256((folder / SAFETENSORS_SINGLE_FILE).read_bytes()).hexdigest()


def load_initial(model: System, folder: Path) -> None:
    """Load the weights of another model of the same architecture.

    Raises:
        ModelError: It was trained on other features, or its file is damaged.
    """
    trained = json.loads((folder / REVISIONS_FILE).read_text())
    if trained != model.revisions:
        raise ModelError(
            f"the model in {folder} was trained on the features {trained}; the installed ones are {model.revisions}. "
            "Choose init=none, or a model of these features"
        )
    try:
        model.load_state_dict(load_file(folder / SAFETENSORS_SINGLE_FILE))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder} can't be started from: {error}") from error


def _fits(folder: Path, settings: ModelSettings) -> bool:
    return not _differences(folder, settings)


def _differences(folder: Path, settings: ModelSettings) -> str:
    # A setting that a model was saved without is newer than the model, which has the default.
    theirs = ModelSettings().model_dump(mode="json") | json.loads((folder / CONFIG_NAME).read_text())["settings"]
    ours = settings.model_dump(mode="json")
    names = sorted(name for name in ours if name not in _FREE and theirs.get(name) != ours[name])
    return ", ".join(f"{name} is {theirs.get(name)!r} there, {ours[name]!r} here" for name in names)
