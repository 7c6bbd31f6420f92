"""The log of a Delta table, read from its files: changes of each version, and damaged entries.

Delta reads the log from the newest checkpoint on and stops at the first error. To report all
errors, and the history of each source, this module reads the JSON entries ("Delta Log Entries" in
the protocol, https://github.com/delta-io/delta/blob/master/PROTOCOL.md). None is ever deleted: a
corpus does not clean up its log.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import pyarrow.fs

from storage.corpus import AFTER, SCHEMAS, SUPERSEDED, Corpus, missing_message
from storage.rows import CorpusError

FOLDER = "_delta_log"
STEP_OF = "fsclapStepOf"
"""Key in an entry's commitInfo: the id of the operation that this commit is a step of."""

_ENTRY = re.compile(r"(\d{20})\.json")


@dataclass(frozen=True, slots=True)
class Shard:
    """The log's entry of a Parquet file.

    Attributes:
        size: Bytes.
        rows: Number of rows; None when the log has no count.
        first, last: The smallest and largest source id in it, usually equal. Empty when the log has
            none.
    """

    name: str
    size: int
    rows: int | None
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Version:
    """One entry of the log.

    Attributes:
        operation: Delta's name of it.
        step_of: Id of the operation on all three tables that it is a step of; None for the commit
            of a source.
        after: Table -> its version when this entry of the ledger was written; empty for other
            entries, and for those of an earlier release.
        added: The shards that it added.
        removed: Name of each shard that it removed -> when.
        tokens: Source id -> the token of its rows that it set.
    """

    number: int
    time: datetime
    operation: str
    step_of: str | None
    after: Mapping[str, int]
    added: tuple[Shard, ...]
    removed: Mapping[str, datetime]
    tokens: Mapping[str, int]


def entries(files: pyarrow.fs.FileSystem) -> dict[int, str]:
    """Return version -> path of its entry, in order; empty when there is no log."""
    found = files.get_file_info(pyarrow.fs.FileSelector(FOLDER, allow_not_found=True))
    matches = ((_ENTRY.fullmatch(info.base_name), info.path) for info in found)
    return dict(sorted((int(match[1]), path) for match, path in matches if match))


def require_corpus(corpus: Corpus) -> None:
    """Check that there is at least one table.

    Raises:
        CorpusError: There is none.
    """
    if not any(entries(corpus.files(name)) for name in SCHEMAS):
        raise CorpusError(missing_message(corpus.location, list(SCHEMAS)))


def damaged_entries(files: pyarrow.fs.FileSystem) -> dict[int, str]:
    """Return version -> "is missing", "is empty" or "is incomplete", for damaged entries."""
    paths = entries(files)
    damaged = {}
    for number in range(max(paths, default=-1) + 1):
        if number not in paths:
            damaged[number] = "is missing"
            continue
        try:
            if not _actions(files, paths[number]):
                damaged[number] = "is empty"
        except ValueError:
            damaged[number] = "is incomplete"
    return damaged


def versions(corpus: Corpus, table: str) -> Iterator[Version]:
    """Yield the versions of a table, the first one first.

    Raises:
        CorpusError: An entry is missing or damaged.
    """
    files = corpus.files(table)
    for expected, (number, path) in enumerate(entries(files).items()):
        try:
            actions = _actions(files, path)
        except ValueError as error:
            raise CorpusError(f"{corpus.uri(table)}/{path} is damaged: {error}; restore it from a backup") from error
        if number != expected:
            raise CorpusError(
                f"{corpus.uri(table)}/{FOLDER}/{expected:020d}.json is missing, so the contents of version "
                f"{expected} are unknown; restore it from a backup"
            )
        yield _version(number, actions)


def _actions(files: pyarrow.fs.FileSystem, path: str) -> list[dict[str, Any]]:
    with files.open_input_file(path) as file:
        return [json.loads(line) for line in file.read().splitlines() if line.strip()]


def _version(number: int, actions: list[dict[str, Any]]) -> Version:
    info: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
    removed = [action["remove"] for action in actions if "remove" in action]
    return Version(
        number=number,
        time=_time(info.get("timestamp", 0)),
        operation=info.get("operation", "unknown"),
        step_of=info.get(STEP_OF),
        after={name: int(info[AFTER + name]) for name in SCHEMAS if AFTER + name in info},
        added=tuple(_shard(action["add"]) for action in actions if "add" in action),
        removed={unquote(action["path"]): _time(action.get("deletionTimestamp", 0)) for action in removed},
        tokens={action["txn"]["appId"]: action["txn"]["version"] for action in actions if "txn" in action},
    )


def _shard(add: Mapping[str, Any]) -> Shard:
    statistics = json.loads(add.get("stats") or "{}")
    return Shard(
        name=unquote(add["path"]),
        size=add["size"],
        rows=statistics.get("numRecords"),
        first=statistics.get("minValues", {}).get("source_id", ""),
        last=statistics.get("maxValues", {}).get("source_id", ""),
    )


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def leftovers(corpus: Corpus, table: str) -> list[pyarrow.fs.FileInfo]:
    """List files in a table's folder that belong to no version: of killed writers, or foreign.

    Raises:
        CorpusError: An entry of the log is missing or damaged.
    """
    named = {shard.name for version in versions(corpus, table) for shard in version.added}
    found = corpus.files(table).get_file_info(pyarrow.fs.FileSelector("", recursive=True))
    # Some object stores list an empty folder as if it were a file.
    files = (
        info for info in found if info.is_file and info.path != SUPERSEDED and not info.path.startswith(f"{FOLDER}/")
    )
    return sorted(
        (info for info in files if info.path.removeprefix(f"{SUPERSEDED}/") not in named), key=lambda info: info.path
    )
