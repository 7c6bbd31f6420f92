"""The past of a corpus without the people who were taken out of it: which rows of earlier versions go.

Another diarization gave a person other names, so a row of an earlier version is theirs by when it is spoken
(`storage.left_out`). Rows of another recording, whose seconds say nothing, go as a whole. The tokens in the logs and
the counts of the ledger are made again, so that an earlier version can be restored and verified.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.corpus import SCHEMAS, SUPERSEDED, Corpus
from storage.deltalog import Shard, Version, versions
from storage.left_out import LeftOut, leaving, mostly_within
from storage.rows import build_table, content_token, row_digests, token_of
from storage.schema import PUBLISHED
from storage.sought import Sought
from storage.validation import NOTHING, TIMINGS

_TURN = ["source_id", "recipe", "speaker", "start", "end"]
_OF_TURNS = ("rejects", "utterances")

Key = tuple[str, str]
"""Source id and recipe: rows of one diarization."""


@dataclass(frozen=True, slots=True)
class _State:
    """What a source has in a table from a version on: the token of the rest of its rows, and how many turns."""

    version: int
    time: datetime
    token: int
    turns: int


class WithoutPeople:
    """The past without the people who are left out of a corpus (`storage.rewriting.Rule`).

    It is read from the corpus when it is made, before anything is written again.

    Raises:
        CorpusError: A log can't be read.
    """

    def __init__(self, corpus: Corpus, left_out: LeftOut) -> None:
        self._corpus, self._left_out = corpus, left_out
        self._logs = {name: list(versions(corpus, name)) for name in SCHEMAS}
        self._live = {name: set(corpus.shards(table=name)) for name in SCHEMAS}
        self._theirs = self._speakers()
        self._rest: dict[tuple[str, str], dict[str, tuple[list[str], int]]] = {}
        self._counts: dict[tuple[str, datetime], dict[str, int]] = {}
        self._tokens: dict[tuple[str, str, int], int] = {}
        states = {name: self._read_states(name) for name in _OF_TURNS}
        self._read_ledger(states)

    # As a rule

    def concerns(self, first: str, last: str) -> bool:
        return not last or any(first <= source_id <= last for source_id in self.sources)

    def rows(self, table: str, shard: str, rows: pa.Table) -> pa.Table:
        if table == "sources":
            return self._recounted(rows)
        goes = self._goes(table, shard, rows)
        return rows.filter(pa.array(~goes)) if goes.any() else rows

    def token(self, table: str, source_id: str, token: int) -> int | None:
        return self._tokens.get((table, source_id, token), token)

    def hides(self, text: str) -> bool:
        return False

    # What is to go

    @cached_property
    def gone(self) -> Sought:
        """Ids of the utterances, and names of the speakers, that no version will have."""
        return self._gone(shard.name for _, shard in self._shards("utterances"))

    def gone_from(self, version: int) -> Sought:
        """Ids and names that a version of the utterances will not have; those of all if there is no such version."""
        for log, live in self._replayed("utterances"):
            if log.number == version:
                return self._gone(live)
        return self.gone

    @cached_property
    def sources(self) -> frozenset[str]:
        """Sources that have, or had, rows of the people."""
        return frozenset(self._left_out.sources).union(*(sides.sources for sides in self._without.values()))

    def _gone(self, shards: Iterable[str]) -> Sought:
        sides = [self._without[name] for name in shards if name in self._without]

        def without(name: str) -> frozenset[str]:
            going, staying = ([getattr(each, side) for each in sides] for side in ("going", "staying"))
            names = frozenset().union(*(getattr(each, name) for each in going))
            return names.difference(*(getattr(each, name) for each in staying))

        return Sought(clips=without("clips"), speakers=without("speakers"))

    @cached_property
    def _without(self) -> dict[str, "_Sides"]:
        """Shard of the utterances -> what goes from it, and what stays of the same sources."""
        found = {}
        for _, shard in self._shards("utterances"):
            rows = self._read("utterances", shard.name, [*_TURN, "utterance_id"])
            goes = self._goes("utterances", shard.name, rows)
            going, staying = (rows.filter(pa.array(mask)) for mask in (goes, ~goes))
            sources = frozenset(going["source_id"].unique().to_pylist())
            found[shard.name] = _Sides(_named(going), _named(staying), sources)
        return found

    def _goes(self, table: str, shard: str, rows: pa.Table) -> np.ndarray:
        """(rows,) bool: the rows of a shard of utterances or rejects that go."""
        goes = np.zeros(len(rows), bool)
        for key, numbers in _by_diarization(rows).items():
            chosen = rows.take(numbers)
            goes[numbers] = leaving(self._left_out, chosen, self._theirs.get(key))
            if key in self._foreign and shard not in self._live[table]:
                goes[numbers] |= np.array([start is not None for start in chosen["start"].to_pylist()], bool)
        return goes

    def _speakers(self) -> dict[Key, frozenset[str]]:
        """Diarization of a source -> the speakers who speak mostly within the seconds that are left out."""
        turns: dict[Key, set[tuple[float, float, str]]] = defaultdict(set)
        for table in _OF_TURNS:
            for _, shard in self._shards(table):
                rows = self._read(table, shard.name, _TURN)
                for source_id, recipe, speaker, start, end in zip(
                    *(rows[each].to_pylist() for each in _TURN), strict=True
                ):
                    if source_id in self._left_out.sources and speaker and not speaker.startswith(PUBLISHED):
                        turns[source_id, recipe].add((start, end, speaker))
        found = {}
        for key, said in turns.items():
            starts, ends, names = zip(*sorted(said), strict=True)
            found[key] = mostly_within(starts, ends, names, self._left_out.sources[key[0]].seconds)[1]
        return found

    @cached_property
    def _foreign(self) -> set[Key]:
        """Diarizations of a source, some rows of which may be of another recording than the seconds."""
        found = set()
        for _, shard in self._shards("sources"):
            for row in self._read("sources", shard.name, ["source_id", "recipe", "media_sha256"]).to_pylist():
                gaps = self._left_out.sources.get(row["source_id"])
                if gaps is not None and row["media_sha256"] not in (None, *gaps.recordings):
                    found.add((row["source_id"], row["recipe"]))
        return found

    # Tokens and counts

    def _read_states(self, table: str) -> dict[str, list[_State]]:
        states: dict[str, list[_State]] = defaultdict(list)
        for log, live in self._replayed(table):
            for source_id, token in log.tokens.items():
                rest = self._rest_of(table, source_id, live)
                if rest is not None:
                    digests, turns = rest
                    self._tokens[table, source_id, token] = token_of(digests)
                    states[source_id].append(_State(log.number, log.time, token_of(digests), turns))
        return states

    def _rest_of(self, table: str, source_id: str, live: Mapping[str, Shard]) -> tuple[list[str], int] | None:
        """Digests of what a source will have in a version, and its turns; None for one that stays or can't be read."""
        if source_id not in self.sources:
            return None
        digests: list[str] = []
        turns = 0
        for shard in live.values():
            if not shard.last or shard.first <= source_id <= shard.last:
                if not self._place(table, shard.name):
                    return None  # vacuumed: this version can't be restored
                more, count = self._rest_in(table, shard.name).get(source_id, ([], 0))
                digests, turns = digests + more, turns + count
        return digests, turns

    def _rest_in(self, table: str, shard: str) -> dict[str, tuple[list[str], int]]:
        """Source id -> digests and number of turns of the rows that a shard will have of it."""
        if (table, shard) not in self._rest:
            rows = self.rows(table, shard, self._read(table, shard, None))
            found = {}
            for source_id in self.sources.intersection(rows["source_id"].unique().to_pylist()):
                own = rows.filter(pc.equal(rows["source_id"], source_id))
                digests = row_digests(build_table(own, schema=SCHEMAS[table], name=table))
                found[source_id] = (digests, len(own) - own["start"].null_count)
            self._rest[table, shard] = found
        return self._rest[table, shard]

    def _read_ledger(self, states: Mapping[str, Mapping[str, list[_State]]]) -> None:
        for log, live in self._replayed("sources"):
            for source_id, token in log.tokens.items():
                row = self._ledger_row(source_id, live)
                if row is None:
                    continue
                rejects, utterances = (_at(states[name].get(source_id, []), log, name) for name in _OF_TURNS)
                key = (source_id, row["committed_at"][0].as_py())
                # A restored row is what it was when it was committed.
                self._counts.setdefault(key, {
                    "turns_found": rejects.turns + utterances.turns,
                    "turns_kept": utterances.turns,
                    "turns_rejected": rejects.turns,
                })  # fmt: skip
                ledger = self._recounted(row).drop_columns(list(TIMINGS))
                self._tokens["sources", source_id, token] = content_token(ledger, rejects.token, utterances.token)

    def _ledger_row(self, source_id: str, live: Mapping[str, Shard]) -> pa.Table | None:
        if source_id not in self.sources:
            return None
        for shard in live.values():
            if (not shard.last or shard.first <= source_id <= shard.last) and self._place("sources", shard.name):
                rows = self._read("sources", shard.name, None)
                own = rows.filter(pc.equal(rows["source_id"], source_id))
                if len(own):
                    return build_table(own.slice(0, 1), schema=SCHEMAS["sources"], name="sources")
        return None

    def _recounted(self, rows: pa.Table) -> pa.Table:
        """Return rows of the ledger with the counts that they are to have; the same object if they have them."""
        keys = zip(rows["source_id"].to_pylist(), rows["committed_at"].to_pylist(), strict=True)
        counts = [self._counts.get(key, {}) for key in keys]
        changed = rows
        for name in ("turns_found", "turns_kept", "turns_rejected"):
            before = rows[name].to_pylist()
            after = [count.get(name, value) for count, value in zip(counts, before, strict=True)]
            if after != before:
                at = changed.column_names.index(name)
                changed = changed.set_column(at, changed.field(at), pa.array(after, pa.int32()))
        return changed

    # Reading

    def _replayed(self, table: str) -> Iterator[tuple[Version, dict[str, Shard]]]:
        """Yield each version with its shards by name; the mapping is changed by the next."""
        live: dict[str, Shard] = {}
        for log in self._logs[table]:
            for name in log.removed:
                live.pop(name, None)
            live |= {shard.name: shard for shard in log.added}
            yield log, live

    def _shards(self, table: str) -> Iterator[tuple[Version, Shard]]:
        """Yield the shards of all versions that are there and may have rows that change, each once."""
        seen = set()
        for log in self._logs[table]:
            for shard in log.added:
                if shard.name not in seen and self._may_have(shard) and self._place(table, shard.name):
                    seen.add(shard.name)
                    yield log, shard

    def _may_have(self, shard: Shard) -> bool:
        ids = self._left_out.sources
        anywhere = not shard.last or bool(self._left_out.speakers)
        return anywhere or any(shard.first <= source_id <= shard.last for source_id in ids)

    def _place(self, table: str, shard: str) -> str | None:
        names = self._present[table]
        return next((place for place in (shard, f"{SUPERSEDED}/{shard}") if place in names), None)

    @cached_property
    def _present(self) -> dict[str, set[str]]:
        return {
            table: {entry.name.removeprefix(f"{table}/") for entry in self._corpus.place.list(f"{table}/")}
            for table in SCHEMAS
        }

    def _read(self, table: str, shard: str, columns: list[str] | None) -> pa.Table:
        with self._corpus.files(table).open_input_file(str(self._place(table, shard))) as file:
            return pq.read_table(file, columns=columns)


@dataclass(frozen=True, slots=True)
class _Sides:
    """What goes from a shard, what stays in it, and the sources of what goes."""

    going: Sought
    staying: Sought
    sources: frozenset[str]


def _named(rows: pa.Table) -> Sought:
    return Sought(
        clips=frozenset(rows["utterance_id"].to_pylist()), speakers=frozenset(rows["speaker"].unique().to_pylist())
    )


def _by_diarization(rows: pa.Table) -> dict[Key, list[int]]:
    found: dict[Key, list[int]] = defaultdict(list)
    for number, key in enumerate(zip(rows["source_id"].to_pylist(), rows["recipe"].to_pylist(), strict=True)):
        found[key].append(number)
    return found


def _at(states: list[_State], entry: Version, table: str) -> _State:
    """Return the state of a source in another table when an entry of the ledger was written."""
    known = entry.after.get(table)
    before = [state for state in states if (state.time <= entry.time if known is None else state.version <= known)]
    return before[-1] if before else _State(-1, entry.time, NOTHING, 0)
