"""What a build leaves out because a person was taken out of the corpus: `left-out.json`, next to the tables.

    {"sources": {source id: {"recordings": [SHA-256, ...], "seconds": [[start, end], ...]}}, "speakers": [digest, ...]}

Of a recording these are the seconds in which the person speaks: neither a name nor a voice, nor which seconds of
two recordings are the same person's. Whoever speaks for the most part within them is left out again, whatever
diarization calls them. In a published data set people have the same names in all sources; of these a digest is kept.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from storage.build_record import parse_record
from storage.corpus import Corpus
from storage.schema import PUBLISHED

LEFT_OUT = "left-out.json"
_MOST = 0.5

Spans = tuple[tuple[float, float], ...]
"""Start and end in seconds as a player shows them, ascending and disjoint."""


@dataclass(frozen=True, slots=True)
class Gaps:
    """The seconds of a source that are left out.

    Attributes:
        recordings: SHA-256 of the files that the seconds are of.
        seconds: The seconds.
    """

    recordings: frozenset[str]
    seconds: Spans

    def __or__(self, other: "Gaps") -> "Gaps":
        return Gaps(self.recordings | other.recordings, merged([*self.seconds, *other.seconds]))


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What is left out of a corpus.

    Attributes:
        sources: Source id -> its seconds.
        speakers: Digests of the names of people of published data sets.
    """

    sources: Mapping[str, Gaps] = field(default_factory=dict)
    speakers: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.sources or self.speakers)

    def has_speaker(self, name: str) -> bool:
        """Whether a published data set's speaker is left out."""
        return bool(self.speakers) and speaker_digest(name) in self.speakers

    def of_recording(self, sha256: str | None) -> Gaps | None:
        """Return the seconds of a recording, whatever its source; None if nothing of it is left out."""
        found = [gaps for gaps in self.sources.values() if sha256 in gaps.recordings]
        return Gaps(frozenset(), merged(span for gaps in found for span in gaps.seconds)) if found else None


def speaker_digest(name: str) -> str:
    """Digest of a published speaker's name, by which an import knows it."""
    return hashlib.sha256(f"left out {name}".encode()).hexdigest()


def merged(spans: Iterable[Sequence[float]]) -> Spans:
    """Join spans that overlap or touch, rounded outwards to milliseconds."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted((math.floor(start * 1000) / 1000, math.ceil(end * 1000) / 1000) for start, end in spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return tuple(joined)


def mostly_within(
    starts: Sequence[float], ends: Sequence[float], speakers: Sequence[Any], seconds: Spans
) -> tuple[np.ndarray, frozenset[Any]]:
    """Find the turns that are left out, and the speakers.

    Args:
        starts: Where each turn of one recording begins, in seconds.
        ends: Where it ends.
        speakers: Who speaks; None: nobody knows.
        seconds: What is left out.

    Returns:
        (turns,) bool: more than half of the turn lies within the seconds. And the speakers of whose talk more than
        half does, all turns of whom are left out.
    """
    if not len(starts):
        return np.zeros(0, bool), frozenset()
    edges = np.array(seconds, float).reshape(-1)
    # How many seconds before a point are left out: it grows within the spans alone.
    passed = np.repeat(np.cumsum([0.0, *(end - start for start, end in seconds)]), 2)[1:-1]
    inside = np.interp(ends, edges, passed) - np.interp(starts, edges, passed)
    lengths = np.maximum(np.array(ends, float) - np.array(starts, float), 1e-9)
    excess: dict[Any, float] = defaultdict(float)
    for speaker, more in zip(speakers, (inside - _MOST * lengths).tolist(), strict=True):
        if speaker is not None:
            excess[speaker] += more
    theirs = frozenset(speaker for speaker, more in excess.items() if more > 0)
    return inside > _MOST * lengths, theirs


def leaving(left_out: LeftOut, rows: pa.Table, theirs: Collection[str] | None = None) -> np.ndarray:
    """Find the rows of one source that are left out.

    Args:
        left_out: What is left out of the corpus.
        rows: `source_id`, `speaker`, `start` and `end`, of utterances or rejects, of one source and one diarization.
        theirs: Speakers all of whose turns are left out; default: those who speak mostly within the seconds.

    Returns:
        (rows,) bool. A row without a start stays: it is about the source.
    """
    speakers, starts = rows["speaker"].to_pylist(), rows["start"].to_pylist()
    published = {name for name in set(speakers) if name is not None and name.startswith(PUBLISHED)}
    gone = {name for name in published if left_out.has_speaker(name)}
    goes = np.array([name in gone for name in speakers], bool)
    gaps = left_out.sources.get(rows["source_id"][0].as_py()) if len(rows) else None
    turns = [at for at, start in enumerate(starts) if start is not None and speakers[at] not in published]
    if gaps is not None and turns:
        chosen = rows.take(turns)
        names = chosen["speaker"].to_pylist()
        within, mostly = mostly_within(chosen["start"].to_pylist(), chosen["end"].to_pylist(), names, gaps.seconds)
        goes[turns] = within | np.array([name in (mostly if theirs is None else theirs) for name in names], bool)
    return goes


def read_left_out(corpus: Corpus) -> LeftOut:
    """Return what is left out of a corpus.

    Raises:
        CorpusError: The file is damaged.
    """
    return _left_out(corpus, corpus.place.read(LEFT_OUT))


def add_left_out(corpus: Corpus, sources: Mapping[str, Gaps], speakers: Iterable[str] = ()) -> LeftOut:
    """Leave more out: seconds of sources, and people of published data sets by name; return all that is left out."""
    digests = frozenset(map(speaker_digest, speakers))

    def to(known: LeftOut) -> LeftOut:
        more = {source_id: known.sources.get(source_id, gaps) | gaps for source_id, gaps in sources.items()}
        return LeftOut({**known.sources, **more}, known.speakers | digests)

    return _change(corpus, to)


def drop_sources(corpus: Corpus, source_ids: Iterable[str]) -> None:
    """Take sources out of the file, of which no trace may be left."""
    gone = frozenset(source_ids)

    def to(known: LeftOut) -> LeftOut:
        return LeftOut({key: gaps for key, gaps in known.sources.items() if key not in gone}, known.speakers)

    _change(corpus, to)


def _change(corpus: Corpus, to: Callable[[LeftOut], LeftOut]) -> LeftOut:
    after = LeftOut()

    def changed(content: bytes | None) -> bytes | None:
        nonlocal after
        before = _left_out(corpus, content)
        after = to(before)
        return None if after == before else _content(after)

    corpus.place.change(LEFT_OUT, changed)
    return after


def _left_out(corpus: Corpus, content: bytes | None) -> LeftOut:
    where, remedy = f"{corpus.location}/{LEFT_OUT}", "Restore it from a backup, or take the persons out again"
    record = parse_record(content, where=where, remedy=remedy) or {}
    sources = {
        source_id: Gaps(frozenset(gaps["recordings"]), merged(gaps["seconds"]))
        for source_id, gaps in (record.get("sources") or {}).items()
    }
    return LeftOut(sources, frozenset(record.get("speakers") or ()))


def _content(left_out: LeftOut) -> bytes:
    sources = {
        source_id: {"recordings": sorted(gaps.recordings), "seconds": gaps.seconds}
        for source_id, gaps in sorted(left_out.sources.items())
    }
    return json.dumps({"sources": sources, "speakers": sorted(left_out.speakers)}, indent=1).encode()
