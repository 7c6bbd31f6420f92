"""The corpus: three Delta tables under one location, written one source at a time.

    utterances/   one row a kept utterance, audio included
    rejects/      one row for each source or turn that was refused, and why
    sources/      the ledger: one row a source, written last, so a source is committed when the ledger has it

A commit replaces whatever its source had before. Each of the three writes is one Delta transaction that
carries the source's id and a token of the rows ("Transaction Identifiers" in the protocol,
https://github.com/delta-io/delta/blob/master/PROTOCOL.md), so replaying a commit after a crash, or in a
second worker, writes only what is missing.
"""

import logging
import random
import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from storage.files import locked, written_aside
from storage.rows import CorpusError, build_table, content_token, token_of
from storage.schema import REJECT, SOURCE, SPEAKER, UTTERANCE

log = logging.getLogger(__name__)

Outcome = Literal["committed", "unchanged", "kept_earlier"]

SCHEMAS = {"rejects": REJECT, "utterances": UTTERANCE, "sources": SOURCE}
"""In the order they are written: the ledger comes last."""

SPEAKERS = "speakers.parquet"
LOCK = ".lock"
STATUSES = ("kept", "rejected", "failed")
WITHOUT_AUDIO = tuple(name for name in UTTERANCE.names if name != "audio")
"""The columns of an utterance that are cheap to read."""

NOTHING = token_of([])
"""The token of a source that has no row in a table."""

_SOURCE_ID = re.compile(r"[0-9a-f]{8,64}")
TIMINGS = frozenset({"committed_at", "stage_seconds"})
_ATTEMPTS = 12
_CONFIGURATION: dict[str, str | None] = {
    # A model names the corpus version it was trained on, so old versions stay readable.
    "delta.enableExpiredLogCleanup": "false",
    # Statistics of captions and transcripts would only swell the log.
    "delta.dataSkippingStatsColumns": "source_id",
    # Opening a table replays what came after the last checkpoint; a commit opens each table.
    "delta.checkpointInterval": "20",
}
_SPARE_BYTES = 4_000_000
"""Room for the logs of a commit, a checkpoint among them."""

# FLAC doesn't compress further, and the lowest zstd level passes it through at memory speed. About 30 MB of
# audio to a row group, which a reader that names other columns skips.
_WRITER = WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=256)


@dataclass(frozen=True, slots=True)
class Totals:
    """The size of a corpus, from the ledger and one column of the utterances.

    Attributes:
        sources: Number of sources by status: kept, rejected, failed.
        hours_in: Audio decoded.
        hours_out: Audio kept as utterances.
    """

    sources: Mapping[str, int]
    turns_found: int
    turns_kept: int
    turns_rejected: int
    speakers: int
    hours_in: float
    hours_out: float


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus at a location: a local folder or any URI that Delta tables can live under (s3://, gs://, az://).

    Holds no open handle: it can be pickled, and any number of threads, processes and machines may use one
    location. Credentials for an object store come from the environment (AWS_ACCESS_KEY_ID and so on).
    `Corpus.open` makes one and checks the location.
    """

    location: str

    @classmethod
    def at(cls, location: str | Path) -> "Corpus":
        """The corpus at a location, without looking: for what looks after one that may be damaged."""
        return cls(str(location).rstrip("/"))

    @classmethod
    def open(cls, location: str | Path, *, create: bool = False) -> "Corpus":
        """Open the corpus at a location.

        Args:
            location: Folder or URI that holds, or shall hold, the three tables.
            create: Make the tables that are missing. Safe when several workers do it at once.

        Raises:
            CorpusError: There is no corpus, a part of it is missing, or it has another schema.
        """
        corpus = cls.at(location)
        missing = [name for name in SCHEMAS if not DeltaTable.is_deltatable(corpus.uri(name))]
        if create:
            for name in missing:
                corpus._create(name)
        elif missing:
            raise CorpusError(missing_message(corpus.location, missing))
        for name in SCHEMAS:
            _check_schema(corpus.delta(name), name)
        return corpus

    def uri(self, table: str) -> str:
        """Where a table lives: "utterances", "rejects" or "sources"."""
        return f"{self.location}/{table}"

    @property
    def is_local(self) -> bool:
        """Whether the corpus is a folder of this machine, not in an object store."""
        return "://" not in self.location or self.location.startswith("file://")

    @property
    def folder(self) -> Path:
        """The corpus as a local folder.

        Raises:
            CorpusError: The corpus lives in an object store.
        """
        if self.is_local:
            return Path(unquote(urlsplit(self.location).path) if "://" in self.location else self.location)
        raise CorpusError(f"{self.location} is not a local folder; name one to write to")

    def lock(self) -> AbstractContextManager[None]:
        """Held by one process of this machine at a time, for what must see the ledger and then change it.

        A corpus in an object store has none: its writers still can't write a source twice, only two addresses of the
        same recording at the same moment can both be kept, which `fsclap corpus verify` reports.
        """
        if not self.is_local:
            return nullcontext()
        return locked(self.folder / LOCK, what=f"the corpus {self.location}")

    def version(self) -> int:
        """The Delta version of the utterances: grows when, and only when, utterances change."""
        return self.delta("utterances").version()

    def dataset(self, table: str = "utterances", *, version: int | None = None) -> pyarrow.dataset.Dataset:
        """A table as a lazy Arrow dataset: filter, project and stream it in batches.

        Raises:
            CorpusError: The table has no such version.
        """
        return self.delta(table, version=version).to_pyarrow_dataset(schema=SCHEMAS[table])

    def utterances(self, *, version: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Utterances in memory, in the order of their ids.

        Args:
            version: A past version; the current one by default.
            columns: Columns to read. All by default, so all the audio: `WITHOUT_AUDIO` is the cheap choice.
        """
        wanted = list(columns or UTTERANCE.names)
        read = list(dict.fromkeys([*wanted, "utterance_id"]))
        return self._rows("utterances", version=version, columns=read).sort_by("utterance_id").select(wanted)

    def rejects(self) -> pa.Table:
        """What was refused, in the order of source and position."""
        order = [("source_id", "ascending"), ("start", "ascending")]
        return self._rows("rejects").sort_by(order)

    def sources(self) -> pa.Table:
        """The ledger, in the order of source ids."""
        return self._rows("sources").sort_by("source_id")

    def ledger(self) -> dict[str, dict[str, Any]]:
        """The ledger's rows by source id; a source that is not in it was never committed."""
        return {row["source_id"]: row for row in self.sources().to_pylist(maps_as_pydicts="strict")}

    def speakers(self) -> pa.Table:
        """Who is who across episodes, as the last build found; empty before there was one."""
        path = self.folder / SPEAKERS
        try:
            return pq.read_table(path, schema=SPEAKER) if path.exists() else SPEAKER.empty_table()
        except (OSError, pa.ArrowException) as error:
            raise CorpusError(
                f"{path} is damaged ({plain(error)}): remove it, the next build writes it anew"
            ) from error

    def write_speakers(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Put a table of speakers in place of the one before: whole or not at all."""
        table = build_table(rows, schema=SPEAKER, name="speakers")
        with written_aside(self.folder / SPEAKERS) as part:
            pq.write_table(table, part, compression="zstd")

    def shards(self, *, version: int | None = None) -> list[str]:
        """File names in utterances/ that make up a version, sorted.

        The folder can hold others: shards that were replaced, or that a killed writer never committed.
        """
        uris = self.delta("utterances", version=version).file_uris()
        return sorted(unquote(uri.rsplit("/", 1)[-1]) for uri in uris)

    def totals(self) -> Totals:
        """The size of the corpus, without reading audio."""
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
        """Commit all that one source came to, in place of whatever it had before.

        Args:
            source: A row of the ledger without `committed_at`, which is set here.
            utterances: Its kept utterances, as rows or as a table of that schema.
            rejects: What was refused of it. A source that was not kept needs at least one, which says why.

        Returns:
            "committed"; "unchanged" when the corpus already holds just this (timings aside); or
            "kept_earlier" when the source failed this time but an earlier run kept it: a failure
            that may pass takes nothing away.

        Raises:
            CorpusError: A row does not fit its schema, the counts do not add up, or the disk has no room for the
                rows (nothing is written then); the location cannot be written to; or other writers held on to
                this source throughout the attempts.
        """
        tables = _validated(source, utterances=utterances, rejects=rejects)
        source_id = source["source_id"]
        if source["status"] == "failed" and self._status(source_id) == "kept":
            log.warning("source %s failed this time; the utterances of an earlier run stay", source_id)
            return "kept_earlier"
        tokens = _tokens(tables)
        outcome: Outcome = "unchanged"
        for attempt in range(_ATTEMPTS):
            stale = [name for name in SCHEMAS if self._is_stale(name, source_id, tables[name], tokens[name])]
            if not stale:
                return outcome
            self._check_room(source_id, [tables[name] for name in stale])
            if attempt:  # others are at it: two that disagree would undo one another in step
                time.sleep(random.uniform(0, 0.1 * 2 ** min(attempt, 6)))
            try:
                for name in stale:
                    self._replace(name, source_id, tables[name], token=tokens[name])
                    outcome = "committed"
            except CommitFailedError as error:
                log.info("source %s: another writer came first (%s), looking again", source_id, error)
        raise CorpusError(
            f"source {source_id}: other writers changed it in {self.location} during each of {_ATTEMPTS} "
            "attempts; let one worker at a time build a source"
        )

    def _is_stale(self, name: str, source_id: str, rows: pa.Table, token: int) -> bool:
        held = self.delta(name).transaction_version(source_id)
        # Where there is nothing to write and never was, a transaction would only make a version of it.
        return held != token and not (held is None and rows.num_rows == 0)

    def _check_room(self, source_id: str, tables: Sequence[pa.Table]) -> None:
        # A disk that fills up between two of the three transactions would leave the source half replaced.
        if not self.is_local:
            return  # an object store tells nobody how much room it has
        needed = sum(table.nbytes for table in tables) + _SPARE_BYTES
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise CorpusError(
                f"source {source_id}: no room in {self.location}: {needed / 1e6:.1f} MB are needed, "
                f"{free / 1e6:.1f} MB are free. Nothing was written; make room, then run again"
            )

    def _replace(self, name: str, source_id: str, rows: pa.Table, *, token: int) -> None:
        table = self.delta(name)
        first = table.transaction_version(source_id) is None
        how: dict[str, Any] = {"mode": "append"} if first else replacing([source_id])
        try:
            write_deltalake(
                table, rows, writer_properties=_WRITER, commit_properties=carrying({source_id: token}), **how
            )
        except CommitFailedError:
            raise
        except (DeltaError, OSError) as error:
            raise CorpusError(
                f"source {source_id}: cannot write to {self.uri(name)}: {plain(error)}. Readers go on without it; "
                "see to the disk and the rights on the folder, then run again"
            ) from error

    def _rows(self, name: str, *, version: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        wanted = None if columns is None else list(columns)
        try:
            return self.dataset(name, version=version).to_table(columns=wanted)
        except (OSError, pa.ArrowException) as error:
            raise CorpusError(
                f"the rows of {self.uri(name)} cannot be read: {plain(error)}; "
                f"`fsclap corpus verify {self.location}` says which are damaged and what to do"
            ) from error

    def _status(self, source_id: str) -> str | None:
        match = pyarrow.dataset.field("source_id") == source_id
        rows = self.dataset("sources").to_table(columns=["status"], filter=match).to_pylist()
        return rows[0]["status"] if rows else None

    def delta(self, name: str, *, version: int | None = None) -> DeltaTable:
        """One of the three Delta tables, as of a version; the current one by default.

        Raises:
            CorpusError: The table, or that version of it, is not there or its log cannot be read.
        """
        try:
            return DeltaTable(self.uri(name), version=version)
        except TableNotFoundError as error:
            raise CorpusError(missing_message(self.location, [name])) from error
        except DeltaError as error:
            wanted = "" if version is None else f" at version {version}"
            raise CorpusError(
                f"cannot read the table {self.uri(name)}{wanted}: {plain(error)}; "
                f"`fsclap corpus verify {self.location}` says more"
            ) from error

    def _create(self, name: str) -> None:
        try:
            DeltaTable.create(
                self.uri(name),
                SCHEMAS[name],
                mode="error",
                configuration=_CONFIGURATION,
                # A retry would create the table a second time, over the one that another worker just made.
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except DeltaError as error:
            if not DeltaTable.is_deltatable(self.uri(name)):
                raise CorpusError(f"cannot make the table {self.uri(name)}: {error}") from error
            log.info("another worker made %s: %s", self.uri(name), error)


def carrying(tokens: Mapping[str, int], **metadata: str) -> CommitProperties:
    """What makes a Delta commit carry tokens by source id, and anything else that its entry in the log shall say."""
    transactions = [Transaction(source_id, token) for source_id, token in tokens.items()]
    return CommitProperties(app_transactions=transactions, max_commit_retries=50, custom_metadata=metadata)


def replacing(source_ids: Iterable[str]) -> dict[str, Any]:
    """The arguments of `write_deltalake` that put rows in place of all that these sources have."""
    listed = ", ".join(f"'{source_id}'" for source_id in sorted(source_ids))
    return {"mode": "overwrite", "predicate": f"source_id IN ({listed})"}


def plain(error: BaseException) -> str:
    """What an error of Delta or Arrow says, in one line: without its colours, arrows and backtrace."""
    text = re.split(r"\n\s+0: |\nstack backtrace", str(error))[0]
    return " ".join(re.sub(r"\x1b\[\d+m|↳", "", text).split()).rstrip(".")


def _sum(column: pa.ChunkedArray) -> Any:
    return sum(value for value in column.to_pylist() if value is not None)


def missing_message(location: str, missing: Sequence[str]) -> str:
    """What to say about a location at which some of the tables are missing."""
    if "://" not in location and not Path(location).is_dir():
        return f"no corpus at {location}: there is no such folder; build one, or correct the location"
    if len(missing) == len(SCHEMAS):
        return f"no corpus at {location}: none of its tables ({', '.join(sorted(SCHEMAS))}) is there"
    lost = ", ".join(missing)
    return f"the corpus at {location} is incomplete: no Delta table {lost}; restore it or build anew"


def _check_schema(table: DeltaTable, name: str) -> None:
    problem = schema_problem(pa.schema(table.schema().to_arrow()), SCHEMAS[name])
    if problem:
        raise CorpusError(f"{name} at {table.table_uri} was written with another schema: {problem}")


def schema_problem(found: pa.Schema, expected: pa.Schema) -> str | None:
    """Why rows of one schema cannot be read as rows of another; None when they can. The order may differ."""
    unknown = sorted(set(found.names) - set(expected.names))
    missing = [name for name in expected.names if name not in found.names]
    changed = [
        f"{field.name} is {_described(found.field(field.name))}, not {_described(field)}"
        for field in expected
        if field.name in found.names and not _same_type(field, found.field(field.name))
    ]
    parts = [f"unknown {', '.join(unknown)}"] if unknown else []
    parts += [f"missing {', '.join(missing)}"] if missing else []
    return "; ".join([*parts, *changed, "build into a new location"]) if parts or changed else None


def _described(field: pa.Field) -> str:
    return f"{field.type}{' that may be null' if field.nullable else ''}"


def _same_type(first: pa.Field, second: pa.Field) -> bool:
    # Delta names the element of a list "element" and the entries of a map "key_value", Arrow otherwise.
    return DeltaSchema.from_arrow(pa.schema([first])) == DeltaSchema.from_arrow(pa.schema([second]))


def _validated(
    source: Mapping[str, Any],
    *,
    utterances: Iterable[Mapping[str, Any]] | pa.Table,
    rejects: Iterable[Mapping[str, Any]],
) -> dict[str, pa.Table]:
    if "committed_at" in source:
        raise CorpusError("sources: committed_at is set by the commit; leave it out")
    tables = {
        "rejects": build_table(rejects, schema=REJECT, name="rejects"),
        "utterances": build_table(utterances, schema=UTTERANCE, name="utterances"),
        "sources": build_table([{**source, "committed_at": datetime.now(UTC)}], schema=SOURCE, name="sources"),
    }
    _check_source(source)
    _check_belonging(source, tables)
    _check_counts(source, tables)
    return tables


def _check_source(source: Mapping[str, Any]) -> None:
    source_id, status = source["source_id"], source["status"]
    if not _SOURCE_ID.fullmatch(source_id):
        raise CorpusError(f"sources: source_id {source_id!r} is not 8 to 64 lower-case hexadecimal digits")
    if status not in STATUSES:
        raise CorpusError(f"sources: status of {source_id} is {status!r}, not one of {', '.join(STATUSES)}")


def _check_belonging(source: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> None:
    for name in ("utterances", "rejects"):
        for field in ("source_id", "recipe"):
            others = set(tables[name][field].to_pylist()) - {source[field]}
            if others:
                raise CorpusError(f"{name}: {field} {sorted(others)[0]!r} is not that of the source, {source[field]!r}")
    seen: set[str] = set()
    for utterance_id in tables["utterances"]["utterance_id"].to_pylist():
        if not utterance_id.startswith(f"{source['source_id']}-"):
            raise CorpusError(f"utterances: utterance_id {utterance_id!r} does not start with its source_id")
        if utterance_id in seen:
            raise CorpusError(f"utterances: utterance_id {utterance_id!r} occurs twice")
        seen.add(utterance_id)


def _check_counts(source: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> None:
    refused = tables["rejects"]
    rows = {
        "turns_kept": tables["utterances"].num_rows,
        "turns_rejected": refused.num_rows - refused["start"].null_count,
    }
    for field, count in rows.items():
        if source[field] != count:
            raise CorpusError(f"sources: {field} of {source['source_id']} is {source[field]}, its rows are {count}")
    if source["turns_found"] != sum(rows.values()):
        raise CorpusError(
            f"sources: turns_found of {source['source_id']} is {source['turns_found']}, but "
            f"{rows['turns_kept']} were kept and {rows['turns_rejected']} rejected"
        )
    if source["status"] != "kept" and (rows["turns_kept"] or not refused.num_rows):
        raise CorpusError(
            f"sources: status of {source['source_id']} is {source['status']!r}, so it can have no utterance "
            "and needs a row in rejects that says why"
        )


def _tokens(tables: Mapping[str, pa.Table]) -> dict[str, int]:
    # What a commit cost and when it was made is no part of what it says.
    ledger = tables["sources"].drop_columns(list(TIMINGS))
    rejects, utterances = content_token(tables["rejects"]), content_token(tables["utterances"])
    return {
        "rejects": rejects,
        "utterances": utterances,
        "sources": content_token(ledger, rejects, utterances),
    }
