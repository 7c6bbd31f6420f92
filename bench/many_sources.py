"""A corpus of very many sources of one row: `python -m bench.many_sources [--sources N] [--together N]`.

Commits the sources of a batch together, as a build does, and prints what the logs take and how long readers need,
before and after `fsclap corpus compact`. The rows are made up; their sizes are those of the corpus of the samples.
"""

import hashlib
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import report
from fsclap.audio import encode_flac
from storage.compaction import compact
from storage.corpus import SCHEMAS, Corpus, SourceRows
from storage.maintenance import history
from storage.verify import verify

RATE = 24_000
SECONDS = 2.5
RECIPE = "0" * 16


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.many_sources", __doc__)
    parser.add_argument("--sources", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--together", type=int, default=12, help="sources of a batch (default: %(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        states = measure(Path(folder) / "corpus", options.sources, options.together)
    print("\n".join(report.table(states)))
    report.write(options.json, {"options": vars(options), "states": [asdict(state) for state in states]})


@dataclass(frozen=True)
class State:
    """A corpus as it was found.

    Attributes:
        seconds: That it took to get there.
        logs_mb, on_disk_mb: Of the three logs: of their content, and of the blocks that it takes.
        read_s: `pandas.read_parquet` of the utterances, audio included.
        open_s: Opening the table.
    """

    state: str
    seconds: float
    rows: int
    shards: int
    logs_mb: float
    on_disk_mb: float
    read_s: float
    open_s: float


def measure(location: Path, sources: int, together: int) -> list[State]:
    """Build, read, compact and read again; one row per state."""
    corpus = Corpus.open(location, create=True)
    clip = encode_flac(0.003 * np.random.default_rng(0).standard_normal(round(SECONDS * RATE)).astype(np.float32), RATE)
    with stopwatch() as committing:
        for start in range(0, sources, together):
            rows = [rows_of(number, clip) for number in range(start, min(start + together, sources))]
            corpus.commit_sources([SourceRows(source, utterances=[utterance]) for source, utterance in rows])
    states = [state(corpus, "committed", committing[0])]
    with stopwatch() as compacting:
        compact(corpus)
    states.append(state(corpus, "compacted", compacting[0]))
    assert states[-1].rows == sources
    assert verify(corpus, audio=False).problems == []
    assert len(history(corpus)) == math.ceil(sources / together) + 2
    return states


def state(corpus: Corpus, name: str, seconds: float) -> State:
    """Read a corpus as its users do."""
    with stopwatch() as reading:
        rows = len(pd.read_parquet(corpus.folder / "utterances"))
    with stopwatch() as opening:
        corpus.version()
    logs = [path.stat() for table in SCHEMAS for path in (corpus.folder / table / "_delta_log").iterdir()]
    return State(
        state=name,
        seconds=seconds,
        rows=rows,
        shards=len(corpus.shards()),
        logs_mb=sum(log.st_size for log in logs) / 1e6,
        on_disk_mb=sum(log.st_blocks for log in logs) * 512 / 1e6,
        read_s=reading[0],
        open_s=opening[0],
    )


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    seconds = [0.0]
    started = time.perf_counter()
    yield seconds
    seconds[0] = time.perf_counter() - started


def rows_of(number: int, clip: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make the ledger's row of a source and its utterance."""
    source_id = hashlib.sha256(str(number).encode()).hexdigest()[:16]
    place = {"source_id": source_id, "series": "Sentences", "episode": f"s{number:05d}", "title": f"s{number:05d}"}
    place |= {"url": f"file:///data/sentences/s{number:05d}.wav", "recipe": RECIPE}
    source = place | {
        "status": "kept", "media_sha256": hashlib.sha256(source_id.encode()).hexdigest(), "duration": SECONDS,
        "turns_found": 1, "turns_kept": 1, "turns_rejected": 0, "sound": None, "stage_seconds": {"separation": 1.0},
    }  # fmt: skip
    names = (
        "pitch_hz", "pitch_range_st", "pitch_slope_st", "energy_db", "energy_range_db", "speaking_rate",
        "pause_ratio", "voiced_ratio", "spectral_tilt_db", "aperiodicity",
    )  # fmt: skip
    utterance = place | {
        "utterance_id": f"{source_id}-00000", "start": 0.0, "end": SECONDS, "duration": SECONDS,
        "speaker": f"Sentences/s{number:05d}#{source_id}/S00", "similarity": None, "text": "The birch canoe slid.",
        "text_confidence": None, "kind": "speech", "language": None, "tagger_text": None, "emotion": None,
        "emotion_confidence": None,
        "events": [], "quality": None, "overlap": None, "attributes": dict.fromkeys(names, 1.0),
        "style": {"pitch": "low"}, "style_key": "pitch=low", "caption": "A low voice speaks slowly.",
        "caption_source": "grammar", "audio": {"bytes": clip, "path": f"{source_id}-00000.flac"},
        "sample_rate": RATE, "speaker_embedding": [0.0625] * 256, "separation_engine": "spleeter@1",
        "diarization_engine": "x@1", "captioning_engine": "acoustic@1",
    }  # fmt: skip
    return source, utterance


if __name__ == "__main__":
    main()
