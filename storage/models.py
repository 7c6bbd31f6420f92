"""Trained models on disk, and which of them is the current one.

    {root}/{corpus}-v{version}-{digest}/      a run: what training writes, training.json last
    {root}/promoted.json                      the current model and the figure it was promoted for
    {root}/promotions.jsonl                   every decision, promotions and refusals, with its reason

A run's folder has the same name whenever the same version of a corpus is trained on with the same settings, so that
an interrupted run is taken up and a finished one is not repeated.
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

from storage.files import locked, written_aside

FINISHED = "training.json"
"""The file that training writes last: without it a run is unfinished."""
PROMOTED, HISTORY = "promoted.json", "promotions.jsonl"


_AFTER = "the next model that beats chance is promoted then."


class ModelStoreError(RuntimeError):
    """A model store cannot be used as it is; the message says which file and what to do."""


class Decision(BaseModel):
    """Whether a model became the current one, and why.

    Attributes:
        model: Name of its folder.
        against: The model that was current; None when there was none.
        promoted: Whether `model` is the current one now.
        reason: A sentence.
        figure: The validation figure of `model`, a share: value, low, high; None when it has none.
        difference: `model` less `against` on the same clips, paired: value, low, high; None without comparison.
        clips: Validation clips that decided.
        date: ISO date and time.
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
        """The store at a folder, which is made when absent.

        Raises:
            ModelStoreError: The path is a file.
        """
        folder = Path(root)
        if folder.exists() and not folder.is_dir():
            raise ModelStoreError(f"{folder} is a file; name a folder for the models")
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def name(self, corpus: str, version: int, depends_on: Mapping[str, Any]) -> str:
        """The folder's name of a run.

        Args:
            corpus: Location of the corpus; its last part names the run.
            version: Of the utterances.
            depends_on: Everything else that the model depends on, as JSON can hold it: settings, table id.
        """
        canonical = json.dumps([version, dict(depends_on)], sort_keys=True, separators=(",", ":"), allow_nan=False)
        readable = re.sub(r"[^\w.-]+", "-", corpus.rstrip("/").rsplit("/", 1)[-1]).strip("-.") or "corpus"
        return f"{readable}-v{version}-{sha256(canonical.encode()).hexdigest()[:8]}"

    def folder(self, name: str) -> Path:
        """Where a run lies, finished or not.

        Raises:
            ModelStoreError: The name would leave the store.
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
        """The decision that made the current model; None before the first.

        Raises:
            ModelStoreError: Its folder is gone, or promoted.json is damaged.
        """
        path = self.root / PROMOTED
        if not path.is_file():
            return None
        try:
            decision = Decision.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ModelStoreError(f"{path} is damaged; delete it: {_AFTER}") from error
        if not self.finished(decision.model):
            raise ModelStoreError(
                f"{path} names {decision.model}, which is not among the models ({', '.join(self.names()) or 'none'}). "
                f"Put its folder back, or delete the file: {_AFTER}"
            )
        return decision

    def to_search_with(self) -> str | None:
        """The current model; while none was promoted, the newest finished one; None when there is none.

        Raises:
            ModelStoreError: As `promoted`.
        """
        current = self.promoted()
        if current is not None:
            return current.model
        return self.names()[-1] if self.names() else None

    def record(self, decision: Decision) -> None:
        """Keep a decision; a promotion takes effect at once, or not at all when the process dies.

        Raises:
            ModelStoreError: Another model became the current one meanwhile; or `decision` names no finished model.
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
            if file.read(1) != b"\n":  # a killed process left half a line
                file.write(b"\n")
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
