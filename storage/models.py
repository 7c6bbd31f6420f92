"""Trained models on disk, and which of them is the current one.

    {root}/{corpus}-v{version}-{digest}/      a run: the output of training, training.json last
    {root}/promoted.json                      the current model and the decision that promoted it
    {root}/promotions.jsonl                   all decisions, promotions and refusals, with their reasons

Runs on one version of a corpus with equal settings have the same folder, so that an interrupted run
is resumed and a finished one is not repeated.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from storage.files import local_folder, locked, written_aside

FINISHED = "training.json"
"""The file that training writes last; a run without it is unfinished."""
PROMOTED, HISTORY = "promoted.json", "promotions.jsonl"

_REMEDY = "the next model that beats chance is then promoted."


class ModelStoreError(RuntimeError):
    """A model store is unusable; the message names the file and the remedy."""


class Decision(BaseModel):
    """The decision to promote a model, or not to, and its reason.

    Attributes:
        model: Name of the model's folder.
        against: The current model at the time; None when there was none.
        promoted: Whether `model` became the current one.
        reason: A sentence.
        figure: The validation figure of `model`, 0 to 1: value, low, high; None when it has none.
        difference: `model` minus `against` on the same clips, paired: value, low, high; None
            without a comparison.
        clips: Number of validation clips in the comparison.
        date: Date and time in ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    against: str | None
    promoted: bool
    reason: str
    figure: dict[str, float] | None
    difference: dict[str, float] | None
    clips: int
    date: str


@dataclass(frozen=True)
class ModelStore:
    """Models under a local folder."""

    root: Path

    @classmethod
    def open(cls, root: Path | str) -> "ModelStore":
        """Open the store in a folder, which is created when absent.

        Raises:
            ModelStoreError: The path is a file, or in an object store.
        """
        try:
            folder = local_folder(root, what="models")
        except ValueError as error:
            raise ModelStoreError(str(error)) from error
        if folder.exists() and not folder.is_dir():
            raise ModelStoreError(f"{folder} is a file; name a folder for the models")
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def name(self, corpus: str, version: int, depends_on: Mapping[str, Any]) -> str:
        """Return the name of a run's folder.

        Args:
            corpus: Location of the corpus; its last part begins the name.
            version: Version of the utterances.
            depends_on: Everything else that the model depends on, as JSON values: settings, table
                id.
        """
        canonical = json.dumps([version, dict(depends_on)], sort_keys=True, separators=(",", ":"), allow_nan=False)
        readable = re.sub(r"[^\w.-]+", "-", corpus.rstrip("/").rsplit("/", 1)[-1]).strip("-.") or "corpus"
        return f"{readable}-v{version}-{sha256(canonical.encode()).hexdigest()[:8]}"

    def folder(self, name: str) -> Path:
        """Return the folder of a run, finished or not.

        Raises:
            ModelStoreError: The name is not one of a folder in the store.
        """
        if not 0 < len(name.encode(errors="replace")) < 256 or name != Path(name).name or name.startswith("."):
            raise ModelStoreError(f"{name!r} is not the name of a model; use one of {self.names()}")
        return self.root / name

    def finished(self, name: str) -> bool:
        return (self.folder(name) / FINISHED).is_file()

    def names(self) -> list[str]:
        """Finished runs, the newest last."""
        marks = sorted(self.root.glob(f"*/{FINISHED}"), key=lambda path: path.stat().st_mtime_ns)
        return [mark.parent.name for mark in marks]

    def promoted(self) -> Decision | None:
        """Return the decision that promoted the current model; None before the first.

        Raises:
            ModelStoreError: The model's folder is gone, or promoted.json is damaged.
        """
        path = self.root / PROMOTED
        if not path.is_file():
            return None
        try:
            decision = Decision.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ModelStoreError(f"{path} is damaged; delete it: {_REMEDY}") from error
        if not self.finished(decision.model):
            raise ModelStoreError(
                f"{path} names {decision.model}, which is no finished model ({', '.join(self.names()) or 'none'}). "
                f"Put its folder back, or delete the file: {_REMEDY}"
            )
        return decision

    def to_search_with(self) -> str | None:
        """Return the current model; before the first promotion, the newest finished one.

        Raises:
            ModelStoreError: As `promoted`.
        """
        current = self.promoted()
        if current is not None:
            return current.model
        return self.names()[-1] if self.names() else None

    def record(self, decision: Decision) -> None:
        """Append a decision to the history and apply it.

        A killed process leaves either the old or the new current model.

        Raises:
            ModelStoreError: Another model became the current one meanwhile, or `decision` names no
                finished model.
        """
        if not self.finished(decision.model):
            raise ModelStoreError(f"{decision.model} is not a finished model of {self.root}")
        with locked(self.root, what=f"the models in {self.root}"):
            current = self.promoted()
            if decision.promoted and (current.model if current else None) != decision.against:
                raise ModelStoreError(
                    f"{decision.model} was compared with {decision.against or 'no model'}, but "
                    f"{current.model if current else 'none'} is the current one now; start the evaluation again"
                )
            _append(self.root / HISTORY, decision.model_dump_json())
            if decision.promoted:
                with written_aside(self.root / PROMOTED) as part:
                    part.write_text(f"{decision.model_dump_json(indent=1)}\n", encoding="utf-8")


def _append(path: Path, line: str) -> None:
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a killed process left an incomplete line
                file.write(b"\n")
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
