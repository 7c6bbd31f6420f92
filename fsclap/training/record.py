"""What a run leaves in its folder next to the weights: identity, metrics, results."""

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
from fsclap.settings import complete
from fsclap.training.checkpoint import Epoch, Position
from fsclap.training.settings import TrainSettings

RECORD = "training.json"
METRICS = "metrics.jsonl"
_PACKAGES = ("torch", "lightning-fabric", "transformers", "numpy", "safetensors")


class Run(BaseModel):
    """Identity of a training run; a folder has one.

    Attributes:
        settings: Settings of the run.
        corpus: Location of the corpus.
        version: Version of the corpus.
        split: Digest of the split.
        start: Digest of the weights that it started from; None for random ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: TrainSettings
    corpus: str
    version: int | None
    split: str
    start: str | None = None


class Trained(BaseModel):
    """A finished run.

    Attributes:
        folder: Folder of the model; not saved.
        run: Identity of the run.
        best_epoch: Number of the epoch whose weights were kept; 0 for those it started from.
        validation: mAP@10 on the validation part at that epoch, mean of both directions, 0 to 1.
        leaks: The figure is worthless: each clip was embedded together with its own caption
            (fusion="paired").
        history: All epochs.
        steps: Number of steps taken.
        clips: Number of clips in each part.
        rejected: Number of clips of train and validation that could not be used.
        parameters: Number of trained weights.
        languages: Language codes of the training clips; empty for a corpus without languages.
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
    languages: list[str]
    environment: dict[str, str]

    @property
    def kept(self) -> str:
        """Say which weights were kept, and how the others did on validation."""
        last, first = self.history[-1], self.history[0]
        if self.leaks:  # its figures are worth nothing
            return f"epoch {self.best_epoch} of {last.epoch}"
        if self.best_epoch == 0:
            return (
                f"the weights it started from: mAP@10 {100 * self.validation:.1f} % on validation, against "
                f"{100 * last.validation:.1f} % after {last.epoch} epochs"
            )
        text = f"epoch {self.best_epoch} of {last.epoch}: mAP@10 {100 * self.validation:.1f} % on validation"
        return f"{text}; it started from {100 * first.validation:.1f} %" if first.epoch == 0 else text

    def save(self, path: Path) -> None:
        """Write the record, whole or not at all, with every setting spelled out."""
        _write(path, {name: value for name, value in complete(self).items() if name != "folder"})

    @classmethod
    def load(cls, folder: Path) -> "Trained":
        """Load the record of a finished run.

        Raises:
            FileNotFoundError: There is none in this folder.
        """
        trained = cls.model_validate_json((folder / RECORD).read_bytes())
        return trained.model_copy(update={"folder": folder})


def claim(folder: Path, run: Run) -> None:
    """Record which run a folder belongs to, or refuse a folder of another run."""
    file = folder / "run.json"
    if not file.exists():
        if (folder / RECORD).exists():
            raise ValueError(f"{folder} has a model without a record of its run; train into another folder")
        _write(file, complete(run))
        return
    recorded = Run.model_validate_json(file.read_bytes())
    differences = run.settings.differences(recorded.settings)
    for name in ("corpus", "version", "split", "start"):
        if getattr(run, name) != getattr(recorded, name):
            differences.append(f"{name}: {getattr(run, name)} != {getattr(recorded, name)}")
    if differences:
        raise ValueError(
            f"{folder} belongs to another run ({'; '.join(differences)}); train into another folder, or remove this one"
        )


class Metrics:
    """metrics.jsonl and the curves from a position on; later lines of a killed run are removed."""

    def __init__(self, folder: Path, position: Position, *, writes: bool) -> None:
        self.file: IO[bytes] | None = None
        if not writes:
            return
        self.file = (folder / METRICS).open("ab")
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


def history_of(folder: Path) -> list[dict[str, Any]]:
    """Read one row per epoch: epoch, step, loss, validation, last learning_rate."""
    rows, rate = [], None
    for line in (folder / METRICS).read_text(encoding="utf-8").splitlines():
        figures = json.loads(line)
        if "validation" not in figures:
            rate = figures["lr"]
            continue
        rows.append(
            {
                "epoch": figures["epoch"],
                "step": figures["step"],
                "loss": figures["epoch_loss"],
                "validation": figures["validation"],
                "learning_rate": rate,
            }
        )
    return rows


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


def _write(path: Path, values: dict[str, Any]) -> None:
    with written_aside(path) as part:
        part.write_text(json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
