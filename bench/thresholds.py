"""Sweep the thresholds of the embedded diarization on the dev half: `python -m bench.thresholds`.

Two tables, on clean speech and on vocals separated from music at 5 dB. With `--half test` only the
defaults are scored, so that the test half stays a test:

    diarization    DER, confusion and share of recordings with the right number of speakers, for
                   values of one setting with the others at their defaults
    consistency    share of right clips lost and of wrong clips removed at each threshold, when a
                   share of each speaker's clips comes from other speakers of the same recording;
                   wrong clips are drawn with a seed, right and wrong are known from the truth

Speech is detected and embedded once; the settings that are swept apply after that.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import soundfile
import soxr

from bench import report
from bench.corpus_quality import DATA_HELP, Recording, dialogues, diarization_errors
from bench.dialogues import HALVES, SAMPLE_RATE, STEM_SNR_DB, mix
from bench.flow import EMBEDDED
from fsclap.corpus.diarization import load_diarizer
from fsclap.corpus.diarization.base import DiarizationSettings, Diarizer, WhisperCAMPlusPlusSettings
from fsclap.corpus.diarization.whisper_campplus import RATE, Voiced, WhisperCAMPlusPlus, split, turn_parts, turns
from fsclap.corpus.filtering.consistency import mean_similarity
from fsclap.corpus.separation import load_separator
from fsclap.corpus.separation.base import Separator
from fsclap.corpus.turns import Turn
from harness.separation import in_memory
from samples.timeline import TrueTurn

log = logging.getLogger(__name__)

SWEEPS: dict[str, tuple[float, ...]] = {
    "least_silhouette": (0.0, 0.15, 0.2, 0.25, 0.3, 0.35),
    "min_speaker": (0.0, 2.0, 3.0, 4.0, 6.0),
}
DEFAULTS = {"least_silhouette": (WhisperCAMPlusPlusSettings().least_silhouette,)}
WRONG_SHARES = (0.1, 0.25, 0.4)
PURE = 0.9


@dataclass(frozen=True, slots=True)
class DiarizationRow:
    """One value of one setting in one condition."""

    condition: str
    setting: str
    value: float
    der: float
    confusion: float
    speakers_right: float


@dataclass(frozen=True, slots=True)
class ConsistencyRow:
    """One threshold (mapped) at one share of wrong clips in one condition."""

    condition: str
    wrong_share: float
    threshold: float
    right_lost: float
    wrong_removed: float


def waves(recordings: Sequence[Recording], separator: Separator) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Each condition and its recordings at the diarizer's rate."""
    stems = [
        [soundfile.read(r.path / f"{name}.flac", dtype="float32")[0] for name in ("clean", "music")] for r in recordings
    ]
    yield "clean", [soxr.resample(clean, SAMPLE_RATE, RATE) for clean, _ in stems]
    mixtures = [
        soxr.resample(mix(pair[0], pair[1], STEM_SNR_DB), SAMPLE_RATE, separator.sample_rate)[np.newaxis]
        for pair in stems
    ]
    yield "separated", [soxr.resample(v, separator.sample_rate, RATE) for v in in_memory(separator, mixtures)]


def sweep_diarization(
    condition: str,
    found: Sequence[Voiced],
    recordings: Sequence[Recording],
    sweeps: Mapping[str, tuple[float, ...]],
) -> list[DiarizationRow]:
    """Make a row for each value of each setting."""
    rows = []
    for setting, values in sweeps.items():
        for value in values:
            settings = DiarizationSettings(whisper_campplus=WhisperCAMPlusPlusSettings(**{setting: value}))
            figures = [
                _errors(voiced, recording, settings) for voiced, recording in zip(found, recordings, strict=True)
            ]
            wrong, confused, total, right = np.sum(figures, axis=0)
            rows.append(DiarizationRow(condition, setting, value, wrong / total, confused / total, right / len(found)))
    return rows


def _errors(voiced: Voiced, recording: Recording, settings: DiarizationSettings) -> tuple[float, float, float, float]:
    found = _turns(voiced, settings)
    parts = diarization_errors(recording.turns, found, len(voiced.wave) / RATE)
    right = len({turn.speaker for turn in found}) == len({turn.speaker for turn in recording.turns})
    return parts["der"][0], parts["confusion"][0], parts["der"][1], float(right)


def _turns(voiced: Voiced, settings: DiarizationSettings) -> list[Turn]:
    parts = turn_parts(split(voiced, settings), settings)
    return turns(parts, [""] * len(parts), voiced.frames, language=None)


def sweep_consistency(
    condition: str, found: Sequence[Voiced], recordings: Sequence[Recording], *, seed: int
) -> list[ConsistencyRow]:
    """Make a row for each share of wrong clips and each threshold."""
    speakers = [
        _by_true_speaker(_turns(voiced, DiarizationSettings()), recording.turns)
        for voiced, recording in zip(found, recordings, strict=True)
    ]
    rows = []
    for share in WRONG_SHARES:
        right, wrong = _similarities(speakers, share, np.random.default_rng(seed))
        for threshold in np.arange(0.50, 0.851, 0.025):
            lost, removed = np.mean(right < threshold), np.mean(wrong < threshold)
            rows.append(ConsistencyRow(condition, share, round(float(threshold), 3), float(lost), float(removed)))
    return rows


def _by_true_speaker(found: Sequence[Turn], truth: Sequence[TrueTurn]) -> dict[str, list[np.ndarray]]:
    """Embeddings of the turns of which at least PURE of the true speech is one speaker's."""
    clips: dict[str, list[np.ndarray]] = defaultdict(list)
    for turn in found:
        spoken: dict[str, float] = defaultdict(float)
        for true in truth:
            spoken[true.speaker] += max(0.0, min(turn.end, true.end) - max(turn.start, true.start))
        speaker = max(spoken, key=spoken.__getitem__)
        if turn.embedding is not None and spoken[speaker] > 0 and spoken[speaker] >= PURE * sum(spoken.values()):
            clips[speaker].append(turn.embedding)
    return clips


def _similarities(
    recordings: Sequence[dict[str, list[np.ndarray]]], share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return Eq. 5 of right and of wrong clips when `share` of each speaker's clips are wrong."""
    right: list[float] = []
    wrong: list[float] = []
    for clips in recordings:
        for speaker, own in clips.items():
            others = [clip for other, theirs in clips.items() if other != speaker for clip in theirs]
            count = round(len(own) * share / (1 - share))
            if len(own) < 2 or not 0 < count <= len(others):
                continue
            drawn = [others[index] for index in rng.choice(len(others), count, replace=False)]
            similarities = mean_similarity(np.stack(own + drawn))
            right.extend(similarities[: len(own)])
            wrong.extend(similarities[len(own) :])
    return np.array(right), np.array(wrong)


def embedded(diarizer: Diarizer) -> WhisperCAMPlusPlus:
    """Return the engine, whose inner steps are swept, by its class."""
    if not isinstance(diarizer, WhisperCAMPlusPlus):
        raise TypeError(f"the sweep is for the engine {WhisperCAMPlusPlus.name}, got {diarizer.name}")
    return diarizer


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.thresholds", __doc__)
    parser.add_argument("--data", type=report.absolute_path, default="data/dialogues", help=DATA_HELP)
    parser.add_argument("--half", choices=HALVES, default="dev", help="default: %(default)s")
    parser.add_argument("--limit", type=int, help="read the first N dialogues only")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of wrong clips")
    options = parser.parse_args(arguments)
    recordings = dialogues(options.data / options.half, options.limit)
    engine = embedded(load_diarizer(EMBEDDED.diarization))
    diarization: list[DiarizationRow] = []
    consistency: list[ConsistencyRow] = []
    for condition, recorded in waves(recordings, load_separator(EMBEDDED.separation)):
        found = engine.voiced(recorded)
        diarization += sweep_diarization(condition, found, recordings, SWEEPS if options.half == "dev" else DEFAULTS)
        consistency += sweep_consistency(condition, found, recordings, seed=options.seed)
    print("\n".join((*report.table(diarization), "", *report.table(consistency))))
    rows = {"diarization": [asdict(r) for r in diarization], "consistency": [asdict(r) for r in consistency]}
    report.write(options.json, {"recordings": len(recordings), "engine": engine.revision, **rows})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main()
