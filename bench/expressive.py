"""Which expressive lines the diarization of the embedded profile hears: `python -m bench.expressive`.

The exclamations of twelve game voices (Hedgewars), by what their phrase expresses, and the cries without words apart.
Per voice and class one recording: its exclamations one after the other, 0.8 to 2 s of silence before each, which no
turn bridges; clean, and taken through the separation as in a build. The truth is where a line is within 35 dB of its
loudest 20 ms.

    recall       share of the seconds of speech that a turn covers
    lines        share of the lines of which a turn covers half or more
    false alarm  seconds of turns where nobody speaks within COLLAR, per second of speech
    with events  lines and false alarm, if `diarization.events` keeps bursts that are too short for a turn
    events       share of the lines of which an event covers half or more

Half `test` has the voices that no threshold was chosen on (bench.dialogues.TEST_SPEAKERS). Intervals: 95 %, bootstrap
over recordings.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import soxr

from bench import report
from bench.corpus_quality import Figure, Parts, summarize
from bench.dialogues import HALVES, SAMPLE_RATE, TEST_SPEAKERS
from bench.flow import EMBEDDED
from bench.wide import Wide
from fsclap.corpus.diarization import load_diarizer
from fsclap.corpus.diarization.base import Diarizer
from fsclap.corpus.separation import load_separator
from fsclap.corpus.separation.base import Separator
from fsclap.corpus.turns import Turn
from harness.separation import in_memory
from samples.arguments import add_packages, packages
from samples.sources import Clip, SourceError, hedgewars
from samples.timeline import lay, level_speakers, speak, speech_mask

CLASSES = {
    "anger": (
        "Bugger Comeonthen Coward Cutitout Drat Gonnagetyou Illgetyou Justyouwait Leavemealone Nutter Revenge Sameteam "
        "Stupid Thisoneismine Traitor Watchit Youllregretthat"
    ),
    "joy": "Amazing Brilliant Enemydown Excellent Firstblood Flawless Victory Watchthis Hello",
    "fear": "Flyaway Grenade Hurry Incoming Ohdear Reinforcements Runaway Takecover",
    "disappointment": "Boring Byebye Melon Missed Oops Solong Whatthe Yessir",
    "pain, without words": "Ow1 Ow2 Ow3 Ow4 Ooff1 Ooff2 Ooff3 Ouch PoisonCough PoisonMoan",
    "laughter": "Laugh",
    "screams": "Nooo Kamikaze Uh-oh",
    "effort": "Jump1 Jump2 Jump3 Firepunch1 Firepunch2 Firepunch3 Firepunch4 Firepunch5 Firepunch6 Hmm Fire",
}
"""What a phrase expresses, by the name of its file; from "pain" on, sounds without words."""
CLASS_OF = {name: kind for kind, names in CLASSES.items() for name in names.split()}
WORDS = tuple(CLASSES)[:4]
SILENCE = (0.8, 2.0)
EVENTS = EMBEDDED.diarization.model_copy(update={"events": True})
COLLAR = 0.25
"""Seconds around speech that are no false alarm, as usual: where a line ends is a matter of the threshold."""


def recordings(root: Path, half: str, *, seed: int = 0) -> Iterator[Wide]:
    """Make one recording per voice and class of a half."""
    clips = [*hedgewars(root), *hedgewars(root, wordless=True)]
    own = [clip for clip in clips if (clip.speaker in TEST_SPEAKERS) == (half == "test")]

    def key(clip: Clip) -> tuple[str, str]:
        return clip.speaker, CLASS_OF[clip.path.stem]

    rng = np.random.default_rng([seed, HALVES.index(half)])
    for (voice, kind), some in groupby(sorted(own, key=key), key):
        spoken = [line for clip in some if (line := speak([clip], SAMPLE_RATE, rng)) is not None]
        lines = [replace(line, pauses=(rng.uniform(*SILENCE),)) for line in spoken]
        if lines:
            wave, turns = lay(level_speakers(lines, {voice: 0.0}), sample_rate=SAMPLE_RATE, tail=1.0)
            yield Wide(f"{half}-{voice}-{kind}", kind, wave, tuple(turns))


def score(recording: Wide, found: Sequence[Turn]) -> Parts:
    """All figures of one recording, by its class and for all classes with words."""
    samples = len(recording.wave)
    stretches = [(turn.start, turn.end) for turn in recording.turns]
    true = speech_mask(stretches, samples, SAMPLE_RATE)
    near = speech_mask([(start - COLLAR, end + COLLAR) for start, end in stretches], samples, SAMPLE_RATE)
    # Without the setting, the turns are the same, but for those that are shorter than `min_turn`.
    covered, with_events, events = (
        speech_mask([(turn.start, turn.end) for turn in own], samples, SAMPLE_RATE)
        for own in (
            [turn for turn in found if turn.duration >= EVENTS.min_turn],
            found,
            [turn for turn in found if turn.kind == "event"],
        )
    )
    speech = float(true.sum())
    parts = {
        "recall": (float((true & covered).sum()), speech),
        "lines": _lines(recording, covered),
        "false alarm": (float((covered & ~near).sum()), speech),
        "lines with events": _lines(recording, with_events),
        "false alarm with events": (float((with_events & ~near).sum()), speech),
        "events": _lines(recording, events),
    }
    names = [recording.condition, *(["with words"] if recording.condition in WORDS else [])]
    return {f"{name}/{figure}": part for name in names for figure, part in parts.items()}


def _lines(recording: Wide, covered: np.ndarray) -> tuple[float, float]:
    """How many lines are covered by half or more, and how many there are."""
    lines = {turn.line for turn in recording.turns}
    return float(sum(_share(recording, line, covered) >= 0.5 for line in lines)), float(len(lines))


def _share(recording: Wide, line: int, covered: np.ndarray) -> float:
    own = speech_mask(
        [(turn.start, turn.end) for turn in recording.turns if turn.line == line], len(covered), SAMPLE_RATE
    )
    return float(covered[own].mean()) if own.any() else 1.0


def measure(root: Path, separator: Separator, diarizer: Diarizer, halves: Sequence[str]) -> dict[str, Figure]:
    """Every figure of the halves, of clean and of separated recordings."""
    figures: dict[str, Figure] = {}
    for half in halves:
        parts: dict[str, list[Parts]] = {"clean": [], "separated": []}
        for recording in recordings(root, half):
            mono = soxr.resample(recording.wave, SAMPLE_RATE, separator.sample_rate)[np.newaxis]
            (vocals,) = in_memory(separator, [mono])
            separated = soxr.resample(vocals, separator.sample_rate, diarizer.sample_rate)
            clean = soxr.resample(recording.wave, SAMPLE_RATE, diarizer.sample_rate)
            for name, found in zip(parts, diarizer.diarize([clean, separated]), strict=True):
                parts[name].append(score(recording, found.turns))
        figures |= {
            f"{half}/{name}/{figure}": value for name, own in parts.items() for figure, value in summarize(own).items()
        }
    return figures


def markdown(figures: dict[str, Figure]) -> str:
    """Make the table of docs/measurements.md."""
    columns = ("recall", "lines", "false alarm", "lines with events", "false alarm with events", "events")
    lines = [f"| half | sound | class | {' | '.join(columns)} | recordings |", f"|{'---|' * (len(columns) + 4)}"]
    for name in dict.fromkeys(name.rpartition("/")[0] for name in figures):
        own = [figures[f"{name}/{figure}"] for figure in columns]
        cells = [*name.split("/"), *(f"{one.value:.2f} ({one.low:.2f} to {one.high:.2f})" for one in own)]
        lines.append(f"| {' | '.join([*cells, str(own[0].items)])} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.expressive", __doc__)
    add_packages(parser)
    parser.add_argument("--half", choices=HALVES, action="append", help="default: both")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        root = packages(options)
        figures = measure(root, load_separator(EMBEDDED.separation), load_diarizer(EVENTS), options.half or HALVES)
    except SourceError as error:
        parser.exit(1, f"error: {error}\n")
    print(markdown(figures))
    report.write(options.json, {"figures": {name: asdict(figure) for name, figure in figures.items()}})


if __name__ == "__main__":
    main()
