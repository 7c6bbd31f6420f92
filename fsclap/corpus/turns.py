"""What diarization finds, and what every later stage of the corpus works on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fsclap import Seconds

Kind = Literal["speech", "event"]
"""Speech, or a burst of voice without words: a cry, a gasp, a laugh (`diarization.events`)."""

NOISE = -1
"""Speaker label of a turn that no cluster took in."""


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One stretch of speech by one speaker in one recording.

    Attributes:
        start, end: Position in the recording.
        speaker: Label, local to the recording: 0, 1, ... in order of first appearance, or NOISE.
        text: Transcript; empty if the recogniser found no words.
        language: ISO 639-1 code of the transcript, or None when the engine does not tell.
        embedding: (dim,) float32 speaker embedding of unit L2 norm, or None when the turn is too
            short for the engine to embed.
        overlap: Share of the turn in which another speaker also speaks, 0 to 1; None when the engine
            does not measure it.
        confidence: How sure the recogniser is of the words it heard, 0 to 1, even where `text` is empty
            because it is too unsure; None when the engine does not tell, or heard no words.
        kind: An event has no text and no embedding.
    """

    start: Seconds
    end: Seconds
    speaker: int
    text: str
    language: str | None
    embedding: np.ndarray | None
    overlap: float | None = None
    confidence: float | None = None
    kind: Kind = "speech"

    @property
    def duration(self) -> Seconds:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Dropped:
    """A stretch of speech that became no turn.

    Attributes:
        start, end: Position in the recording.
        reason: A short code: `too_short`, `too_long`, `no_words` or `inside_another`.
        detail: The same in a sentence.
    """

    start: Seconds
    end: Seconds
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Diarized:
    """What diarization makes of one recording.

    Attributes:
        turns: By start time; they do not overlap and lie within the recording.
        dropped: By start time, the speech that became no turn.
    """

    turns: list[Turn]
    dropped: list[Dropped]


def too_short(start: Seconds, end: Seconds, shortest: Seconds) -> Dropped:
    """Drop a stretch of speech that is shorter than the shortest turn."""
    return Dropped(start, end, "too_short", f"{end - start:.2f} s are less than the shortest turn, {shortest:g} s")


def write_turns(path: Path, turns: Sequence[Turn]) -> None:
    """Write turns to a Parquet file, exactly as `read_turns` returns them."""
    columns = {
        "start": pa.array([turn.start for turn in turns], pa.float64()),
        "end": pa.array([turn.end for turn in turns], pa.float64()),
        "speaker": pa.array([turn.speaker for turn in turns], pa.int32()),
        "text": pa.array([turn.text for turn in turns], pa.string()),
        "language": pa.array([turn.language for turn in turns], pa.string()),
        "embedding": pa.array([turn.embedding for turn in turns], pa.list_(pa.float32())),
        "overlap": pa.array([turn.overlap for turn in turns], pa.float64()),
        "confidence": pa.array([turn.confidence for turn in turns], pa.float64()),
        "kind": pa.array([turn.kind for turn in turns], pa.string()),
    }
    pq.write_table(pa.table(columns), path)


def read_turns(path: Path) -> list[Turn]:
    """Read turns from a Parquet file; one without the columns that came later gives the defaults of `Turn`."""
    return [
        Turn(**row | {"embedding": None if row["embedding"] is None else np.array(row["embedding"], np.float32)})
        for row in pq.read_table(path).to_pylist()
    ]
