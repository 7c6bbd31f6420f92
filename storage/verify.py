"""Verify a corpus: logs, shards and audio, and that each committed row is there once, unaltered.

The log of each table has a token of each source's rows, made of their content
(`Corpus.commit_source`). `verify` computes the token again from the shards, so it detects rows that
were lost, doubled or altered, by any program. It keeps in memory the ledger, a few numbers per
source, and the row digests of the sources of one shard.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from storage.corpus import SCHEMAS, Corpus
from storage.deltalog import Shard, damaged_entries, entries, leftovers, require_corpus
from storage.judgements import Judgements
from storage.rows import CorpusError, token_of
from storage.schema import PUBLISHED, schema_problem
from storage.shards import DamagedShardError, live_shards, read_shard
from storage.sounds import read_sounds
from storage.tallies import Contents, Tally
from storage.validation import NOTHING


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault of a corpus.

    Attributes:
        code: The kind of fault, in a word, for programs.
        message: What is wrong and where, for people.
        sources: The sources to build again, sorted; empty when that is no remedy.
        shard: Table and file name of the damaged shard, if the fault is one.
    """

    code: str
    message: str
    sources: tuple[str, ...] = ()
    shard: tuple[str, str] | None = None


@dataclass(slots=True)
class Report:
    """The result of `verify`.

    Attributes:
        problems: The faults; empty for a sound corpus.
        notes: Remarks that are no faults.
        sources, utterances, shards: The number of each that was checked.
    """

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sources: int = 0
    utterances: int = 0
    shards: int = 0

    def damaged_sources(self) -> list[str]:
        """Return the sources to build again."""
        return sorted({source_id for problem in self.problems for source_id in problem.sources})


def verify(corpus: Corpus, *, audio: bool = True) -> Report:
    """Check every part of a corpus.

    Run it while no worker is writing: a source that is just being committed is half there.

    Args:
        corpus: The corpus to check.
        audio: Also decode every clip, which takes most of the time. Without it, clips are still
            compared with what was committed.

    Raises:
        CorpusError: There is no corpus.
    """
    require_corpus(corpus)
    report = Report()
    tables = {name: table for name in SCHEMAS if (table := _open(corpus, name, report)) is not None}
    if len(tables) < len(SCHEMAS):  # the tables can only be compared with each other
        return report
    contents = _read(corpus, tables, report, audio=audio)
    report.sources = len({row["source_id"] for row in contents.ledger})
    report.utterances = sum(tally.rows for tally in contents.tallies["utterances"].values())
    known = set(report.damaged_sources())
    for problem in [*_accounts(contents), *_faults(contents), *_alterations(contents, tables, report)]:
        if not known.issuperset(problem.sources):  # a lost shard is also a wrong count and another token
            report.problems.append(problem)
            known.update(problem.sources)
    _check_speakers(corpus, report)
    _check_judgements(corpus, report)
    _note_twins(corpus, contents, report)
    _note_leftovers(corpus, report)
    return report


def _read(corpus: Corpus, tables: Mapping[str, DeltaTable], report: Report, *, audio: bool) -> Contents:
    contents = Contents()
    shards = {name: live_shards(table) for name, table in tables.items()}
    known = {source_id for listed in shards.values() for shard in listed for source_id in (shard.first, shard.last)}
    damaged: list[tuple[str, Shard, DamagedShardError]] = []
    for name, listed in shards.items():
        files = corpus.files(name)
        for shard in listed:
            report.shards += 1
            contents.close(name, before=shard.first)
            try:
                for rows in read_shard(shard, files, schema=SCHEMAS[name], name=name):
                    contents.add(rows, name=name, audio=audio)
            except DamagedShardError as error:
                damaged.append((name, shard, error))
        contents.close(name)
    # A compacted shard has many sources: those in its middle are known from the ledger.
    known |= {row["source_id"] for row in contents.ledger}
    for name, shard, damage in damaged:
        message = f"shard {corpus.uri(name)}/{shard.name} {damage.detail}"
        sources = tuple(sorted(source_id for source_id in known - {""} if _may_contain(shard, source_id)))
        report.problems.append(Problem(damage.code, message, sources, (name, shard.name)))
    return contents


def _may_contain(shard: Shard, source_id: str) -> bool:
    return not shard.last or shard.first <= source_id <= shard.last


# Logs


def _open(corpus: Corpus, name: str, report: Report) -> DeltaTable | None:
    """Open a table; None, and a problem in the report, when its log or its schema is faulty."""
    files = corpus.files(name)
    damaged, last = damaged_entries(files), max(entries(files), default=-1)
    problem = _log_problem(corpus, name, damaged=damaged, last=last)
    if problem is not None:
        report.problems.append(problem)
        return None
    for number, damage in damaged.items():
        report.notes.append(f"version {number} of {name} cannot be read or restored: its entry in the log {damage}")
    return corpus.delta(name)


def _log_problem(corpus: Corpus, name: str, *, damaged: Mapping[int, str], last: int) -> Problem | None:
    uri = corpus.uri(name)
    if last < 0:
        return Problem("table_missing", f"there is no table {uri}; the repair creates it, for a build to fill")
    if last in damaged:
        entry = f"{uri}/_delta_log/{last:020d}.json"
        return Problem("log_cut", f"{entry}, the last entry of the log, {damaged[last]}; the repair undoes it")
    try:
        table = corpus.delta(name)
    except CorpusError as error:
        if not damaged:
            return Problem("checkpoint_damaged", f"{error}. Its log is complete: the repair sets its checkpoints aside")
        listed = ", ".join(f"{number} {damage}" for number, damage in damaged.items())
        return Problem(
            "log_unreadable",
            f"the log of {uri} cannot be read: entry {listed}. Restore {uri}/_delta_log from a backup; "
            f"without one, move the folder {uri} away, repair, and build again",
        )
    problem = schema_problem(pa.schema(table.schema().to_arrow()), SCHEMAS[name])
    return None if problem is None else Problem("schema", f"{uri} was written with another schema: {problem}")


# Accounts


def _accounts(contents: Contents) -> Iterator[Problem]:
    """Compare the ledger's counts with the rows, and find rows without an entry in the ledger."""
    yield from _repeated(contents.ledger)
    yield from _orphaned_duplicates(contents)
    yield from _shared_speakers(contents)
    ledger = {row["source_id"]: row for row in contents.ledger}
    kept, rejects = contents.tallies["utterances"], contents.tallies["rejects"]
    for source_id, row in ledger.items():
        refused = rejects.get(source_id, Tally())
        yield from _count_problems(row, kept=kept.get(source_id, Tally()).rows, rejected=refused.turns)
        if row["status"] != "kept" and not refused.rows:
            text = f"source {source_id} is {row['status']}, but no row in rejects gives the reason"
            yield Problem("unexplained", text, (source_id,))
    for name, tallies in contents.tallies.items():
        for source_id, tally in tallies.items():
            yield from _foreign_rows(ledger.get(source_id), tally, source_id=source_id, name=name)


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
            text = f"the recording with SHA-256 {sha256} is in the corpus {len(sources)} times, from several addresses"
            yield Problem("recording_duplicate", text, tuple(sorted(sources)))


def _orphaned_duplicates(contents: Contents) -> Iterator[Problem]:
    """Find recordings that are in the corpus no more: refused as duplicates of one that changed or is gone."""
    kept = {row["media_sha256"] for row in contents.ledger if row["status"] == "kept"}
    for row in contents.ledger:
        duplicate = row["status"] == "rejected" and contents.refusals.get(row["source_id"]) == "duplicate"
        if duplicate and row["media_sha256"] not in kept:
            text = (
                f"source {row['source_id']} ({row['url']}) was refused as a duplicate of a recording that is not in "
                "the corpus (any more)"
            )
            yield Problem("duplicate_alone", text, (row["source_id"],))


def _shared_speakers(contents: Contents) -> Iterator[Problem]:
    for speaker, sources in contents.speakers.items():
        if len(sources) > 1 and not speaker.startswith(PUBLISHED):
            text = f"speaker {speaker!r} occurs in {len(sources)} sources: one name for different people"
            yield Problem("speaker_shared", text, tuple(sorted(sources)))


def _count_problems(row: Mapping[str, Any], *, kept: int, rejected: int) -> Iterator[Problem]:
    source_id = row["source_id"]
    if row["turns_found"] != row["turns_kept"] + row["turns_rejected"]:
        text = (
            f"source {source_id}: {row['turns_found']} turns found, but {row['turns_kept']} kept and "
            f"{row['turns_rejected']} rejected"
        )
        yield Problem("sum", text, (source_id,))
    for name, count in (("turns_kept", kept), ("turns_rejected", rejected)):
        if row[name] != count:
            text = f"source {source_id}: {name} is {row[name]} in the ledger, but it has {count} rows"
            yield Problem("count", text, (source_id,))


def _foreign_rows(row: Mapping[str, Any] | None, tally: Tally, *, source_id: str, name: str) -> Iterator[Problem]:
    if row is None:
        text = f"{tally.rows} rows in {name} belong to source {source_id}, which is not in the ledger"
        yield Problem("orphan", text, (source_id,))
        return
    for recipe in sorted(tally.recipes - {row["recipe"]}):
        text = f"rows in {name} of source {source_id} have recipe {recipe}, not the ledger's"
        yield Problem("recipe", text, (source_id,))


# Contents


def _alterations(contents: Contents, tables: Mapping[str, DeltaTable], report: Report) -> Iterator[Problem]:
    """Compare the tokens of the rows with those in the logs."""
    without = 0
    for source_id, digests in contents.digests.items():
        committed = {name: table.transaction_version(source_id) for name, table in tables.items()}
        if committed["sources"] is None:
            without += 1
            continue
        tokens = {name: NOTHING if (token := committed[name]) is None else token for name in contents.tallies}
        for name, token in tokens.items():
            tally = contents.tallies[name].get(source_id)
            if token != (NOTHING if tally is None else tally.token):
                text = f"the rows in {name} of source {source_id} are not those that were committed"
                yield Problem("altered", text, (source_id,))
        if token_of(digests, tokens["rejects"], tokens["utterances"]) != committed["sources"]:
            text = f"the row of source {source_id} in the ledger is not the one that was committed"
            yield Problem("ledger_altered", text, (source_id,))
    if without:
        report.notes.append(f"{without} sources have no token, so alterations of their rows cannot be detected")


def _faults(contents: Contents) -> Iterator[Problem]:
    for source_id, tally in contents.tallies["utterances"].items():
        for code, fault in tally.faults.items():
            yield Problem(code, f"source {source_id}: {fault}", (source_id,))
    for engine, lengths in contents.lengths.items():
        usual = max(lengths, key=lambda length: len(lengths[length]))
        for length in sorted(lengths.keys() - {usual}):
            text = f"speaker embeddings of {engine} have {length} numbers in some sources, {usual} in most"
            yield Problem("embedding_length", text, tuple(sorted(lengths[length])))


# Files next to the tables


def _check_speakers(corpus: Corpus, report: Report) -> None:
    try:
        corpus.speakers()
    except CorpusError as error:
        report.problems.append(Problem("speakers_damaged", str(error)))


def _check_judgements(corpus: Corpus, report: Report) -> None:
    try:
        Judgements(corpus.location).table()
    except CorpusError as error:
        report.problems.append(Problem("judgements_damaged", str(error)))


def _note_twins(corpus: Corpus, contents: Contents, report: Report) -> None:
    kept = {row["source_id"]: row["url"] for row in contents.ledger if row["status"] == "kept"}
    for record in read_sounds(corpus):
        source_id, twin = record["source_id"].decode(), record["twin"].decode()
        if source_id in kept and twin in kept:
            report.notes.append(
                f"sources {source_id} ({kept[source_id]}) and {twin} ({kept[twin]}) sound alike: the same recording "
                f"twice? `fsclap corpus forget {corpus.location} {source_id}` takes one out"
            )


def _note_leftovers(corpus: Corpus, report: Report) -> None:
    for name in SCHEMAS:
        try:
            left = leftovers(corpus, name)
        except CorpusError:  # the report has a note on that entry of the log already
            report.notes.append(f"files of {name} that belong to no version cannot be listed without its complete log")
            continue
        if left:
            size = sum(info.size for info in left) / 1e6
            report.notes.append(
                f"{len(left)} files in {corpus.uri(name)} ({size:.1f} MB) belong to no version, such as "
                f"{left[0].path}; `fsclap corpus vacuum` removes them"
            )
