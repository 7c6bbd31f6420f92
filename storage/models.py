"""Trained models, and which of them is the current one.

    {root}/{corpus}-v{version}-{digest}/      a run: the output of training, training.json last
    {root}/promoted.json                      the current model and the decision that promoted it
    {root}/promotions.jsonl                   all decisions, promotions and refusals, with their reasons

Runs on one version of a corpus with equal settings have the same folder, so that an interrupted run
is resumed and a finished one is not repeated.
"""

import json
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from storage.copies import local_copy, upload
from storage.objects import Place, PlaceError

log = logging.getLogger(__name__)

FINISHED = "training.json"
"""The file that training writes last; a run without it is unfinished."""
PROMOTED, HISTORY = "promoted.json", "promotions.jsonl"

KEEP_EVERY = 300.0
"""Seconds after which a training's checkpoint is brought to an object store."""
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
    """Models at a place, local or in an object store."""

    root: Place

    @classmethod
    def open(cls, root: Path | str | Place) -> "ModelStore":
        """Open the store at a location; a local folder is created when absent.

        Raises:
            ModelStoreError: It is a file, or not a location.
        """
        try:
            place = Place.at(root)
        except PlaceError as error:
            raise ModelStoreError(str(error)) from error
        if place.is_local:
            if place.folder.exists() and not place.folder.is_dir():
                raise ModelStoreError(f"{place} is a file; name a folder for the models")
            place.folder.mkdir(parents=True, exist_ok=True)
        return cls(place)

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

    def place(self, name: str) -> Place:
        """Return the place of a run, finished or not.

        Raises:
            ModelStoreError: The name is not one of a folder in the store.
        """
        if not 0 < len(name.encode(errors="replace")) < 256 or name != Path(name).name or name.startswith("."):
            raise ModelStoreError(f"{name!r} is not the name of a model; use one of {self.names()}")
        return self.root / name

    def folder(self, name: str) -> Path:
        """Return a local folder with the files of a run: its own, or an up-to-date copy.

        Raises:
            ModelStoreError: The name is not one of a folder in the store.
        """
        return local_copy(self.place(name))

    def keep(self, name: str, folder: Path) -> None:
        """Bring what was made in the `folder` of a run to the store, the file that says it is finished last."""
        upload(folder, self.place(name), last=[FINISHED])

    @contextmanager
    def keeping(self, name: str, folder: Path, *, every: float = KEEP_EVERY) -> Iterator[None]:
        """Bring a run's `folder` to the store now and then, so that another machine can go on, and at the end.

        Args:
            name: The run.
            folder: Its `folder`.
            every: Seconds between two times.
        """
        done = threading.Event()

        def follow() -> None:
            while not done.wait(every):
                try:
                    self.keep(name, folder)
                except OSError as error:  # a checkpoint was replaced meanwhile, or the network is down
                    log.warning("%s could not be kept in %s: %s; trying again later", name, self.root, error)

        follower = None if self.root.is_local else threading.Thread(target=follow, daemon=True)
        try:
            if follower is not None:
                follower.start()
            yield
        finally:
            done.set()
            if follower is not None:
                follower.join()
            self.keep(name, folder)

    def finished(self, name: str) -> bool:
        return self.place(name).exists(FINISHED)

    def names(self) -> list[str]:
        """Finished runs, the newest last."""
        marks = [entry for entry in self.root.list() if PurePosixPath(entry.name).match(f"*/{FINISHED}")]
        runs = [mark for mark in marks if mark.name.count("/") == 1]
        return [run.name.split("/")[0] for run in sorted(runs, key=lambda run: (run.modified, run.name))]

    def promoted(self) -> Decision | None:
        """Return the decision that promoted the current model; None before the first.

        Raises:
            ModelStoreError: The model's folder is gone, or promoted.json is damaged.
        """
        return self._current(self.root.read(PROMOTED))

    def _current(self, content: bytes | None) -> Decision | None:
        path = f"{self.root}/{PROMOTED}"
        if content is None:
            return None
        try:
            decision = Decision.model_validate_json(content)
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
        names = self.names()
        return names[-1] if names else None

    def record(self, decision: Decision) -> None:
        """Apply a decision, and append it to the history.

        A killed process leaves either the old or the new current model; the decision that made a model the
        current one is in the history when the next one is recorded.

        Raises:
            ModelStoreError: Another model became the current one meanwhile, or `decision` names no
                finished model.
        """
        if not self.finished(decision.model):
            raise ModelStoreError(f"{decision.model} is not a finished model of {self.root}")
        if decision.promoted:
            self.root.change(PROMOTED, lambda content: self._replaced(content, decision))
        current = self.promoted()
        self.root.change(HISTORY, lambda history: _with_lines(history, current, decision))

    def _replaced(self, content: bytes | None, decision: Decision) -> bytes:
        current = self._current(content)
        if (current.model if current else None) != decision.against:
            raise ModelStoreError(
                f"{decision.model} was compared with {decision.against or 'no model'}, but "
                f"{current.model if current else 'none'} is the current one now; start the evaluation again"
            )
        return f"{decision.model_dump_json(indent=1)}\n".encode()


def model_folder(model: str) -> Path:
    """Return a local folder with the files of a model, by its location."""
    return local_copy(Place.at(model))


def _with_lines(history: bytes | None, current: Decision | None, decision: Decision) -> bytes:
    """Add a decision to a history, and before it the one in force if a killed process didn't come to that."""
    lines = (history or b"").decode(errors="replace").splitlines()
    if current not in (None, decision) and current.model_dump_json() not in lines:
        lines.append(current.model_dump_json())
    return "".join(f"{line}\n" for line in [*lines, decision.model_dump_json()]).encode()
