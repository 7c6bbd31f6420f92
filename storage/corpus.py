"""The corpus: three Delta tables under one location, written one source at a time.

    utterances/   one row per kept utterance, audio included
    rejects/      one row per refused source or turn, with the reason
    sources/      the ledger: one row per source, written last; a source in the ledger is committed

A commit replaces all rows of its source. Each of the three writes is one Delta transaction that
carries the source's id and a token of the rows ("Transaction Identifiers" in the protocol,
https://github.com/delta-io/delta/blob/master/PROTOCOL.md), so a commit that is repeated after a
crash, or by a second worker, writes only what is missing.
"""

import logging
import os
import random
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from storage.checkpoints import EVERY, thin_checkpoints
from storage.files import locked
from storage.objects import Place, PlaceError
from storage.race import race_problem
from storage.rows import CorpusError, build_table
from storage.schema import REJECT, SOURCE, SPEAKER, UTTERANCE, schema_problem
from storage.table_files import TableFiles
from storage.validation import STATUSES, tokens_of, validated

log = logging.getLogger(__name__)

Outcome = Literal["committed", "unchanged", "kept_earlier"]

SCHEMAS = {"rejects": REJECT, "utterances": UTTERANCE, "sources": SOURCE}
"""Table name -> schema, in writing order: the ledger comes last."""

SPEAKERS = "speakers.parquet"
LOCK = ".lock"
AFTER = "fsclapAfter_"
"""Prefix of keys in the commitInfo of the ledger: the versions of the other tables at that commit, by
which `restore` joins the logs. The clocks of two workers may differ."""
SUPERSEDED = "_superseded"
"""Folder in a table for the shards of earlier versions (`storage.compaction`)."""
WITHOUT_AUDIO = tuple(name for name in UTTERANCE.names if name != "audio")
"""All columns of an utterance but the expensive one."""

_ATTEMPTS = 12
_CONFIGURATION: dict[str, str | None] = {
    # A model names the corpus version it was trained on, so old versions stay readable.
    "delta.enableExpiredLogCleanup": "false",
    # Statistics of captions and transcripts would only make the log larger.
    "delta.dataSkippingStatsColumns": "source_id",
    # Opening a table replays the entries after the last checkpoint, and every commit opens three
    # tables.
    "delta.checkpointInterval": str(EVERY),
}
# Delta reads the path of a folder as an address: it panics, or finds another folder.
_UNUSABLE = re.compile(r"[\[\]^|\\\x00-\x1f\x7f\ud800-\udfff]|%[0-9A-Fa-f]{2}")
# Room for the log entries of a commit and a checkpoint.
_SPARE_BYTES = 4_000_000

# FLAC doesn't compress further, and the lowest zstd level passes it through at memory speed. A row
# group has about 30 MB of audio, which readers of other columns skip.
SHARD_GROUP_ROWS = 256
SHARD_WRITER = WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=SHARD_GROUP_ROWS)


@dataclass(frozen=True, slots=True)
class Totals:
    """The size of a corpus.

    Attributes:
        sources: Number of sources by status: kept, rejected, failed.
        hours_in: Hours of decoded audio.
        hours_out: Hours of audio in utterances.
    """

    sources: Mapping[str, int]
    turns_found: int
    turns_kept: int
    turns_rejected: int
    speakers: int
    hours_in: float
    hours_out: float


@dataclass(frozen=True, slots=True, eq=False)
class SourceRows:
    """The result of one source.

    Attributes:
        source: A row of the ledger without `committed_at`, which is set by the commit.
        utterances: Its kept utterances, as rows or as a table of that schema.
        rejects: Its refused turns, and the reason when the source itself was refused. A source
            that was not kept needs at least one row.
    """

    source: Mapping[str, Any]
    utterances: Iterable[Mapping[str, Any]] | pa.Table = ()
    rejects: Iterable[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus at a location: a local folder, or a URI of an object store (s3://, gs://, az://).

    It has no open handles: it can be pickled, and any number of threads, processes and machines may
    use one location. Credentials for an object store come from the environment (AWS_ACCESS_KEY_ID
    and so on). `Corpus.open` checks the location.

    Attributes:
        location: The location.
        without: Sources that readers of the tables do not see (`excluding`).
    """

    location: str
    without: frozenset[str] = frozenset()

    @classmethod
    def at(cls, location: str | Path) -> "Corpus":
        """Return the corpus at a location, whose tables are not looked at: for maintenance of a damaged one.

        Raises:
            CorpusError: No corpus can be in a folder of that name.
        """
        text = str(location)
        if "://" in text:
            try:
                return cls(Place.at(text).location)
            except PlaceError as error:
                raise CorpusError(str(error)) from error
        text = os.path.expanduser(text)  # noqa: PTH111 (a Path would take "./~" for "~")
        _check_name(text)
        return cls(text.rstrip("/") or text)

    @classmethod
    def open(cls, location: str | Path, *, create: bool = False) -> "Corpus":
        """Open the corpus at a location.

        Args:
            location: Folder or URI of the three tables.
            create: Create missing tables. Several workers may do so at once.

        Raises:
            CorpusError: There is no corpus, a table is missing, or a table has another schema.
        """
        corpus = cls.at(location)
        try:
            missing = [name for name in SCHEMAS if not DeltaTable.is_deltatable(corpus.uri(name))]
        except (OSError, DeltaError) as error:
            raise CorpusError(
                f"{corpus.location} cannot be reached: {plain(error)}; check the address, the network and the "
                f"store's variables in the environment: `fsclap doctor --corpus {corpus.location}`"
            ) from error
        if create:
            for name in missing:
                corpus._create(name)
        elif missing:
            raise CorpusError(missing_message(corpus.location, missing))
        for name in SCHEMAS:
            _check_schema(corpus.delta(name), name)
        return corpus

    def excluding(self, source_ids: Iterable[str]) -> "Corpus":
        """Return a view of the corpus whose readers do not see some sources. It is not written to."""
        return replace(self, without=self.without | frozenset(source_ids))

    def uri(self, table: str) -> str:
        """Return the location of a table: "utterances", "rejects" or "sources"."""
        # Absolute, or Delta would take the colon in the name of a folder for the end of a scheme.
        root = self.location if "://" in self.location else str(Path(self.location).absolute())
        return f"{root}/{table}"

    @property
    def is_local(self) -> bool:
        """Whether the corpus is a local folder, not in an object store."""
        return self.place.is_local

    @property
    def place(self) -> Place:
        """The files of the corpus: those beside the tables, and those of the tables."""
        return Place(self.location)

    @property
    def folder(self) -> Path:
        """The corpus as a local folder.

        Raises:
            PlaceError: The corpus is in an object store.
        """
        return self.place.folder

    def lock(self) -> AbstractContextManager[None]:
        """Machine-wide lock for a read of the ledger followed by a write.

        A corpus in an object store has no lock, which other machines would not see: a source can't be written
        twice, files beside the tables are changed by compare-and-swap, and a recording is claimed
        (`storage.claims`).
        """
        if not self.is_local:
            return nullcontext()
        return self._locked()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        path = self.folder / LOCK
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(path, what=f"the corpus {self.location}", shared=True))
            except PermissionError as error:
                raise CorpusError(
                    f"{path} belongs to another user and cannot be opened: its owner can share it with "
                    f"`chmod g+rw {path}`, or delete it while nothing writes to the corpus"
                ) from error
            yield

    def require_writable(self) -> None:
        """Try what a commit does to a table, in a folder of its own that is removed again.

        A location that Delta cannot write to is found before anything is computed, and so is an object store
        that would lose commits.

        Raises:
            CorpusError: Delta cannot write there, or commits would be lost there.
        """
        if not self.is_local:
            try:
                problem = race_problem(self.place)
            except PlaceError as error:
                raise CorpusError(f"no corpus can be written to {error}") from error
            if problem:
                raise CorpusError(problem)
            return
        folder, is_new = self.folder / f".try-{uuid.uuid4().hex[:8]}", not self.folder.exists()
        try:
            folder.mkdir(parents=True)
            rows = SOURCE.empty_table()
            ways: list[dict[str, Any]] = [{"mode": "append"}, replacing(["a"])]
            for how in ways:
                write_deltalake(str(folder.absolute()), rows, **how)
        except BaseException as error:
            # Delta's panics derive from BaseException alone.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise CorpusError(
                f"no corpus can be written to {self.location}: {plain(error)}; choose another folder, or correct its "
                "permissions"
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if is_new:
                with suppress(OSError):  # another worker has begun to fill it
                    self.folder.rmdir()

    def version(self) -> int:
        """Return the Delta version of the utterances, which grows only when utterances change."""
        return self.delta("utterances").version()

    def dataset(self, table: str = "utterances", *, version: int | None = None) -> pyarrow.dataset.Dataset:
        """Open a table as a lazy Arrow dataset, to filter, project and stream in batches.

        Raises:
            CorpusError: The table has no such version.
        """
        delta = self.delta(table, version=version)
        if version is not None:
            names, aside = shard_names(delta), self.set_aside(table)
            if aside.intersection(names):
                paths = [f"{SUPERSEDED}/{name}" if name in aside else name for name in names]
                found = pyarrow.dataset.dataset(paths, schema=SCHEMAS[table], filesystem=self.files(table))
                return self._visible(found)
        # deltalake's own files are Python's, of a local table too: a process that ends in the middle of a scan crashes.
        files = self.files(table, sizes=None if self.is_local else shard_sizes(delta))
        return self._visible(delta.to_pyarrow_dataset(schema=SCHEMAS[table], filesystem=files))

    def _visible(self, rows: pyarrow.dataset.Dataset) -> pyarrow.dataset.Dataset:
        if not self.without:
            return rows
        return rows.filter(~pyarrow.dataset.field("source_id").isin(pa.array(sorted(self.without), pa.string())))

    def set_aside(self, table: str) -> set[str]:
        """Names of the shards of a table that a compaction replaced and moved to `_superseded/`."""
        return {entry.name.rsplit("/", 1)[-1] for entry in self.place.list(f"{table}/{SUPERSEDED}/")}

    def files(self, table: str, *, sizes: Mapping[str, int] | None = None) -> pyarrow.fs.FileSystem:
        """Open a file system whose root is the folder of a table; see `TableFiles` for `sizes`."""
        if not self.is_local:
            return pyarrow.fs.PyFileSystem(TableFiles(self.uri(table), sizes))
        return pyarrow.fs.SubTreeFileSystem(str((self.folder / table).resolve()), pyarrow.fs.LocalFileSystem())

    def utterances(self, *, version: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Utterances in memory, in the order of their ids.

        Args:
            version: A past version; the current one by default.
            columns: Columns to read; all by default, which includes all audio. `WITHOUT_AUDIO` is
                much cheaper.
        """
        selected = list(columns or UTTERANCE.names)
        read = list(dict.fromkeys([*selected, "utterance_id"]))
        return self._rows("utterances", version=version, columns=read).sort_by("utterance_id").select(selected)

    def rejects(self) -> pa.Table:
        """Return the refused sources and turns, in the order of source and position."""
        order = [("source_id", "ascending"), ("start", "ascending")]
        return self._rows("rejects").sort_by(order)

    def sources(self) -> pa.Table:
        """Return the ledger, in the order of source ids."""
        return self._rows("sources").sort_by("source_id")

    def ledger(self) -> dict[str, dict[str, Any]]:
        """Return source id -> row of the ledger; only committed sources are in it."""
        return {row["source_id"]: row for row in self.sources().to_pylist(maps_as_pydicts="strict")}

    def refusals(self) -> dict[str, tuple[str, str, str]]:
        """Return source id -> stage, reason and detail, of the sources that were refused as a whole."""
        columns = ["source_id", "stage", "reason", "detail", "start"]
        rows = self._rows("rejects", columns=columns).filter(pc.is_null(pc.field("start"))).to_pylist()
        return {row["source_id"]: (row["stage"], row["reason"], row["detail"]) for row in rows}

    def speakers(self) -> pa.Table:
        """Return the table of speakers of the last build; empty before the first.

        Raises:
            CorpusError: The file is damaged.
        """
        content = self.place.read(SPEAKERS)
        try:
            known = (
                SPEAKER.empty_table() if content is None else pq.read_table(pa.BufferReader(content), schema=SPEAKER)
            )
            return known.filter(self._is_heard(known["speaker"])) if self.without else known
        except (OSError, pa.ArrowException) as error:
            raise CorpusError(
                f"{self.location}/{SPEAKERS} is damaged ({plain(error)}): remove it; the next build writes it again"
            ) from error

    def _is_heard(self, speakers: pa.ChunkedArray) -> pa.ChunkedArray:
        heard = self.utterances(columns=["speaker"])["speaker"].unique()
        return pc.is_in(speakers, heard)

    def write_speakers(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace the table of speakers as a whole."""
        table = build_table(rows, schema=SPEAKER, name="speakers")
        self.place.write(SPEAKERS, parquet(table))

    def shards(self, *, version: int | None = None, table: str = "utterances") -> list[str]:
        """File names that make up a version of a table, sorted.

        The folder may contain others: replaced shards, or shards that a killed writer never
        committed.
        """
        return shard_names(self.delta(table, version=version))

    def totals(self) -> Totals:
        """Compute the size of the corpus; reads no audio."""
        sources = self.sources()
        kept = self.utterances(columns=["duration", "speaker"])
        counts = {entry["values"]: entry["counts"] for entry in sources["status"].value_counts().to_pylist()}
        return Totals(
            sources={status: counts.get(status, 0) for status in STATUSES},
            turns_found=_sum(sources["turns_found"]),
            turns_kept=_sum(sources["turns_kept"]),
            turns_rejected=_sum(sources["turns_rejected"]),
            speakers=len(kept["speaker"].unique()),
            hours_in=_sum(sources["duration"]) / 3600,
            hours_out=_sum(kept["duration"]) / 3600,
        )

    def commit_source(
        self,
        source: Mapping[str, Any],
        *,
        utterances: Iterable[Mapping[str, Any]] | pa.Table = (),
        rejects: Iterable[Mapping[str, Any]] = (),
    ) -> Outcome:
        """Commit the result of one source; see `commit_sources`."""
        (outcome,) = self.commit_sources([SourceRows(source, utterances, rejects)])
        return outcome

    def commit_sources(self, results: Sequence[SourceRows]) -> list[Outcome]:
        """Commit the results of some sources, each in place of the rows it had before.

        They share transactions, since a transaction takes about as long for many small sources as for one: one per
        table for sources that are new, and one for those that had rows before.

        Returns:
            For each source "committed"; "unchanged" when the corpus has equal rows already (timings aside); or
            "kept_earlier" when the source failed this time but an earlier run kept it: a temporary
            failure removes nothing.

        Raises:
            CorpusError: A row does not fit its schema, the counts do not add up, a source is there twice, or the
                disk has no room for the rows, and nothing was written; the location cannot be written to; or
                other writers changed a source during every attempt.
        """
        ids = [result.source["source_id"] for result in results]
        if len(set(ids)) != len(ids):
            raise CorpusError(f"a source is there twice: {', '.join(sorted({i for i in ids if ids.count(i) > 1}))}")
        tables = {
            source_id: validated(result.source, utterances=result.utterances, rejects=result.rejects)
            for source_id, result in zip(ids, results, strict=True)
        }
        outcomes: dict[str, Outcome] = dict.fromkeys(ids, "unchanged")
        for source_id, result in zip(ids, results, strict=True):
            if result.source["status"] == "failed" and self._status(source_id) == "kept":
                log.warning("source %s failed this time; the utterances of an earlier run stay", source_id)
                outcomes[source_id] = "kept_earlier"
                del tables[source_id]
        tokens = {source_id: tokens_of(rows) for source_id, rows in tables.items()}
        for attempt in range(_ATTEMPTS):
            # The table that was looked at is written to: one that is opened again could have the rows by then.
            seen = {name: self.delta(name) for name in SCHEMAS}
            stale = {
                name: [i for i in tables if _is_stale(seen[name], i, tables[i][name], tokens[i][name])]
                for name in SCHEMAS
            }
            if not any(stale.values()):
                return [outcomes[source_id] for source_id in ids]
            self._check_room([tables[i][name] for name in SCHEMAS for i in stale[name]], ids)
            if attempt:  # random, or two writers that disagree would overwrite each other in step
                time.sleep(random.uniform(0, 0.1 * 2 ** min(attempt, 6)))
            try:
                for name, changed in stale.items():
                    self._replace(name, seen[name], {i: (tables[i][name], tokens[i][name]) for i in changed})
                    outcomes |= dict.fromkeys(changed, "committed")
            except CommitFailedError as error:
                log.info("%s: another writer came first (%s); trying again", _named(ids), error)
        raise CorpusError(
            f"{_named(ids)}: other writers changed it in {self.location} during each of {_ATTEMPTS} "
            "attempts; let one worker at a time build a source"
        )

    def _check_room(self, tables: Sequence[pa.Table], ids: Sequence[str]) -> None:
        # A disk that fills up between two of the three transactions would leave the source half
        # replaced.
        if not self.is_local:
            return  # an object store does not report free space
        needed = sum(table.nbytes for table in tables) + _SPARE_BYTES
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise CorpusError(
                f"{_named(ids)}: no room in {self.location}: {needed / 1e6:.1f} MB are needed, "
                f"{free / 1e6:.1f} MB are free. Nothing was written; free some space, then run again"
            )

    def _replace(self, name: str, table: DeltaTable, rows: Mapping[str, tuple[pa.Table, int]]) -> None:
        """Write the rows of sources to a table as it was seen.

        Args:
            name: The table.
            table: It, as it was when it was decided what to write.
            rows: Source id -> its rows and their token.
        """
        new = [source_id for source_id in rows if table.transaction_version(source_id) is None]
        old = [source_id for source_id in rows if source_id not in new]
        # New rows first: a table knows its new version once it was written to, and there the same rows could be.
        ways: list[tuple[list[str], dict[str, Any]]] = [(new, {"mode": "append"}), (old, replacing(old))]
        for ids, how in ways:
            if ids:
                self._write(
                    name,
                    table,
                    pa.concat_tables([rows[source_id][0] for source_id in ids]),
                    {source_id: rows[source_id][1] for source_id in ids},
                    how,
                )

    def _write(
        self, name: str, table: DeltaTable, rows: pa.Table, tokens: Mapping[str, int], how: Mapping[str, Any]
    ) -> None:
        try:
            write_deltalake(
                table,
                rows,
                writer_properties=SHARD_WRITER,
                commit_properties=carrying(tokens, **self._versions_before(name)),
                **how,
            )
        except CommitFailedError:
            raise
        except (DeltaError, OSError) as error:
            raise CorpusError(
                f"{_named(list(tokens))}: cannot write to {self.uri(name)}: {plain(error)}. Readers are not "
                "affected; check the disk and the permissions of the folder, then run again"
            ) from error
        if self.delta(name).version() % EVERY == 0:
            thin_checkpoints(self.place, name)

    def _versions_before(self, name: str) -> dict[str, str]:
        others = ("rejects", "utterances") if name == "sources" else ()
        return {AFTER + other: str(self.delta(other).version()) for other in others}

    def _rows(self, name: str, *, version: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        try:
            return self.dataset(name, version=version).to_table(columns=columns and list(columns))
        except (OSError, pa.ArrowException) as error:
            raise CorpusError(
                f"the rows of {self.uri(name)} cannot be read: {plain(error)}; "
                f"`fsclap corpus verify {self.location}` lists the damaged shards and the remedy"
            ) from error

    def _status(self, source_id: str) -> str | None:
        match = pyarrow.dataset.field("source_id") == source_id
        rows = self.dataset("sources").to_table(columns=["status"], filter=match).to_pylist()
        return rows[0]["status"] if rows else None

    def delta(self, name: str, *, version: int | None = None) -> DeltaTable:
        """One of the three Delta tables, as of a version; the current one by default.

        Raises:
            CorpusError: There is no such table or version, or its log cannot be read.
        """
        try:
            return DeltaTable(self.uri(name), version=version)
        except TableNotFoundError as error:
            raise CorpusError(missing_message(self.location, [name])) from error
        except DeltaError as error:
            at = "" if version is None else f" at version {version}"
            raise CorpusError(
                f"cannot read the table {self.uri(name)}{at}: {plain(error)}; "
                f"`fsclap corpus verify {self.location}` gives the details"
            ) from error

    def _create(self, name: str) -> None:
        try:
            DeltaTable.create(
                self.uri(name),
                SCHEMAS[name],
                mode="error",
                configuration=_CONFIGURATION,
                # A retry would create the table again, over the one that another worker just
                # created.
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except DeltaError as error:
            if not DeltaTable.is_deltatable(self.uri(name)):
                raise CorpusError(f"cannot create the table {self.uri(name)}: {plain(error)}") from error
            log.info("another worker created %s: %s", self.uri(name), error)


def parquet(table: pa.Table, *, row_group_size: int | None = None) -> bytes:
    """Return a table as a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", compression_level=1, row_group_size=row_group_size)
    return bytes(sink.getvalue())


def _named(source_ids: Sequence[str]) -> str:
    if len(source_ids) == 1:
        return f"source {source_ids[0]}"
    return f"sources {', '.join(source_ids[:3])}{f' and {len(source_ids) - 3} more' if len(source_ids) > 3 else ''}"


def _is_stale(table: DeltaTable, source_id: str, rows: pa.Table, token: int) -> bool:
    committed = table.transaction_version(source_id)
    # Without rows before and now, a transaction would only add an empty version.
    return committed != token and not (committed is None and rows.num_rows == 0)


def shard_names(table: DeltaTable) -> list[str]:
    """File names of the shards of a table's version, sorted."""
    return sorted(unquote(uri.rsplit("/", 1)[-1]) for uri in table.file_uris())


def shard_sizes(table: DeltaTable) -> dict[str, int]:
    """File name of each shard of a table's version -> its bytes."""
    shards = pa.table(table.get_add_actions(flatten=True)).select(["path", "size_bytes"]).to_pylist()
    return {unquote(shard["path"]): shard["size_bytes"] for shard in shards}


def _check_name(location: str) -> None:
    """Refuse what Delta would panic at, or read as another folder, after all engines have run."""
    path = os.path.abspath(location)  # noqa: PTH100 (keeps a name that is no UTF-8)
    found = _UNUSABLE.search(path)
    if location.startswith("~"):
        raise CorpusError(f"{location}: no user of that name has a home here; write the folder out")
    if found is not None:
        raise CorpusError(
            f"no corpus can be in {path!a}: Delta Lake does not take {found[0]!a} in the name of a folder. Choose one "
            "without [ ] ^ | \\ and control characters, in UTF-8, and without a percent sign before two digits"
        )


def carrying(tokens: Mapping[str, int], **metadata: str) -> CommitProperties:
    """Build the properties of a Delta commit: tokens by source id, and metadata for the log."""
    transactions = [Transaction(source_id, token) for source_id, token in tokens.items()]
    return CommitProperties(app_transactions=transactions, max_commit_retries=50, custom_metadata=metadata)


def replacing(source_ids: Iterable[str]) -> dict[str, Any]:
    """Build arguments of `write_deltalake`: new rows replace all rows of these sources."""
    listed = ", ".join(f"'{source_id}'" for source_id in sorted(source_ids))
    return {"mode": "overwrite", "predicate": f"source_id IN ({listed})"}


def plain(error: BaseException) -> str:
    """Return the message of a Delta or Arrow error in one line, without colours and backtrace."""
    text = re.split(r"\n\s+0: |\nstack backtrace", str(error))[0]
    return " ".join(re.sub(r"\x1b\[\d+m|↳", "", text).split()).rstrip(".")


def _sum(column: pa.ChunkedArray) -> Any:
    return pc.sum(column, min_count=0).as_py()


def missing_message(location: str, missing: Sequence[str]) -> str:
    """Return the error message for a location without some of the tables."""
    if "://" not in location and not Path(location).is_dir():
        return f"no corpus at {location}: there is no such folder; build one, or correct the location"
    if len(missing) == len(SCHEMAS):
        return f"no corpus at {location}: none of its tables ({', '.join(sorted(SCHEMAS))}) exists"
    return f"the corpus at {location} is incomplete: no Delta table {', '.join(missing)}; restore it or build again"


def _check_schema(table: DeltaTable, name: str) -> None:
    problem = schema_problem(pa.schema(table.schema().to_arrow()), SCHEMAS[name])
    if problem:
        raise CorpusError(f"{name} at {table.table_uri} was written with another schema: {problem}")
