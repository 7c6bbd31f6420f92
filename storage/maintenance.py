"""Looking after a corpus: take out what is damaged, go back to an earlier version, free the disk.

To be done while no worker writes to the corpus: the caller holds `Corpus.lock`, which keeps out the workers
of this machine.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.fs
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from storage.corpus import SCHEMAS, SPEAKERS, Corpus, carrying, plain, replacing
from storage.deltalog import (
    FOLDER,
    STEP_OF,
    Shard,
    Version,
    damaged_entries,
    entries,
    filesystem,
    leftovers,
    require_corpus,
    versions,
)
from storage.rows import CorpusError
from storage.validation import NOTHING
from storage.verify import verify

FORGOTTEN = -1
"""The token of a source in the ledger that is to be built again: no row has it."""

_ABSENT = {"sources": FORGOTTEN, "utterances": NOTHING, "rejects": NOTHING}
"""By table, the token of a source that is not there. The ledger comes first: who trusts it never sees half a source."""


@dataclass(frozen=True, slots=True)
class Change:
    """One version of the utterances, and what it changed.

    Attributes:
        added, replaced, removed: Source ids.
        rows: Utterances in this version.
        readable: Whether all its shards are still there.
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
    """A file that `vacuum` removed, or would remove, and its bytes."""

    path: Path
    size: int


# Taking out


def forget(corpus: Corpus, source_ids: Iterable[str]) -> list[str]:
    """Take all that the corpus holds of some sources out of it, so that the next build makes them again.

    May be repeated after it was interrupted. Earlier versions still have the sources.

    Returns:
        The sources that were there, sorted.

    Raises:
        CorpusError: A table cannot be read or written to.
    """
    wanted = set(source_ids)
    taken: set[str] = set()
    operation = uuid.uuid4().hex
    for name, token in _ABSENT.items():
        present = _present(corpus, name, wanted)
        if present:
            _put_nothing(corpus, name, dict.fromkeys(present, token), operation=operation)
        taken |= present
    return sorted(taken)


def _present(corpus: Corpus, name: str, source_ids: set[str]) -> set[str]:
    """The sources of which a table has rows, or a token of rows that it should have."""
    table = corpus.delta(name)
    tokens = {source_id: table.transaction_version(source_id) for source_id in source_ids}
    held = {source_id for source_id, token in tokens.items() if token not in (None, _ABSENT[name])}
    return held | (_sources(corpus, name) & source_ids)


def _sources(corpus: Corpus, name: str, *, version: int | None = None) -> set[str]:
    try:
        return set(corpus.dataset(name, version=version).to_table(columns=["source_id"])["source_id"].to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(
            f"the rows of {corpus.uri(name)} cannot be read: {plain(error)}; `fsclap corpus repair {corpus.location}` "
            "takes the damaged shards out first"
        ) from error


def _put_nothing(corpus: Corpus, name: str, tokens: Mapping[str, int], *, operation: str) -> None:
    commit = carrying(tokens, **{STEP_OF: operation})
    try:
        write_deltalake(corpus.delta(name), SCHEMAS[name].empty_table(), commit_properties=commit, **replacing(tokens))
    except (DeltaError, OSError) as error:
        raise CorpusError(f"cannot write to {corpus.uri(name)}: {plain(error)}; nothing was taken out of it") from error


def repair(corpus: Corpus) -> list[str]:
    """Take out whatever `verify` finds damaged, so that the next build makes it again; the rest stays.

    Damaged files are renamed to "*.damaged", not deleted; `vacuum` removes them.

    Returns:
        What was done, one sentence each; nothing for a sound corpus.

    Raises:
        CorpusError: There is no corpus, it is in an object store, or something is damaged that can't be mended
            here. The message says what to do.
    """
    require_corpus(corpus)
    done = [step for name in SCHEMAS for step in _mend_log(corpus, name)]
    corpus = Corpus.open(corpus.location, create=True)
    done += _set_speakers_aside(corpus)
    report = verify(corpus)
    shards = [problem.shard for problem in report.problems if problem.shard is not None]
    for name, shard in shards:
        done += _set_aside(corpus.folder / name / shard)
    for name in {name for name, _ in shards}:
        corpus.delta(name).repair()  # takes shards that are gone out of the log
    forgotten = forget(corpus, report.damaged_sources())
    if forgotten:
        done.append(f"taken out, for the next build to make again: {', '.join(forgotten)}")
    return done


def _mend_log(corpus: Corpus, name: str) -> Iterator[str]:
    folder, files = corpus.folder / name, filesystem(corpus, name)
    while (paths := entries(files)) and max(paths) in damaged_entries(files):
        yield from _set_aside(folder / paths[max(paths)])
    if not paths:
        yield f"table {folder} made anew, empty"
        return
    try:
        corpus.delta(name)
    except CorpusError:
        if damaged_entries(files):  # the checkpoints are all there is of what the missing entries said
            raise
        for path in [*(folder / FOLDER).glob("*.checkpoint*.parquet"), folder / FOLDER / "_last_checkpoint"]:
            yield from _set_aside(path)


def _set_speakers_aside(corpus: Corpus) -> Iterator[str]:
    try:
        corpus.speakers()
    except CorpusError:
        yield from _set_aside(corpus.folder / SPEAKERS)


def _set_aside(path: Path) -> Iterator[str]:
    if path.exists():
        path.rename(path.with_name(f"{path.name}.damaged"))
        yield f"set aside: {path}"


# Versions


def history(corpus: Corpus) -> list[Change]:
    """The versions of the utterances, the first one first.

    Raises:
        CorpusError: An entry of the log is missing or damaged.
    """
    files = filesystem(corpus, "utterances")
    there = {info.path for info in files.get_file_info(pyarrow.fs.FileSelector("", recursive=True))}
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
                readable=live.keys() <= there,
            )
        )
    return changes


def _label(shard: Shard) -> str:
    return shard.first if shard.first == shard.last else f"{shard.first}..{shard.last}"


def restore(corpus: Corpus, version: int) -> list[str]:
    """Bring the three tables back to what they were when the utterances were at a version.

    That makes a new version; the ones in between stay. A source that was being committed at that moment, or was
    damaged since, is taken out. The next build adds what is missing again.

    Args:
        version: Of the utterances, as in `history`.

    Returns:
        The sources that were taken out, sorted.

    Raises:
        CorpusError: There is no such version, a vacuum has removed its shards, or a table cannot be written to.
    """
    targets = _moment(corpus, version)
    for name, target in targets.items():
        _check_readable(corpus, name, target, wanted=version)
    operation = uuid.uuid4().hex
    for name, target in targets.items():
        _restore_table(corpus, name, target, operation=operation)
    return forget(corpus, verify(corpus, audio=False).damaged_sources())


def _moment(corpus: Corpus, version: int) -> dict[str, int]:
    """The versions of the three tables that belong together.

    A source is written to the rejects, then to the utterances, then to the ledger: what the ledger gets before the next
    version of the utterances is the end of that source, and sources without utterances. `forget` and `restore` write in
    another order, so their steps are known by a mark.
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
    earlier = [one for one in logs["sources"] if one.time < following.time and not _together(one, following)]
    ledger = _last(logs["sources"], earlier)
    earlier = [one for one in logs["rejects"] if one.time <= ledger.time or _together(one, ledger)]
    rejects = _last(logs["rejects"], earlier)
    return {"sources": ledger.number, "utterances": version, "rejects": rejects.number}


def _together(one: Version, other: Version) -> bool:
    return one.step_of is not None and one.step_of == other.step_of


def _last(log: Sequence[Version], earlier: Sequence[Version]) -> Version:
    return earlier[-1] if earlier else log[0]


def _check_readable(corpus: Corpus, name: str, version: int, *, wanted: int) -> None:
    files = filesystem(corpus, name)
    paths = [uri.rsplit("/", 1)[-1] for uri in corpus.delta(name, version=version).file_uris()]
    gone = [info.path for info in files.get_file_info(paths) if not info.is_file]
    if gone:
        raise CorpusError(
            f"version {wanted} cannot be restored: {len(gone)} shards that it has in {corpus.uri(name)} are gone, such "
            f"as {gone[0]}; a vacuum removes what later versions replaced"
        )


def _restore_table(corpus: Corpus, name: str, version: int, *, operation: str) -> None:
    table, past = corpus.delta(name), corpus.delta(name, version=version)
    if set(table.file_uris()) == set(past.file_uris()):
        return
    # The tokens must go back with the rows, or a build would take the rows that it finds for those it last wrote.
    sources = set().union(*(_sources(corpus, one) for one in SCHEMAS), _sources(corpus, name, version=version))
    tokens = {source_id: _token(past, name, source_id) for source_id in sources}
    stale = {source_id: token for source_id, token in tokens.items() if token != _token(table, name, source_id)}
    try:
        table.restore(version, commit_properties=carrying(stale, **{STEP_OF: operation}))
    except (DeltaError, OSError) as error:
        raise CorpusError(
            f"cannot restore {corpus.uri(name)}: {plain(error)}; see to the disk and the rights, then run it again"
        ) from error


def _token(table: DeltaTable, name: str, source_id: str) -> int:
    token = table.transaction_version(source_id)
    return _ABSENT[name] if token is None else token


# Room


def vacuum(corpus: Corpus, *, keep: timedelta, dry_run: bool = False) -> list[Removed]:
    """Remove the shards that no version of the last days needs, and what killed writers left.

    Versions that were replaced before that can't be read or restored any more.

    Args:
        keep: Age from which a file that the current version doesn't need is removed.
        dry_run: Only tell.

    Raises:
        CorpusError: The corpus is in an object store, or an entry of a log is missing or damaged.
    """
    until = datetime.now(UTC) - keep
    files = [path for name in SCHEMAS for path in _superfluous(corpus, name, until=until)]
    files += [path for path in sorted(corpus.folder.glob("*.tmp")) if _modified(path) <= until]
    removed = [Removed(path, path.stat().st_size) for path in files]
    if not dry_run:
        for file in removed:
            file.path.unlink()
    return removed


def _superfluous(corpus: Corpus, name: str, *, until: datetime) -> Iterator[Path]:
    folder = corpus.folder / name
    replaced: dict[str, datetime] = {}
    for version in versions(corpus, name):
        replaced |= version.removed
        for shard in version.added:
            replaced.pop(shard.name, None)
    yield from (folder / path for path, time in sorted(replaced.items()) if time <= until and (folder / path).is_file())
    yield from (folder / info.path for info in leftovers(corpus, name) if info.mtime <= until)


def _modified(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
