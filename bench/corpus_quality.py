"""Score the corpus stages against the truth: `python -m bench.corpus_quality [--json FILE]`.

Figures are named `{half}/{condition}/{figure}`. Halves are the `dev` and `test` dialogues of
bench.dialogues and the `samples` episodes. Conditions:

    clean          speech alone
    mixed          with music: dialogues at a speech-to-music ratio of 5 dB, episodes as they are
    separated      the same after vocal separation, which is what a corpus is built from
    0db, 5db       separation alone, on stretches of 12 s

Figures:

    der, miss, false_alarm, confusion    share of the true speech time, no collar
    der_collar_250ms      the same with 250 ms around every true boundary left out
    speakers_right        share of recordings whose number of speakers is right
    wer                   word error rate where the English words are known, both normalised as for
                          Whisper
    pure_found, pure_kept share of clips before and after the filter with at least 90 % of their true
                          speech from one speaker; a clip without true speech is impure
    kept, kept_seconds    share of the clips, and of their time, that the filter keeps
    si_sdr_in, si_sdr_out, si_sdr_gain   dB (Le Roux et al. 2019)

Every figure is a ratio of sums over recordings, with a 95 % bootstrap interval over recordings.
"""

import itertools
import json
import logging
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jiwer
import numpy as np
import soundfile
import soxr
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from bench import report
from bench.dialogues import HALVES, SAMPLE_RATE, STEM_SNR_DB, mix
from bench.flow import EMBEDDED, SAMPLES
from fsclap.corpus.diarization import load_diarizer
from fsclap.corpus.diarization.base import Diarizer
from fsclap.corpus.filtering.consistency import ConsistencySettings, judge
from fsclap.corpus.separation import load_separator
from fsclap.corpus.separation.base import Separator
from fsclap.corpus.turns import NOISE, Turn
from fsclap.media import DecodeSettings, decode
from harness.separation import in_memory
from samples.timeline import TrueTurn, at_ratio, speech_mask

log = logging.getLogger(__name__)

PURE = 0.9
STRETCH = 12
"""Seconds of a stretch on which separation is scored."""
LEAST_SPEECH = 0.6
"""Share of a stretch that has to be speech."""
STRETCHES = 2
"""Stretches of a dialogue."""
SNRS_DB = (0.0, 5.0)
RESAMPLINGS = 2000
DATA_HELP = "folder that bench.dialogues wrote (default: %(default)s)"
NORMALIZE = EnglishTextNormalizer({})

Parts = dict[str, tuple[float, float]]
"""What one recording adds to each figure: numerator and denominator."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Something to score: a dialogue's folder or an episode's file."""

    name: str
    path: Path
    turns: tuple[TrueTurn, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A ratio of sums with its 95 % interval over `items` recordings."""

    value: float
    low: float
    high: float
    items: int


@dataclass(frozen=True, slots=True)
class Engines:
    """What is being scored."""

    separator: Separator
    diarizer: Diarizer
    consistency: ConsistencySettings


def dialogues(folder: Path, limit: int | None) -> list[Recording]:
    """Read the dialogues of one half, in order.

    Raises:
        FileNotFoundError: There are none.
    """
    found = sorted(folder.glob("*/truth.json"))[:limit]
    if not found:
        raise FileNotFoundError(
            f"no dialogues in {folder}: make them with `python -m bench.dialogues --out {folder.parent}`"
        )
    return [
        Recording(path.parent.name, path.parent, _turns(json.loads(path.read_text(encoding="utf-8"))["turns"]))
        for path in found
    ]


def episodes(folder: Path, limit: int | None) -> list[Recording]:
    """Read the truth of the sample episodes, in order."""
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    entries = [entry for series in truth["series"] for entry in series["episodes"]][:limit]
    return [Recording(entry["file"], folder / entry["file"], _turns(entry["turns"])) for entry in entries]


def _turns(entries: Sequence[dict]) -> tuple[TrueTurn, ...]:
    return tuple(TrueTurn(**entry) for entry in entries)


def score_dialogue(recording: Recording, engines: Engines) -> Parts:
    """All figures of one dialogue, as `{condition}/{figure}`."""
    clean, music = (_read(recording.path / f"{name}.flac") for name in ("clean", "music"))
    mixed = mix(clean, music, STEM_SNR_DB)
    parts: Parts = {}
    for condition, wave in (("clean", clean), ("mixed", mixed), ("separated", _separate(mixed, engines))):
        parts |= _prefixed(condition, score_turns(recording.turns, _diarize(wave, engines), len(wave), engines))
    return parts | _score_separation(recording.turns, clean, music, engines)


def score_episode(recording: Recording, engines: Engines) -> Parts:
    """All figures of one episode, decoded as the pipeline decodes it."""
    with tempfile.TemporaryDirectory() as folder:
        stereo = decode(recording.path, Path(folder) / "wave", sample_rate=SAMPLE_RATE, settings=DecodeSettings())
        mixed = np.array(stereo.mean(axis=0), dtype=np.float32)
        del stereo
    parts: Parts = {}
    for condition, wave in (("mixed", mixed), ("separated", _separate(mixed, engines))):
        parts |= _prefixed(condition, score_turns(recording.turns, _diarize(wave, engines), len(wave), engines))
    return parts


def _read(path: Path) -> np.ndarray:
    wave, rate = soundfile.read(path, dtype="float32")
    if rate != SAMPLE_RATE:
        raise ValueError(f"{path} is at {rate} Hz, not {SAMPLE_RATE}: make the dialogues again")
    return wave


def _separate(wave: np.ndarray, engines: Engines) -> np.ndarray:
    """Separate (samples,) at SAMPLE_RATE into vocals of the same shape and rate."""
    rate = engines.separator.sample_rate
    (vocals,) = in_memory(engines.separator, [soxr.resample(wave, SAMPLE_RATE, rate)[np.newaxis]])
    return soxr.resample(vocals, rate, SAMPLE_RATE)


def _diarize(wave: np.ndarray, engines: Engines) -> list[Turn]:
    (found,) = engines.diarizer.diarize([soxr.resample(wave, SAMPLE_RATE, engines.diarizer.sample_rate)])
    return found.turns


def _prefixed(prefix: str, parts: Parts) -> Parts:
    return {f"{prefix}/{name}": part for name, part in parts.items()}


def score_turns(truth: Sequence[TrueTurn], found: Sequence[Turn], samples: int, engines: Engines) -> Parts:
    """Score diarization, recognition and the filter on a recording of `samples` at SAMPLE_RATE."""
    verdicts = judge(found, engines.consistency, engine=engines.diarizer.name)
    kept = [verdict.kept for verdict in verdicts]
    speakers = len({turn.speaker for turn in found if turn.speaker != NOISE})
    right = speakers == len({turn.speaker for turn in truth})
    return (
        diarization_errors(truth, found, samples / SAMPLE_RATE)
        | {"speakers_right": (float(right), 1.0)}
        | word_errors(truth, found)
        | filter_quality(truth, found, kept)
    )


def diarization_errors(truth: Sequence[TrueTurn], found: Sequence[Turn], seconds: float) -> Parts:
    """DER and its parts over `seconds` of recording."""
    reference, hypothesis = _annotation(truth), _annotation(found)
    extent = Timeline([Segment(0, seconds)])
    exact = DiarizationErrorRate(collar=0.0)(reference, hypothesis, uem=extent, detailed=True)
    # pyannote's collar is the whole width around a boundary, NIST's 250 ms are on each side
    loose = DiarizationErrorRate(collar=0.5)(reference, hypothesis, uem=extent, detailed=True)
    names = {"miss": "missed detection", "false_alarm": "false alarm", "confusion": "confusion"}
    parts = {name: (exact[key], exact["total"]) for name, key in names.items()}
    return parts | {
        "der": (sum(exact[key] for key in names.values()), exact["total"]),
        "der_collar_250ms": (sum(loose[key] for key in names.values()), loose["total"]),
    }


def _annotation(turns: Sequence[TrueTurn | Turn]) -> Annotation:
    annotation = Annotation()
    for index, turn in enumerate(turns):
        annotation[Segment(turn.start, turn.end), index] = str(turn.speaker)
    return annotation


def word_errors(truth: Sequence[TrueTurn], found: Sequence[Turn]) -> Parts:
    """Count word errors over stretches of one speaker whose words are known and English.

    Every found turn belongs to the stretch it overlaps longest, so that the words of a neighbour
    are errors.
    """
    stretches = [list(group) for _, group in itertools.groupby(truth, key=lambda turn: turn.speaker)]
    heard: list[list[str]] = [[] for _ in stretches]
    for turn in found:
        overlaps = [sum(_overlap(turn, true) for true in stretch) for stretch in stretches]
        if max(overlaps) > 0:
            heard[int(np.argmax(overlaps))].append(turn.text)
    pairs = [
        (NORMALIZE(" ".join(turn.text or "" for turn in stretch)), NORMALIZE(" ".join(texts)))
        for stretch, texts in zip(stretches, heard, strict=True)
        if all(turn.text is not None and turn.language == "en" for turn in stretch)
    ]
    if not pairs:
        return {}
    result = jiwer.process_words([true for true, _ in pairs], [guess for _, guess in pairs])
    errors = result.substitutions + result.deletions + result.insertions
    return {"wer": (float(errors), float(sum(len(true.split()) for true, _ in pairs)))}


def _overlap(a: Turn | TrueTurn, b: Turn | TrueTurn) -> float:
    return max(0.0, min(a.end, b.end) - max(a.start, b.start))


def filter_quality(truth: Sequence[TrueTurn], found: Sequence[Turn], kept: Sequence[bool]) -> Parts:
    """How pure the clips are before and after the filter, and how many it keeps."""
    pure = [purity(turn, truth) >= PURE for turn in found]
    pure_kept = [p for p, k in zip(pure, kept, strict=True) if k]
    seconds = [turn.duration for turn in found]
    seconds_kept = sum(s for s, k in zip(seconds, kept, strict=True) if k)
    return {
        "pure_found": (float(sum(pure)), float(len(pure))),
        "pure_kept": (float(sum(pure_kept)), float(len(pure_kept))),
        "kept": (float(sum(kept)), float(len(kept))),
        "kept_seconds": (seconds_kept, sum(seconds)),
    }


def purity(turn: Turn, truth: Sequence[TrueTurn]) -> float:
    """Largest share of one speaker in the true speech within a clip; 0 if there is no speech."""
    by_speaker: dict[str, float] = defaultdict(float)
    for true in truth:
        by_speaker[true.speaker] += _overlap(turn, true)
    total = sum(by_speaker.values())
    return max(by_speaker.values()) / total if total > 0 else 0.0


def _score_separation(truth: Sequence[TrueTurn], clean: np.ndarray, music: np.ndarray, engines: Engines) -> Parts:
    mask = speech_mask([(turn.start, turn.end) for turn in truth], len(clean), SAMPLE_RATE)
    parts: Parts = {}
    for snr in SNRS_DB:
        before, after = [], []
        for part in _stretches(mask):
            mixture = clean[part] + at_ratio(music[part], clean[part], mask=mask[part], snr_db=snr)
            before.append(si_sdr(mixture, clean[part]))
            after.append(si_sdr(_separate(mixture, engines), clean[part]))
        count = float(len(before))
        gains = np.subtract(after, before)
        values = {"si_sdr_in": before, "si_sdr_out": after, "si_sdr_gain": gains}
        parts |= {f"{snr:.0f}db/{name}": (float(np.sum(value)), count) for name, value in values.items()}
    return parts


def _stretches(mask: np.ndarray) -> list[slice]:
    """Choose the STRETCHES adjacent stretches with most speech, each with LEAST_SPEECH or more."""
    size = STRETCH * SAMPLE_RATE
    starts = range(0, len(mask) - size + 1, size)
    shares = {start: float(mask[start : start + size].mean()) for start in starts}
    best = sorted((s for s in starts if shares[s] >= LEAST_SPEECH), key=lambda s: -shares[s])[:STRETCHES]
    return [slice(start, start + size) for start in sorted(best)]


def si_sdr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019, Eq. 4).

    10 log10(|a s|^2 / |a s - e|^2) with a = <e, s> / |s|^2; both (samples,), their means taken out.
    """
    s = np.asarray(reference, dtype=np.float64) - np.mean(reference, dtype=np.float64)
    e = np.asarray(estimate, dtype=np.float64) - np.mean(estimate, dtype=np.float64)
    target = (e @ s) / (s @ s) * s
    return float(10 * np.log10((target @ target) / ((target - e) @ (target - e))))


def summarize(parts: Sequence[Parts], *, seed: int = 0) -> dict[str, Figure]:
    """Make ratios of sums over recordings, with percentiles 2.5 and 97.5 of resamplings."""
    figures = {}
    for name in sorted({name for part in parts for name in part}):
        pairs = np.array([part[name] for part in parts if name in part])
        rng = np.random.default_rng(seed)
        drawn = pairs[rng.integers(len(pairs), size=(RESAMPLINGS, len(pairs)))].sum(axis=1)
        ratios = drawn[:, 0] / np.maximum(drawn[:, 1], 1e-12)
        low, high = np.percentile(ratios, [2.5, 97.5])
        value = pairs[:, 0].sum() / max(pairs[:, 1].sum(), 1e-12)
        figures[name] = Figure(float(value), float(low), float(high), len(pairs))
    return figures


def measure(data: Path, samples: Path, engines: Engines, *, limit: int | None) -> dict[str, Figure]:
    """Every figure of both halves and of the samples."""
    figures: dict[str, Figure] = {}
    for half in HALVES:
        parts = []
        for recording in dialogues(data / half, limit):
            parts.append(score_dialogue(recording, engines))
            log.info("%s scored", recording.name)
        figures |= {f"{half}/{name}": figure for name, figure in summarize(parts).items()}
    parts = [score_episode(recording, engines) for recording in episodes(samples, limit)]
    return figures | {f"samples/{name}": figure for name, figure in summarize(parts).items()}


def lines(figures: dict[str, Figure]) -> Iterator[str]:
    """One line per figure."""
    width = max(map(len, figures))
    yield f"{'figure':{width}}    value  95 % interval      n"
    for name, figure in figures.items():
        yield f"{name:{width}}  {figure.value:7.3f}  {figure.low:7.3f} {figure.high:7.3f}  {figure.items:3d}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.corpus_quality", __doc__)
    parser.add_argument("--data", type=report.absolute_path, default="data/dialogues", help=DATA_HELP)
    parser.add_argument(
        "--samples", type=report.absolute_path, default=str(SAMPLES), help="default: the samples of the project"
    )
    parser.add_argument("--limit", type=int, help="recordings of each half; default: all")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    separation, diarization = EMBEDDED.separation, EMBEDDED.diarization
    engines = Engines(load_separator(separation), load_diarizer(diarization), ConsistencySettings())
    try:
        figures = measure(options.data, options.samples, engines, limit=options.limit)
    except FileNotFoundError as error:
        parser.exit(1, f"error: {error}\n")
    print("\n".join(lines(figures)))
    settings = [separation.model_dump(), diarization.model_dump(), engines.consistency.model_dump()]
    content = {
        "settings": dict(zip(("separation", "diarization", "consistency"), settings, strict=True)),
        "revisions": {"separation": engines.separator.revision, "diarization": engines.diarizer.revision},
        "figures": {name: asdict(figure) for name, figure in figures.items()},
    }
    report.write(options.json, content)


if __name__ == "__main__":
    main()
