"""The state of a run in one file: safetensors, with JSON in its header. No pickle."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fsclap.files import written_aside

log = logging.getLogger(__name__)

LAST = "last.safetensors"
_MODEL, _OPTIMIZER = "model/", "optimizer/"


class Epoch(BaseModel):
    """Results of one epoch.

    Attributes:
        epoch: Number, from 1; 0 for the weights that the training started from.
        loss: Contrastive loss, mean over its steps except skipped ones; None if all were skipped, and
            for epoch 0.
        validation: mAP@10 on the validation part, mean of both directions, 0 to 1.
        skipped: Number of skipped steps.
        seconds: Duration of the epoch, with validation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: int
    loss: float | None
    validation: float
    skipped: int
    seconds: float


class Position(BaseModel):
    """How far a run is. Order, crops and dropout follow from seed and position.

    Attributes:
        epoch: Number of finished epochs.
        in_epoch: Steps taken in the current epoch.
        step: Steps taken in total.
        losses: Losses of the current epoch's steps.
        skipped: Steps skipped in the current epoch.
        skipped_in_a_row: Steps skipped without one taken in between, up to now.
        seconds: Time spent in the current epoch.
        history: Finished epochs.
        metrics_bytes: Size of metrics.jsonl.
        scaler: State of the mixed-precision scaler.
    """

    model_config = ConfigDict(extra="forbid")

    epoch: int = 0
    in_epoch: int = 0
    step: int = 0
    losses: list[float] = []
    skipped: int = 0
    skipped_in_a_row: int = 0
    seconds: float = 0.0
    history: list[Epoch] = []
    metrics_bytes: int = 0
    scaler: dict[str, int | float] = {}


def save_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, position: Position) -> None:
    """Replace the checkpoint, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {_MODEL + name: x for name, x in model.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}{number}/{name}": x for name, x in state.items()}
    _save(folder / LAST, tensors, {"position": position.model_dump_json()})


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Position:
    """Load the checkpoint into model and optimiser; without one, leave them as they are.

    Returns:
        The position to resume from; the start if there is no checkpoint.

    Raises:
        ValueError: The file is damaged, or of another model.
    """
    file = folder / LAST
    if not file.exists():
        return Position()
    try:
        with safe_open(file, framework="pt") as opened:
            position = Position.model_validate_json((opened.metadata() or {})["position"])
        tensors = load_file(file)
        model.load_state_dict(_under(_MODEL, tensors))
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under(_OPTIMIZER, tensors).items():
            number, _, key = name.partition("/")
            states.setdefault(int(number), {})[key] = tensor
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
        why = "it has no position: not a checkpoint of a training" if isinstance(error, KeyError) else error
        raise ValueError(f"{file} cannot be resumed from ({why}); remove it to train from the start") from error
    log.info("resuming from step %d, %d epochs done", position.step, position.epoch)
    return position


def save_epoch(folder: Path, model: nn.Module, epoch: int) -> None:
    """Save the weights of an epoch; `forget_others` removes those of earlier ones."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(_epoch(folder, epoch), dict(model.state_dict()), {})


def load_epoch(folder: Path, model: nn.Module, epoch: int) -> None:
    """Load the weights that `save_epoch` saved.

    Raises:
        ValueError: The file is missing, damaged, or of another model.
    """
    try:
        model.load_state_dict(load_file(_epoch(folder, epoch)))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{_epoch(folder, epoch)}, the weights of the epoch to keep, cannot be read ({error}); remove {folder} to "
            "train from the start"
        ) from error


def forget_others(folder: Path, epochs: Iterable[int]) -> None:
    """Remove the weights of all other epochs, after a checkpoint that names these."""
    wanted = {_epoch(folder, epoch) for epoch in epochs}
    for file in folder.glob("epoch-*.safetensors"):
        if file not in wanted:
            file.unlink()


def _epoch(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:04d}.safetensors"


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}


def _save(file: Path, tensors: Mapping[str, Any], metadata: dict[str, str]) -> None:
    with written_aside(file) as part:
        save_file({name: x.detach().contiguous() for name, x in tensors.items()}, part, metadata=metadata)
