"""What a build keeps in mind of the batches that it hands out, to a pool or to a cluster.

What is done is what the ledger of the corpus has, not what a run or a task returned.
"""

import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from storage.corpus import Corpus
from tasks.batches import Batch
from tasks.outcomes import Committed

log = logging.getLogger("fsclap.tasks")

TRIES = 3
"""How many times a build hands out a batch that comes to no end."""
IN_A_ROW = 5
"""Batches that fail one after the other, after which no more are handed out."""


@dataclass
class HandedOut:
    """What became of batches.

    Attributes:
        done: The sources that are in the ledger now.
        undone: One sentence per batch that is not done, with the reason.
    """

    done: list[Committed] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)


class Books:
    """Batches that wait, that are done, and that are given up.

    Attributes:
        waiting: To be handed out, in this order.
        tries: Name of a batch -> how many times it was handed out (`count`).
    """

    def __init__(self, batches: Iterable[Batch], corpus: str) -> None:
        self.corpus = corpus
        self.waiting = deque(batches)
        self.tries: dict[str, int] = {}
        self._before = Corpus.open(corpus).ledger()
        self._finished: list[Batch] = []
        self._undone: list[str] = []
        self._failures = 0

    @property
    def episodes_done(self) -> int:
        return sum(len(batch.items) for batch in self._finished)

    def count(self, batch: Batch) -> None:
        """Note that a batch was handed out."""
        self.tries[batch.name] = self.tries.get(batch.name, 0) + 1

    def lacking(self, batches: Iterable[Batch]) -> list[Batch]:
        """List those batches of which the ledger of the corpus lacks a source."""
        ledger = Corpus.open(self.corpus).ledger()
        return [batch for batch in batches if not all(item.episode.source_id in ledger for item in batch.items)]

    def finish(self, batch: Batch) -> None:
        self._failures = 0
        self._finished.append(batch)

    def again(self, batch: Batch, problem: str) -> None:
        """Let a batch that came to no end be handed out again; give it up after TRIES."""
        if self.tries.get(batch.name, 0) < TRIES:
            log.warning("%s: %s; handing it out again", batch.name, problem)
            self.waiting.append(batch)
        else:
            self.give_up(batch, f"{problem}, in {TRIES} tries")

    def fail(self, batch: Batch, why: str) -> None:
        """Give up a batch that met an error of its own, which another try would meet again."""
        self.give_up(batch, why)
        self._failures += 1
        if self._failures >= IN_A_ROW and self.waiting:
            self._undone.append(f"{len(self.waiting)} more were not handed out, since {self._failures} failed in a row")
            self.waiting.clear()

    def give_up(self, batch: Batch, why: str) -> None:
        log.error("%s is not done: %s", batch.name, why)
        self._undone.append(f"{batch.name}: {why}")

    def outcome(self) -> HandedOut:
        table = Corpus.open(self.corpus)
        ledger, refusals = table.ledger(), table.refusals()
        ids = [item.episode.source_id for batch in self._finished for item in batch.items]
        done = [_outcome(ledger[name], self._before.get(name), refusals) for name in ids if name in ledger]
        return HandedOut(done, self._undone)


def _outcome(
    row: dict[str, Any], before: dict[str, Any] | None, refusals: dict[str, tuple[str, str, str]]
) -> Committed:
    return Committed.of(row, why=refusals.get(row["source_id"], ("", "", ""))[2], committed=row != before)
