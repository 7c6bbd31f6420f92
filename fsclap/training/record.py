"""What a run leaves in its folder beside its weights: what it is, what it measured, what it came to."""

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers import TensorBoardLogger
from pydantic import BaseModel, ConfigDict

from fsclap.data.clips import CorruptClip
from fsclap.files import written_aside
from fsclap.training.checkpoint import Epoch, Position
from fsclap.training.settings import TrainSettings

RECORD = "training.json"
_PACKAGES = ("torch", "lightning-fabric", "transformers", "numpy", "safetensors")


class Run(BaseModel):
    """What a training run is; a folder holds one.

    Attributes:
        corpus, version: What it trains on.
        split: Digest of the split.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: TrainSettings
    corpus: str
    version: int | None
    split: str


class Trained(BaseModel):
    """A finished run.

    Attributes:
        folder: Of the model; not part of the file.
        validation: Mean of both directions' mAP@10 on the validation part at the best epoch, 0 to 1.
        leaks: The figure is worthless: each clip was embedded together with its own caption (fusion="paired").
        clips: Clips of each part; rejected: clips of train and validation that could not be used.
        parameters: Trained weights.
        environment: Versions, processor or GPU, precision.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = Path()
    run: Run
    best_epoch: int
    validation: float
    leaks: bool
    history: list[Epoch]
    steps: int
    clips: dict[str, int]
    rejected: int
    parameters: int
    environment: dict[str, str]

    def save(self, path: Path) -> None:
        with written_aside(path) as part:
            part.write_text(self.model_dump_json(indent=1, exclude={"folder"}) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Trained":
        """The record of a finished run.

        Raises:
            FileNotFoundError: There is none in this folder.
        """
        found = cls.model_validate_json((folder / RECORD).read_bytes())
        return found.model_copy(update={"folder": folder})


def claim(folder: Path, run: Run) -> None:
    """Write down what the folder is for, or refuse one that is for something else."""
    file = folder / "run.json"
    if not file.exists():
        if (folder / RECORD).exists():
            raise ValueError(f"{folder} holds a model, and not of which run; train into another folder")
        with written_aside(file) as part:
            part.write_text(run.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return
    held = Run.model_validate_json(file.read_bytes())
    differences = run.settings.differences(held.settings)
    for name in ("corpus", "version", "split"):
        if getattr(run, name) != getattr(held, name):
            differences.append(f"{name}: {getattr(run, name)} != {getattr(held, name)}")
    if differences:
        raise ValueError(
            f"{folder} holds another run ({'; '.join(differences)}); train into another folder, or remove this one"
        )


class Metrics:
    """metrics.jsonl and the curves, from a position on: what a killed run wrote after it is removed."""

    def __init__(self, folder: Path, position: Position, *, writes: bool) -> None:
        self.file: IO[bytes] | None = None
        if not writes:
            return
        self.file = (folder / "metrics.jsonl").open("ab")
        self.file.truncate(min(position.metrics_bytes, self.file.tell()))
        self.curves = TensorBoardLogger(folder, name="tensorboard", version="", purge_step=position.step)

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()
            self.curves.finalize("")

    def write(self, step: int, figures: dict[str, Any]) -> None:
        if self.file is not None:
            self.file.write(json.dumps({"step": step} | figures, allow_nan=False).encode() + b"\n")
            self.file.flush()
            self.curves.log_metrics({name: x for name, x in figures.items() if isinstance(x, float)}, step)

    @property
    def size(self) -> int:
        return 0 if self.file is None else self.file.tell()


def record_rejected(folder: Path, rejected: Sequence[CorruptClip]) -> None:
    with written_aside(folder / "rejected.jsonl") as part:
        lines = (json.dumps({"utterance_id": clip.utterance_id, "reason": clip.reason}) for clip in rejected)
        part.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def environment(fabric: Fabric) -> dict[str, str]:
    gpu = fabric.device.type == "cuda"
    device = torch.cuda.get_device_name(fabric.device) if gpu else platform.processor() or platform.machine()
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return versions | {
        "python": platform.python_version(),
        "device": f"{fabric.world_size} x {device}",
        "threads": str(torch.get_num_threads()),
        "precision": str(fabric.strategy.precision.precision),
    }
