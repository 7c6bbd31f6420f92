"""Sweep the thresholds of the embedded diarization on the dev half: `python -m bench.thresholds`.

On clean speech and on vocals separated from music at 5 dB: DER, its parts, and the share of recordings
with the right number of speakers, for values of one setting with the others at their defaults. With
`--half test` only the defaults are scored, so that the test half stays a test.

Speech is detected and embedded once; the settings that are swept apply after that.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import soundfile
import soxr

from bench import report
from bench.corpus_quality import DATA_HELP, Parts, Recording, dialogues, diarization_errors, summarize
from bench.dialogues import HALVES, SAMPLE_RATE, STEM_SNR_DB, mix
from bench.flow import EMBEDDED
from fsclap.corpus.diarization import load_diarizer
from fsclap.corpus.diarization.base import DiarizationSettings, Diarizer, WhisperCAMPlusPlusSettings
from fsclap.corpus.diarization.recogniser import NO_WORDS
from fsclap.corpus.diarization.whisper_campplus import RATE, Voiced, WhisperCAMPlusPlus, split, turn_parts, turns
from fsclap.corpus.separation import load_separator
from fsclap.corpus.separation.base import Separator
from fsclap.corpus.turns import Turn
from harness.separation import in_memory

log = logging.getLogger(__name__)

SWEEPS: dict[str, tuple[float, ...]] = {
    "one_speaker": (0.2, 0.4, 0.6, 0.8, 1.0),
    "min_speaker": (0.0, 2.0, 3.0, 4.0, 6.0),
}
DEFAULTS = {"one_speaker": (WhisperCAMPlusPlusSettings().one_speaker,)}


@dataclass(frozen=True, slots=True)
class DiarizationRow:
    """One value of one setting in one condition; the DER with its 95 % interval."""

    condition: str
    setting: str
    value: float
    der: float
    der_low: float
    der_high: float
    miss: float
    false_alarm: float
    confusion: float
    speakers_right: float


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
            figures = summarize(
                [_errors(voiced, recording, settings) for voiced, recording in zip(found, recordings, strict=True)]
            )
            der, others = figures["der"], ("miss", "false_alarm", "confusion", "speakers_right")
            values_of_row = (der.value, der.low, der.high, *(figures[name].value for name in others))
            rows.append(DiarizationRow(condition, setting, value, *values_of_row))
    return rows


def _errors(voiced: Voiced, recording: Recording, settings: DiarizationSettings) -> Parts:
    found = diarized(voiced, settings)
    right = len({turn.speaker for turn in found}) == len({turn.speaker for turn in recording.turns})
    errors = diarization_errors(recording.turns, found, len(voiced.wave) / RATE)
    return errors | {"speakers_right": (float(right), 1.0)}


def diarized(voiced: Voiced, settings: DiarizationSettings) -> list[Turn]:
    """Make the turns of a recording, without words."""
    parts, _ = turn_parts(split(voiced, settings), voiced.wave, settings)
    return turns(parts, [NO_WORDS] * len(parts), voiced.frames, settings)


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
    options = parser.parse_args(arguments)
    recordings = dialogues(options.data / options.half, options.limit)
    engine = embedded(load_diarizer(EMBEDDED.diarization))
    rows: list[DiarizationRow] = []
    for condition, recorded in waves(recordings, load_separator(EMBEDDED.separation)):
        found = engine.voiced(recorded)
        rows += sweep_diarization(condition, found, recordings, SWEEPS if options.half == "dev" else DEFAULTS)
    print("\n".join(report.table(rows)))
    content = {"recordings": len(recordings), "engine": engine.revision, "diarization": [asdict(row) for row in rows]}
    report.write(options.json, content)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main()
