"""Rate speech in music and separated vocals with DNSMOS: `python -m bench.quality`.

The first turns of each dialogue of `bench.dialogues` (the test half) are rated alone, with music at
speech-to-music ratios of 10, 5 and 0 dB, and after the separation of the 5 and 0 dB mixtures. Rows:
mean scores over the turns, the share of turns that is rated lower than the same turn alone, and
real time over compute time, one thread.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import soundfile
import soxr

from bench import report
from bench.corpus_quality import DATA_HELP, Recording, dialogues
from bench.dialogues import SAMPLE_RATE, mix
from bench.flow import EMBEDDED
from fsclap.audio import sample_index
from fsclap.corpus.filtering import load_scorer
from fsclap.corpus.filtering.quality import Quality, QualitySettings, Scorer
from fsclap.corpus.separation import load_separator
from fsclap.corpus.separation.base import Separator

log = logging.getLogger(__name__)

LEAST_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Row:
    """Mean scores in one condition."""

    condition: str
    clips: int
    overall: float
    signal: float
    background: float
    below_clean: float
    times_real_time: float


def conditions(recordings: Sequence[Recording], separator: Separator) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Each condition and its recordings, (samples,) at SAMPLE_RATE."""
    stems = [
        [soundfile.read(r.path / f"{name}.flac", dtype="float32")[0] for name in ("clean", "music")] for r in recordings
    ]
    yield "clean", [clean for clean, _ in stems]
    for snr_db in (10.0, 5.0, 0.0):
        mixtures = [mix(clean, music, snr_db) for clean, music in stems]
        yield f"{snr_db:g} dB", mixtures
        if snr_db < 10:
            resampled = [soxr.resample(wave, SAMPLE_RATE, separator.sample_rate)[np.newaxis] for wave in mixtures]
            outputs = [np.zeros(wave.shape[1], np.float32) for wave in resampled]
            vocals = separator.separate(resampled, outputs)
            yield f"{snr_db:g} dB, separated", [soxr.resample(v, separator.sample_rate, SAMPLE_RATE) for v in vocals]


def clips_of(recordings: Sequence[Recording], waves: Sequence[np.ndarray], rate: int, each: int) -> list[np.ndarray]:
    """Cut the first `each` turns of LEAST_SECONDS and more of each recording, at `rate`."""
    clips = []
    for recording, wave in zip(recordings, waves, strict=True):
        turns = [turn for turn in recording.turns if turn.end - turn.start >= LEAST_SECONDS][:each]
        cut = [wave[sample_index(t.start, SAMPLE_RATE) : sample_index(t.end, SAMPLE_RATE)] for t in turns]
        clips += [soxr.resample(clip, SAMPLE_RATE, rate) for clip in cut]
    return clips


def measure(scorer: Scorer, recordings: Sequence[Recording], separator: Separator, *, each: int) -> Iterator[Row]:
    """Yield a row for each condition; clean is the first."""
    clean: list[Quality] = []
    for condition, waves in conditions(recordings, separator):
        clips = clips_of(recordings, waves, scorer.sample_rate, each)
        start = time.perf_counter()
        scores = list(scorer.score(clips))
        spent = time.perf_counter() - start
        clean = clean or scores
        means = [
            float(np.mean([getattr(score, name) for score in scores])) for name in ("overall", "signal", "background")
        ]
        below = float(np.mean([score.overall < own.overall for score, own in zip(scores, clean, strict=True)]))
        yield Row(condition, len(clips), *means, below, sum(map(len, clips)) / scorer.sample_rate / spent)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.quality", __doc__)
    parser.add_argument("--data", type=report.absolute_path, default="data/dialogues", help=DATA_HELP)
    parser.add_argument("--limit", type=int, default=20, help="read the first N dialogues (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="turns of each dialogue (default: %(default)s)")
    options = parser.parse_args(arguments)
    scorer = load_scorer(QualitySettings(engine="dnsmos"))
    assert scorer is not None
    recordings = dialogues(options.data / "test", options.limit)
    rows = list(measure(scorer, recordings, load_separator(EMBEDDED.separation), each=options.turns))
    print("\n".join(report.table(rows)))
    report.write(options.json, {"engine": scorer.revision, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main()
