"""What `verify` keeps of a corpus's shards: counts, digests and faults by source."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage.rows import row_digests, token_of
from storage.validation import TIMINGS
from storage.verify_audio import audio_problem

_RANGES = {
    "start": (0, float("inf")),
    "similarity": (-1.001, 1.001),
    "emotion_confidence": (0, 1.001),
    "text_confidence": (0, 1.001),
    "overlap": (0, 1.001),
}
_SLACK = 0.001  # seconds


@dataclass(slots=True)
class Tally:
    """The rows of one source in one table.

    Attributes:
        turns: Rows with a position in the episode.
        recipes: Recipes that occur.
        digests: Digests of the rows, until the tally is closed.
        ids: The utterance ids, until the tally is closed.
        closed: Whether every shard that may have rows of the source was read.
        token: The token of the rows, once the tally is closed; None if more rows came after that.
        faults: Code -> message of the first fault of that kind in a row.
    """

    rows: int = 0
    turns: int = 0
    recipes: set[str] = field(default_factory=set)
    digests: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    closed: bool = False
    token: int | None = None
    faults: dict[str, str] = field(default_factory=dict)

    def add(self, rows: pa.Table) -> None:
        """Count rows of the source and add their digests."""
        self.rows += len(rows)
        self.turns += len(rows) - rows["start"].null_count
        self.recipes.update(rows["recipe"].unique().to_pylist())
        if self.closed:  # by the log, this shard has no rows of the source
            self.token = None
        else:
            self.digests += row_digests(rows)

    def close(self) -> None:
        """Compute the token and free the digests."""
        if not self.closed:
            self.token = token_of(self.digests)
        self.closed, self.digests, self.ids = True, [], set()


class Contents:
    """The tallies of all sources, and the ledger.

    Attributes:
        ledger: The rows of the ledger, without timings.
        digests: Source id -> digests of its rows in the ledger.
        tallies: Table, "utterances" or "rejects" -> source id -> tally.
        speakers: Name of a speaker -> the sources that it occurs in.
        refusals: Source id -> reason for which the source as a whole was refused.
        lengths: Diarization engine -> length of its speaker embeddings -> the sources with such
            embeddings.
    """

    def __init__(self) -> None:
        self.ledger: list[dict[str, Any]] = []
        self.digests: dict[str, list[str]] = defaultdict(list)
        self.tallies: dict[str, dict[str, Tally]] = {"utterances": {}, "rejects": {}}
        self.speakers: dict[str, set[str]] = defaultdict(set)
        self.refusals: dict[str, str] = {}
        self.lengths: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))

    def tally(self, name: str, source_id: str) -> Tally:
        return self.tallies[name].setdefault(source_id, Tally())

    def close(self, name: str, *, before: str | None = None) -> None:
        """Close the tallies of sources whose id is below `before`; all by default.

        Shards come in the order of their ids, so later ones have no rows of these sources.
        """
        for source_id, tally in self.tallies.get(name, {}).items():
            if before is None or source_id < before:
                tally.close()

    def add(self, rows: pa.Table, *, name: str, audio: bool) -> None:
        """Add rows of a table; with `audio`, decode the clips of utterances."""
        if name == "sources":
            bare = rows.drop_columns(list(TIMINGS))
            for source_id, digest in zip(rows["source_id"].to_pylist(), row_digests(bare), strict=True):
                self.digests[source_id].append(digest)
            self.ledger += bare.to_pylist()
            return
        for source_id in rows["source_id"].unique().to_pylist():
            of_source = rows.filter(pc.equal(rows["source_id"], source_id))
            tally = self.tally(name, source_id)
            if name == "rejects":
                whole = of_source.filter(pc.is_null(of_source["start"]))
                self.refusals |= dict(zip(whole["source_id"].to_pylist(), whole["reason"].to_pylist(), strict=True))
            if name == "utterances":
                self._check_utterances(of_source, source_id, tally, audio=audio)
            tally.add(of_source)

    def _check_utterances(self, rows: pa.Table, source_id: str, tally: Tally, *, audio: bool) -> None:
        for utterance_id in rows["utterance_id"].to_pylist():
            if not utterance_id.startswith(f"{source_id}-"):
                tally.faults.setdefault("foreign_id", f"{utterance_id} does not start with its source's id")
            if utterance_id in tally.ids:
                tally.faults.setdefault("utterance_duplicate", f"{utterance_id} is in the corpus more than once")
            tally.ids.add(utterance_id)
        for speaker in rows["speaker"].unique().to_pylist():
            self.speakers[speaker].add(source_id)
        for code, fault in _value_faults(rows):
            tally.faults.setdefault(code, fault)
        lengths = pc.list_value_length(rows["speaker_embedding"]).to_pylist()
        for engine, length in set(zip(rows["diarization_engine"].to_pylist(), lengths, strict=True)):
            if length:  # events and imported clips have none
                self.lengths[engine][length].add(source_id)
        if audio:
            for fault in _audio_faults(rows):
                tally.faults.setdefault("sound", fault)


def _value_faults(rows: pa.Table) -> Iterator[tuple[str, str]]:
    for row in rows.select(["utterance_id", "end", "duration", *_RANGES]).to_pylist():
        name, start, end, duration = row["utterance_id"], row["start"], row["end"], row["duration"]
        for column, (low, high) in _RANGES.items():
            if row[column] is not None and not low <= row[column] <= high:
                yield "range", f"{column} of {name} is {row[column]:g}, not {low:g} to {high:g}"
        if not end - start > 0 or abs(end - start - duration) > _SLACK:
            yield "times", f"{name} goes from {start:g} to {end:g} s, but its duration is {duration:g} s"


def _audio_faults(rows: pa.Table) -> Iterator[str]:
    for row in rows.select(["utterance_id", "audio", "sample_rate", "duration"]).to_pylist():
        problem = audio_problem(row["audio"]["bytes"], sample_rate=row["sample_rate"], duration=row["duration"])
        if problem is not None:
            yield f"the clip of {row['utterance_id']} {problem}"
