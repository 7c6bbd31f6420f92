"""Compact a corpus of many small sources: few shards in place of one per source, and a short log.

A corpus has a shard and a log entry per commit. Ten thousand sources of one row make ten thousand small
files, which no reader opens in a second. `compact` writes them together, which changes no row and no token,
and moves what was replaced aside, into `_superseded/` of the table, where readers of the folder don't look
and readers of an earlier version do (`Corpus.dataset`). `vacuum` deletes it.

Every step can be repeated: after an interruption, the next call finishes.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from deltalake.exceptions import DeltaError

from storage.build_record import read_announced, write_announced
from storage.checkpoints import thin_checkpoints
from storage.corpus import SCHEMAS, SHARD_WRITER, SUPERSEDED, Corpus, carrying, plain
from storage.deltalog import STEP_OF, versions
from storage.rows import CorpusError

SHARD_BYTES = 64_000_000
"""Size of a compacted shard. Replacing one source rewrites its shard."""
OPTIMIZE = "OPTIMIZE"
"""Delta's name of the operation."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was done to a table.

    Attributes:
        before, after: Number of shards.
        aside: Number of files moved to `_superseded/`.
    """

    table: str
    before: int
    after: int
    aside: int


def compact(corpus: Corpus) -> list[Compacted]:
    """Write the small shards of every table together; the caller holds `Corpus.lock`.

    Args:
        corpus: A corpus that no worker is writing to.

    Returns:
        What was done to each table.

    Raises:
        CorpusError: A table can't be read or written to.
    """
    operation = uuid.uuid4().hex
    done = [_compact(corpus, name, operation=operation) for name in SCHEMAS]
    _announce(corpus)
    return done


def _compact(corpus: Corpus, name: str, *, operation: str) -> Compacted:
    table = corpus.delta(name)
    before = len(table.file_uris())
    try:
        # One shard at a time, so that memory holds one.
        table.optimize.compact(
            target_size=SHARD_BYTES,
            max_concurrent_tasks=1,
            writer_properties=SHARD_WRITER,
            commit_properties=carrying({}, **{STEP_OF: operation}),
        )
        table = corpus.delta(name)
        table.create_checkpoint()
    except (DeltaError, OSError) as error:
        raise CorpusError(
            f"cannot compact {corpus.uri(name)}: {plain(error)}; check the disk and the permissions, then run it again"
        ) from error
    live = set(corpus.shards(table=name))
    aside = sum(1 for _ in _move_aside(corpus, name, live))
    thin_checkpoints(corpus.place, name)
    return Compacted(name, before, len(live), aside)


def _move_aside(corpus: Corpus, name: str, live: set[str]) -> Iterator[str]:
    """Move the shards of earlier versions out of the way of whoever reads the folder as it is."""
    replaced = {shard.name for version in versions(corpus, name) for shard in version.added} - live
    for entry in list(corpus.place.list(f"{name}/")):
        shard = entry.name.removeprefix(f"{name}/")
        if shard in replaced:
            corpus.place.move(entry.name, f"{name}/{SUPERSEDED}/{shard}")
            yield shard


def _announce(corpus: Corpus) -> None:
    """Take a compacted version for announced if the one before it was: it has the same rows."""
    announced = read_announced(corpus)
    if announced is None:
        return
    later = [version for version in versions(corpus, "utterances") if version.number > announced]
    if later and all(version.operation == OPTIMIZE for version in later):
        write_announced(corpus, later[-1].number)
