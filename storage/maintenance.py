"""Maintenance of a corpus: repair it, remove sources, restore a version, free disk space.

No worker may write to the corpus meanwhile: the caller holds `Corpus.lock`, which keeps out the
workers of this machine from a local corpus. Nothing keeps workers from one in an object store.
"""

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.fs
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from storage.claims import release
from storage.corpus import SCHEMAS, SPEAKERS, SUPERSEDED, Corpus, carrying, plain, replacing
from storage.deltalog import (
    FOLDER,
    STEP_OF,
    Shard,
    Version,
    damaged_entries,
    entries,
    leftovers,
    require_corpus,
    versions,
)
from storage.rows import CorpusError
from storage.validation import NOTHING
from storage.verify import verify

FORGOTTEN = -1
"""The ledger's token of a source to build again; no row has this token."""

_OF_CHECKPOINT = re.compile(r"/\d{20}\.checkpoint.*\.parquet$|/_last_checkpoint$")

# Table -> the token that means "source absent". Ledger first, so a reader who trusts it never sees
# half a source.
_ABSENT = {"sources": FORGOTTEN, "utterances": NOTHING, "rejects": NOTHING}


@dataclass(frozen=True, slots=True)
class Change:
    """A version of the utterances and its changes.

    Attributes:
        added, replaced, removed: Source ids.
        rows: Number of utterances in this version.
        readable: Whether all its shards still exist.
    """

    number: int
    time: datetime
    operation: str
    added: tuple[str, ...]
    replaced: tuple[str, ...]
    removed: tuple[str, ...]
    rows: int
    readable: bool


@dataclass(frozen=True, slots=True)
class Removed:
    """A file that `vacuum` removed or would remove; its name within the corpus, its size in bytes."""

    name: str
    size: int


# Removing and repairing


def forget(corpus: Corpus, source_ids: Iterable[str]) -> list[str]:
    """Remove sources with all their rows, so that the next build makes them again.

    Can be repeated after an interruption. Earlier versions still have the sources.

    Returns:
        The removed sources, sorted; without those that the corpus did not have.

    Raises:
        CorpusError: A table cannot be read or written to.
    """
    requested = set(source_ids)
    removed: set[str] = set()
    operation = uuid.uuid4().hex
    recordings = {row["source_id"]: row["media_sha256"] for row in corpus.sources().to_pylist()}
    for name, token in _ABSENT.items():
        present = _present(corpus, name, requested)
        if present:
            _remove_rows(corpus, name, dict.fromkeys(present, token), operation=operation)
        removed |= present
    if not corpus.is_local:
        for source_id in removed:
            if recording := recordings.get(source_id):
                release(corpus, recording, source_id)
    return sorted(removed)


def _present(corpus: Corpus, name: str, source_ids: set[str]) -> set[str]:
    """Those of the sources of which a table has rows, or a token of rows that it should have."""
    table = corpus.delta(name)
    tokens = {source_id: table.transaction_version(source_id) for source_id in source_ids}
    committed = {source_id for source_id, token in tokens.items() if token not in (None, _ABSENT[name])}
    return committed | (_sources(corpus, name) & source_ids)


def _sources(corpus: Corpus, name: str, *, version: int | None = None) -> set[str]:
    try:
        return set(corpus.dataset(name, version=version).to_table(columns=["source_id"])["source_id"].to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(
            f"the rows of {corpus.uri(name)} cannot be read: {plain(error)}; `fsclap corpus repair {corpus.location}` "
            "removes the damaged shards first"
        ) from error


def _remove_rows(corpus: Corpus, name: str, tokens: Mapping[str, int], *, operation: str) -> None:
    commit = carrying(tokens, **{STEP_OF: operation})
    try:
        write_deltalake(corpus.delta(name), SCHEMAS[name].empty_table(), commit_properties=commit, **replacing(tokens))
    except (DeltaError, OSError) as error:
        raise CorpusError(f"cannot write to {corpus.uri(name)}: {plain(error)}; nothing was removed from it") from error


def repair(corpus: Corpus) -> list[str]:
    """Remove the sources that `verify` reports as damaged, so that the next build makes them again.

    Damaged files are renamed to "*.damaged", not deleted; `vacuum` removes them.

    Returns:
        The steps taken, one sentence each; none for a sound corpus.

    Raises:
        CorpusError: There is no corpus, or the damage cannot be repaired here. The message gives the
            remedy.
    """
    require_corpus(corpus)
    done = [step for name in SCHEMAS for step in _repair_log(corpus, name)]
    corpus = Corpus.open(corpus.location, create=True)
    done += _set_speakers_aside(corpus)
    report = verify(corpus)
    shards = [problem.shard for problem in report.problems if problem.shard is not None]
    for name, shard in shards:
        done += _set_aside(corpus, f"{name}/{shard}")
    for name in {name for name, _ in shards}:
        corpus.delta(name).repair()  # removes missing shards from the log
    forgotten = forget(corpus, report.damaged_sources())
    if forgotten:
        done.append(f"removed, for the next build to make again: {', '.join(forgotten)}")
    return done


def _repair_log(corpus: Corpus, name: str) -> Iterator[str]:
    files = corpus.files(name)
    while (paths := entries(files)) and max(paths) in damaged_entries(files):
        yield from _set_aside(corpus, f"{name}/{paths[max(paths)]}")
    if not paths:
        yield f"created an empty table {corpus.uri(name)}"
        return
    try:
        corpus.delta(name)
    except CorpusError:
        if damaged_entries(files):  # only the checkpoints have the contents of the missing entries
            raise
        for entry in list(corpus.place.list(f"{name}/{FOLDER}/")):
            if _OF_CHECKPOINT.search(entry.name):
                yield from _set_aside(corpus, entry.name)


def _set_speakers_aside(corpus: Corpus) -> Iterator[str]:
    try:
        corpus.speakers()
    except CorpusError:
        yield from _set_aside(corpus, SPEAKERS)


def _set_aside(corpus: Corpus, name: str) -> Iterator[str]:
    if corpus.place.exists(name):
        corpus.place.move(name, f"{name}.damaged")
        yield f"set aside: {corpus.location}/{name}"


# Versions


def history(corpus: Corpus) -> list[Change]:
    """Return the versions of the utterances, the first one first.

    Raises:
        CorpusError: An entry of the log is missing or damaged.
    """
    files = corpus.files("utterances")
    found = files.get_file_info(pyarrow.fs.FileSelector("", recursive=True))
    existing = {info.path.removeprefix(f"{SUPERSEDED}/") for info in found}
    live: dict[str, Shard] = {}
    changes = []
    for version in versions(corpus, "utterances"):
        before = {_label(live[name]) for name in version.removed if name in live}
        for name in version.removed:
            live.pop(name, None)
        live |= {shard.name: shard for shard in version.added}
        after = {_label(shard) for shard in version.added}
        changes.append(
            Change(
                number=version.number,
                time=version.time,
                operation=version.operation,
                added=tuple(sorted(after - before)),
                replaced=tuple(sorted(after & before)),
                removed=tuple(sorted(before - after)),
                rows=sum(shard.rows or 0 for shard in live.values()),
                readable=live.keys() <= existing,
            )
        )
    return changes


def _label(shard: Shard) -> str:
    return shard.first if shard.first == shard.last else f"{shard.first}..{shard.last}"


def restore(corpus: Corpus, version: int) -> list[str]:
    """Restore the three tables to their state at a version of the utterances.

    This makes a new version; those in between stay. A source that was being committed at that
    moment, or was damaged since, is removed. The next build adds the missing sources again.

    Args:
        corpus: A corpus that no worker is writing to.
        version: Version of the utterances, as in `history`.

    Returns:
        The removed sources, sorted.

    Raises:
        CorpusError: There is no such version, a vacuum has removed its shards, or a table cannot be
            written to.
    """
    targets = _moment(corpus, version)
    for name, target in targets.items():
        _check_readable(corpus, name, target, restoring=version)
    operation = uuid.uuid4().hex
    for name, target in targets.items():
        _restore_table(corpus, name, target, operation=operation)
    return forget(corpus, verify(corpus, audio=False).damaged_sources())


def _moment(corpus: Corpus, version: int) -> dict[str, int]:
    """Find the versions of the three tables that belong to a version of the utterances.

    A source is written to the rejects, then to the utterances, then to the ledger, whose entry says
    which versions of the other two it follows. `forget`, `restore` and `compact` write in another order;
    the id of the operation identifies their steps. Entries of an earlier release say neither: for them
    the clock decides.
    """
    logs = {name: list(versions(corpus, name)) for name in SCHEMAS}
    if not 0 <= version < len(logs["utterances"]):
        raise CorpusError(
            f"{corpus.location} has no version {version}: the utterances are at version {len(logs['utterances']) - 1}; "
            f"`fsclap corpus history {corpus.location}` lists them"
        )
    if version == len(logs["utterances"]) - 1:
        return {name: entries[-1].number for name, entries in logs.items()}
    following = logs["utterances"][version + 1]
    ledger = logs["sources"][0]
    for entry in logs["sources"][1:]:
        if _follows(entry, following, logs["utterances"]):
            break
        ledger = entry
    return {"sources": ledger.number, "utterances": version, "rejects": _rejects_of(ledger, logs["rejects"])}


def _follows(entry: Version, following: Version, utterances: list[Version]) -> bool:
    """Whether an entry of the ledger came after a version of the utterances."""
    if "utterances" in entry.after:
        return entry.after["utterances"] >= following.number
    if entry.step_of is not None:
        step = next((other.number for other in utterances if _same_step(entry, other)), -1)
        return step >= following.number
    return entry.time >= following.time


def _rejects_of(ledger: Version, rejects: list[Version]) -> int:
    """Find the version of the rejects that an entry of the ledger belongs to."""
    if "rejects" in ledger.after:
        return ledger.after["rejects"]
    before = [entry for entry in rejects if entry.time <= ledger.time or _same_step(entry, ledger)]
    return (before[-1] if before else rejects[0]).number


def _same_step(first: Version, second: Version) -> bool:
    return first.step_of is not None and first.step_of == second.step_of


def _check_readable(corpus: Corpus, name: str, version: int, *, restoring: int) -> None:
    files = corpus.files(name)
    names = corpus.shards(version=version, table=name)
    aside = [f"{SUPERSEDED}/{shard}" for shard in names]
    found = zip(names, files.get_file_info(names), files.get_file_info(aside), strict=True)
    gone = [shard for shard, info, other in found if not (info.is_file or other.is_file)]
    if gone:
        raise CorpusError(
            f"version {restoring} cannot be restored: {len(gone)} of its shards in {corpus.uri(name)} are gone, such "
            f"as {gone[0]}; a vacuum removes the shards that later versions replaced"
        )


def _restore_table(corpus: Corpus, name: str, version: int, *, operation: str) -> None:
    table, past = corpus.delta(name), corpus.delta(name, version=version)
    if set(table.file_uris()) == set(past.file_uris()):
        return
    # The tokens must be restored with the rows, or a build would take the restored rows for those
    # it wrote last.
    sources = set().union(*(_sources(corpus, each) for each in SCHEMAS), _sources(corpus, name, version=version))
    tokens = {source_id: _token(past, name, source_id) for source_id in sources}
    stale = {source_id: token for source_id, token in tokens.items() if token != _token(table, name, source_id)}
    _take_back(corpus, name, version)
    try:
        table.restore(version, commit_properties=carrying(stale, **{STEP_OF: operation}))
    except (DeltaError, OSError) as error:
        raise CorpusError(
            f"cannot restore {corpus.uri(name)}: {plain(error)}; check the disk and the permissions, then run it again"
        ) from error


def _take_back(corpus: Corpus, name: str, version: int) -> None:
    """Move the shards of a version back to where Delta looks for them, after a compaction."""
    for shard in corpus.set_aside(name).intersection(corpus.shards(version=version, table=name)):
        corpus.place.move(f"{name}/{SUPERSEDED}/{shard}", f"{name}/{shard}")


def _token(table: DeltaTable, name: str, source_id: str) -> int:
    token = table.transaction_version(source_id)
    return _ABSENT[name] if token is None else token


# Disk space


def vacuum(corpus: Corpus, *, keep: timedelta, dry_run: bool = False) -> list[Removed]:
    """Remove old shards that the current version does not need, and files that killed writers left.

    Versions that were replaced more than `keep` ago cannot be read or restored after that.

    Args:
        corpus: The corpus.
        keep: Files that have been unused for less than this stay.
        dry_run: List the files without removing them.

    Returns:
        The removed files.

    Raises:
        CorpusError: An entry of a log is missing or damaged.
    """
    until = datetime.now(UTC) - keep
    removed = [file for name in SCHEMAS for file in _unused(corpus, name, until=until)]
    removed += [
        Removed(entry.name, entry.size)
        for entry in corpus.place.list(".")
        if entry.name.endswith(".tmp") and "/" not in entry.name and entry.modified <= until
    ]
    if not dry_run:
        corpus.place.delete(*(file.name for file in removed))
    return removed


def _unused(corpus: Corpus, name: str, *, until: datetime) -> Iterator[Removed]:
    replaced: dict[str, datetime] = {}
    for version in versions(corpus, name):
        replaced |= version.removed
        for shard in version.added:
            replaced.pop(shard.name, None)
    unused = {shard for shard, time in replaced.items() if time <= until}
    left = {info.path for info in leftovers(corpus, name) if info.mtime <= until}
    for entry in corpus.place.list(f"{name}/"):
        within = entry.name.removeprefix(f"{name}/")
        if within in left or within.removeprefix(f"{SUPERSEDED}/") in unused:
            yield Removed(entry.name, entry.size)
