"""Is a corpus whole: its logs, its shards, its sound, and every row that was ever committed, once and unaltered?

The rows of a source carry a token in the log of each table (`Corpus.commit_source`), made of their content. It is made
again here from what is in the shards, so that a row that was lost, doubled or altered since is seen, whatever altered
it. Memory holds the ledger, a few numbers for each source, and the row digests of the sources of one shard.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from storage.corpus import NOTHING, SCHEMAS, TIMINGS, Corpus, schema_problem
from storage.deltalog import Shard, damaged_entries, entries, filesystem, leftovers, require_corpus
from storage.judgements import Judgements
from storage.rows import CorpusError, row_digests, token_of
from storage.shards import DamagedShardError, live_shards, read_shard
from storage.verify_audio import audio_problem

_RANGES = {
    "start": (0, float("inf")),
    "similarity": (-1.001, 1.001),
    "emotion_confidence": (0, 1.001),
    "overlap": (0, 1.001),
}
_SLACK = 0.001  # seconds


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a corpus.

    Attributes:
        code: What it is, in a word, for programs.
        message: The same for a person: what and where.
        sources: The sources to be built again, sorted; none when that doesn't mend it.
        shard: The table and the name of the shard that is damaged, when it is one.
    """

    code: str
    message: str
    sources: tuple[str, ...] = ()
    shard: tuple[str, str] | None = None


@dataclass(slots=True)
class Report:
    """What `verify` found.

    Attributes:
        problems: What is wrong; nothing in a sound corpus.
        notes: What is no fault, but good to know.
        sources, utterances, shards: How many of each were looked at.
    """

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sources: int = 0
    utterances: int = 0
    shards: int = 0

    def damaged_sources(self) -> list[str]:
        """The sources that must be built again."""
        return sorted({source_id for problem in self.problems for source_id in problem.sources})


@dataclass(slots=True)
class _Tally:
    """What a table holds of one source.

    Attributes:
        turns: Rows with a position in the episode.
        recipes: Recipes that occur.
        digests: Of the rows, until the tally is closed.
        ids: The utterance ids, until the tally is closed.
        closed: Whether all shards that may have rows of the source were read.
        token: The token of the rows, once the tally is closed; None if rows turned up after that.
        faults: The first of each kind of fault in a row, by code.
    """

    rows: int = 0
    turns: int = 0
    recipes: set[str] = field(default_factory=set)
    digests: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    closed: bool = False
    token: int | None = None
    faults: dict[str, str] = field(default_factory=dict)

    def take(self, rows: pa.Table) -> None:
        """Count rows of the source and add their digests."""
        self.rows += len(rows)
        self.turns += len(rows) - rows["start"].null_count
        self.recipes.update(rows["recipe"].unique().to_pylist())
        if self.closed:  # they are in a shard that has no rows of this source according to the log
            self.token = None
        else:
            self.digests += row_digests(rows)

    def close(self) -> None:
        """Compute the token and free the digests."""
        if not self.closed:
            self.token = token_of(self.digests)
        self.closed, self.digests, self.ids = True, [], set()


class _Contents:
    """What the shards of a corpus hold, as far as it must be remembered to judge it.

    Attributes:
        ledger: The rows of the ledger.
        digests: Their digests by source id.
        tallies: By table, "utterances" or "rejects", and source id.
        lengths: By engine and length of its embeddings, the sources that have such.
    """

    def __init__(self) -> None:
        self.ledger: list[dict[str, Any]] = []
        self.digests: dict[str, list[str]] = defaultdict(list)
        self.tallies: dict[str, dict[str, _Tally]] = {"utterances": {}, "rejects": {}}
        self.lengths: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))

    def tally(self, name: str, source_id: str) -> _Tally:
        return self.tallies[name].setdefault(source_id, _Tally())

    def close(self, name: str, *, before: str | None = None) -> None:
        """Close the tallies of sources that no further shard can hold: shards come in the order of their ids."""
        for source_id, tally in self.tallies.get(name, {}).items():
            if before is None or source_id < before:
                tally.close()

    def take(self, rows: pa.Table, *, name: str, audio: bool) -> None:
        if name == "sources":
            bare = rows.drop_columns(list(TIMINGS))
            for source_id, digest in zip(rows["source_id"].to_pylist(), row_digests(bare), strict=True):
                self.digests[source_id].append(digest)
            self.ledger += bare.to_pylist()
            return
        for source_id in rows["source_id"].unique().to_pylist():
            own = rows.filter(pc.equal(rows["source_id"], source_id))
            tally = self.tally(name, source_id)
            if name == "utterances":
                self._look_at_utterances(own, source_id, tally, audio=audio)
            tally.take(own)

    def _look_at_utterances(self, rows: pa.Table, source_id: str, tally: _Tally, *, audio: bool) -> None:
        for utterance_id in rows["utterance_id"].to_pylist():
            if not utterance_id.startswith(f"{source_id}-"):
                tally.faults.setdefault("foreign_id", f"{utterance_id} does not start with its source's id")
            if utterance_id in tally.ids:
                tally.faults.setdefault("utterance_duplicate", f"{utterance_id} is in the corpus more than once")
            tally.ids.add(utterance_id)
        for code, fault in _value_faults(rows):
            tally.faults.setdefault(code, fault)
        lengths = pc.list_value_length(rows["speaker_embedding"]).to_pylist()
        for engine, length in set(zip(rows["diarization_engine"].to_pylist(), lengths, strict=True)):
            self.lengths[engine][length].add(source_id)
        if audio:
            for fault in _sound_faults(rows):
                tally.faults.setdefault("sound", fault)


def verify(corpus: Corpus, *, audio: bool = True) -> Report:
    """Look at everything a corpus consists of.

    To be run when no worker is writing: a source that is being committed is half there.

    Args:
        audio: Decode every clip as well, which takes most of the time. Without it the clips are still
            compared with what was committed.

    Raises:
        CorpusError: There is no corpus.
    """
    require_corpus(corpus)
    report = Report()
    tables = {name: table for name in SCHEMAS if (table := _open(corpus, name, report)) is not None}
    if len(tables) < len(SCHEMAS):  # then there is nothing to compare with
        return report
    contents = _read(corpus, tables, report, audio=audio)
    report.sources = len({row["source_id"] for row in contents.ledger})
    report.utterances = sum(tally.rows for tally in contents.tallies["utterances"].values())
    told = set(report.damaged_sources())
    for problem in [*_accounts(contents), *_faults(contents), *_alterations(contents, tables, report)]:
        if not told.issuperset(problem.sources):  # a lost shard is also a wrong count and another token
            report.problems.append(problem)
            told.update(problem.sources)
    _look_at_speakers(corpus, report)
    _look_at_judgements(corpus, report)
    _look_for_leftovers(corpus, report)
    return report


def _read(corpus: Corpus, tables: Mapping[str, DeltaTable], report: Report, *, audio: bool) -> _Contents:
    contents = _Contents()
    shards = {name: live_shards(table) for name, table in tables.items()}
    known = {source_id for held in shards.values() for shard in held for source_id in (shard.first, shard.last)} - {""}
    for name, held in shards.items():
        files = filesystem(corpus, name)
        for shard in held:
            report.shards += 1
            contents.close(name, before=shard.first)
            try:
                for rows in read_shard(shard, files, schema=SCHEMAS[name], name=name):
                    contents.take(rows, name=name, audio=audio)
            except DamagedShardError as error:
                message = f"shard {corpus.uri(name)}/{shard.name} {error.detail}"
                sources = tuple(sorted(source_id for source_id in known if _may_hold(shard, source_id)))
                report.problems.append(Problem(error.code, message, sources, (name, shard.name)))
        contents.close(name)
    return contents


def _may_hold(shard: Shard, source_id: str) -> bool:
    return not shard.last or shard.first <= source_id <= shard.last


# Logs


def _open(corpus: Corpus, name: str, report: Report) -> DeltaTable | None:
    """A table, unless a problem with its log or its schema is now in the report."""
    files = filesystem(corpus, name)
    damaged, last = damaged_entries(files), max(entries(files), default=-1)
    problem = _log_problem(corpus, name, damaged=damaged, last=last)
    if problem is not None:
        report.problems.append(problem)
        return None
    for number, what in damaged.items():
        report.notes.append(f"version {number} of {name} cannot be looked at or restored: its entry in the log {what}")
    return corpus.delta(name)


def _log_problem(corpus: Corpus, name: str, *, damaged: Mapping[int, str], last: int) -> Problem | None:
    uri = corpus.uri(name)
    if last < 0:
        return Problem("table_missing", f"there is no table {uri}; the repair makes it anew, for a build to fill")
    if last in damaged:
        entry = f"{uri}/_delta_log/{last:020d}.json"
        return Problem("log_cut", f"{entry}, the last entry of the log, {damaged[last]}; the repair undoes it")
    try:
        table = corpus.delta(name)
    except CorpusError as error:
        if not damaged:
            return Problem("checkpoint_damaged", f"{error}. Its log is whole: the repair sets its checkpoints aside")
        listed = ", ".join(f"{number} {what}" for number, what in damaged.items())
        return Problem(
            "log_unreadable",
            f"the log of {uri} cannot be read: entry {listed}. Restore {uri}/_delta_log from a backup; "
            f"without one, move the folder {uri} away, repair, and build again",
        )
    problem = schema_problem(pa.schema(table.schema().to_arrow()), SCHEMAS[name])
    return None if problem is None else Problem("schema", f"{uri} was written with another schema: {problem}")


# Accounts


def _accounts(contents: _Contents) -> Iterator[Problem]:
    """Does every turn and every source that went into the corpus come out of it, once?"""
    yield from _repeated(contents.ledger)
    ledger = {row["source_id"]: row for row in contents.ledger}
    kept, rejects = contents.tallies["utterances"], contents.tallies["rejects"]
    for source_id, row in ledger.items():
        refused = rejects.get(source_id, _Tally())
        yield from _sum_problems(row, kept=kept.get(source_id, _Tally()).rows, rejected=refused.turns)
        if row["status"] != "kept" and not refused.rows:
            text = f"source {source_id} is {row['status']}, but no row in rejects says why"
            yield Problem("unexplained", text, (source_id,))
    for name, tallies in contents.tallies.items():
        for source_id, tally in tallies.items():
            yield from _strange_rows(ledger.get(source_id), tally, source_id=source_id, name=name)


def _repeated(ledger: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    for source_id, count in Counter(row["source_id"] for row in ledger).items():
        if count > 1:
            yield Problem("ledger_duplicate", f"source {source_id} is in the ledger {count} times", (source_id,))
    media: dict[str, set[str]] = defaultdict(set)
    for row in ledger:
        if row["status"] == "kept" and row["media_sha256"]:
            media[row["media_sha256"]].add(row["source_id"])
    for sha256, sources in media.items():
        if len(sources) > 1:
            text = (
                f"the recording with SHA-256 {sha256} is in the corpus {len(sources)} times, under different addresses"
            )
            yield Problem("recording_duplicate", text, tuple(sorted(sources)))


def _sum_problems(row: Mapping[str, Any], *, kept: int, rejected: int) -> Iterator[Problem]:
    source_id = row["source_id"]
    if row["turns_found"] != row["turns_kept"] + row["turns_rejected"]:
        text = (
            f"source {source_id}: {row['turns_found']} turns found, but {row['turns_kept']} kept and "
            f"{row['turns_rejected']} rejected"
        )
        yield Problem("sum", text, (source_id,))
    for name, count in (("turns_kept", kept), ("turns_rejected", rejected)):
        if row[name] != count:
            text = f"source {source_id}: {name} is {row[name]} in the ledger, its rows are {count}"
            yield Problem("count", text, (source_id,))


def _strange_rows(row: Mapping[str, Any] | None, tally: _Tally, *, source_id: str, name: str) -> Iterator[Problem]:
    if row is None:
        yield Problem(
            "orphan", f"{tally.rows} rows in {name} are of source {source_id}, not in the ledger", (source_id,)
        )
        return
    for other in sorted(tally.recipes - {row["recipe"]}):
        text = f"rows in {name} of source {source_id} are of recipe {other}, not the ledger's"
        yield Problem("recipe", text, (source_id,))


# Contents


def _alterations(contents: _Contents, tables: Mapping[str, DeltaTable], report: Report) -> Iterator[Problem]:
    """Are the rows those that were committed? The log has the token of each source in each table."""
    without = 0
    for source_id, digests in contents.digests.items():
        held = {name: table.transaction_version(source_id) for name, table in tables.items()}
        if held["sources"] is None:
            without += 1
            continue
        tokens = {name: NOTHING if (token := held[name]) is None else token for name in contents.tallies}
        for name, token in tokens.items():
            tally = contents.tallies[name].get(source_id)
            if token != (NOTHING if tally is None else tally.token):
                text = f"the rows in {name} of source {source_id} are not those that were committed"
                yield Problem("altered", text, (source_id,))
        if token_of(digests, tokens["rejects"], tokens["utterances"]) != held["sources"]:
            text = f"the row of source {source_id} in the ledger is not the one that was committed with its rows"
            yield Problem("ledger_altered", text, (source_id,))
    if without:
        report.notes.append(f"{without} sources have no token, so nothing tells whether their rows were altered")


def _faults(contents: _Contents) -> Iterator[Problem]:
    for source_id, tally in contents.tallies["utterances"].items():
        for code, fault in tally.faults.items():
            yield Problem(code, f"source {source_id}: {fault}", (source_id,))
    for engine, lengths in contents.lengths.items():
        usual = max(lengths, key=lambda length: len(lengths[length]))
        for length in sorted(lengths.keys() - {usual}):
            text = f"speaker embeddings of {engine} have {length} numbers in some sources, {usual} in most"
            yield Problem("embedding_length", text, tuple(sorted(lengths[length])))


def _value_faults(rows: pa.Table) -> Iterator[tuple[str, str]]:
    for row in rows.select(["utterance_id", "end", "duration", "sample_rate", *_RANGES]).to_pylist():
        name = row["utterance_id"]
        for column, (low, high) in _RANGES.items():
            if row[column] is not None and not low <= row[column] <= high:
                yield "range", f"{column} of {name} is {row[column]:g}, not {low:g} to {high:g}"
        if not row["end"] - row["start"] > 0 or abs(row["end"] - row["start"] - row["duration"]) > _SLACK:
            yield (
                "times",
                f"{name} goes from {row['start']:g} to {row['end']:g} s, its duration is {row['duration']:g} s",
            )


def _sound_faults(rows: pa.Table) -> Iterator[str]:
    for row in rows.select(["utterance_id", "audio", "sample_rate", "duration"]).to_pylist():
        problem = audio_problem(row["audio"]["bytes"], sample_rate=row["sample_rate"], duration=row["duration"])
        if problem is not None:
            yield f"the clip of {row['utterance_id']} {problem}"


# Beside the tables


def _look_at_speakers(corpus: Corpus, report: Report) -> None:
    if not corpus.is_local:
        return  # there is no such table in an object store
    try:
        corpus.speakers()
    except CorpusError as error:
        report.problems.append(Problem("speakers_damaged", str(error)))


def _look_at_judgements(corpus: Corpus, report: Report) -> None:
    if not corpus.is_local:
        return  # an object store keeps none
    try:
        Judgements(corpus.folder).table()
    except CorpusError as error:
        report.problems.append(Problem("judgements_damaged", str(error)))


def _look_for_leftovers(corpus: Corpus, report: Report) -> None:
    for name in SCHEMAS:
        try:
            left = leftovers(corpus, name)
        except CorpusError:  # there is a note on that entry of the log already
            report.notes.append(f"whether {name} has files that no version names cannot be told without its whole log")
            continue
        if left:
            size = sum(info.size for info in left) / 1e6
            report.notes.append(
                f"{len(left)} files in {corpus.uri(name)} ({size:.1f} MB) belong to no version, such as "
                f"{left[0].path}; `fsclap corpus vacuum` removes them"
            )
