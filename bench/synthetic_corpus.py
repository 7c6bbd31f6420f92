"""Make speech with a known style: `python -m bench.synthetic_corpus`.

No figure mixes it with real speech.

    python -m bench.synthetic_corpus [--out data/synthetic] [--packages DIR] [--model
    data/ablation/FU+SE+HN-0]

Takes sentences of one reader (samples.sources), and has WORLD (Morise et al. 2016) say each in
several ways: pitch, pitch range, rate and level are changed by known factors, everything else
stays. The clips go through `build-dataset` like any recording. Two questions are answered:

1. Does the pipeline measure what was put in? For each control, the words of the captions against
   the direction in which the clip was changed.
2. Does a model that was trained on real speech find these clips? Its retrieval figures, on this set
alone.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyworld
import soundfile

from bench import report
from bench.style_corpus import run_flow
from fsclap.corpus.captioning.base import CaptioningSettings
from fsclap.corpus.settings import BuildSettings
from samples.arguments import add_packages, packages
from samples.sources import Clip, SourceError, all_clips, load
from storage.corpus import Corpus

log = logging.getLogger(__name__)

RATE = 24_000
READERS = ("asterisk/allison",)
LINE_SECONDS = (2.0, 7.0)
VARIANTS = 5
LINES = 12
"""Lines of an episode, with a second of silence between."""
FACTORS = {
    "pitch": (0.7, 1.0, 1.4),
    "pitch_range": (0.25, 1.0, 2.0),
    "speaking_rate": (0.7, 1.0, 1.4),
    "energy": (10 ** (-8 / 20), 1.0, 10 ** (8 / 20)),
}
"""Control -> factors for less, unchanged, more. The range scales log F0 around its mean."""
LESS = {
    "pitch": {"very low", "low"},
    "pitch_range": {"monotone", "narrow"},
    "speaking_rate": {"very slow", "slow"},
    "energy": {"hushed", "soft"},
}
MORE = {
    "pitch": {"high", "very high"},
    "pitch_range": {"lively", "sweeping"},
    "speaking_rate": {"fast", "very fast"},
    "energy": {"loud", "very loud"},
}


@dataclass(frozen=True, slots=True)
class Line:
    """One synthesised line: where it is, and -1, 0 or 1 for each control."""

    episode: str
    start: float
    end: float
    controls: dict[str, int]


def resynthesize(wave: np.ndarray, controls: dict[str, int]) -> np.ndarray:
    """Say a line another way.

    Args:
        wave: (samples,) floating point at RATE.
        controls: -1, 0 or 1 for each of FACTORS.
    """
    factor = {name: FACTORS[name][step + 1] for name, step in controls.items()}
    wave = wave.astype(np.float64)
    coarse, times = pyworld.dio(wave, RATE)
    f0 = pyworld.stonemask(wave, coarse, times, RATE)
    envelope, noise = pyworld.cheaptrick(wave, f0, times, RATE), pyworld.d4c(wave, f0, times, RATE)
    voiced = f0 > 0
    if voiced.any():
        mean = np.log(f0[voiced]).mean()
        f0[voiced] = np.exp(mean + factor["pitch_range"] * (np.log(f0[voiced]) - mean)) * factor["pitch"]
    frames = np.clip(np.arange(0, len(f0), factor["speaking_rate"]).astype(int), 0, len(f0) - 1)
    spoken = pyworld.synthesize(f0[frames], *(np.ascontiguousarray(x[frames]) for x in (envelope, noise)), RATE)
    said: np.ndarray = factor["energy"] * spoken
    return said


def write_episodes(root: Path, out: Path, *, seed: int = 0) -> list[Line]:
    """Write episodes of LINES lines to `out`/synthetic, and their controls to `out`/truth.json."""
    rng = np.random.default_rng(seed)
    clips = [c for c in all_clips(root) if c.speaker in READERS and LINE_SECONDS[0] <= c.seconds <= LINE_SECONDS[1]]
    order = [clips[i] for _ in range(VARIANTS) for i in rng.permutation(len(clips))]
    lines: list[Line] = []
    for number in range(0, len(order), LINES):
        lines += _write_episode(order[number : number + LINES], out, f"s{number // LINES:03d}", rng)
    (out / "truth.json").write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")
    return lines


def _write_episode(clips: Sequence[Clip], out: Path, name: str, rng: np.random.Generator) -> list[Line]:
    pieces, lines, position = [np.zeros(RATE // 2)], [], RATE // 2
    for clip in clips:
        controls = {control: int(rng.integers(-1, 2)) for control in FACTORS}
        wave = load(clip.path, RATE)
        # -26 dBFS before the control, so that the loudest stays below full scale
        wave = resynthesize(wave * 0.05 / max(float(np.sqrt(np.mean(np.square(wave)))), 1e-6), controls)
        lines.append(Line(name, position / RATE, (position + len(wave)) / RATE, controls))
        pieces += [wave, np.zeros(RATE)]
        position += len(wave) + RATE
    (out / "synthetic").mkdir(parents=True, exist_ok=True)
    soundfile.write(out / "synthetic" / f"{name}.flac", np.clip(np.concatenate(pieces), -1, 1), RATE)
    return lines


def heard(corpus: Corpus, lines: Sequence[Line]) -> dict[str, Any]:
    """How often the caption's word for a control goes the way that the clip was changed.

    Returns: For each control: clips changed; share whose word goes the same way, goes the other
        way, or is missing.
    """
    rows = corpus.utterances(columns=["episode", "start", "end", "style"]).to_pylist()
    counts = {name: {"same": 0, "other": 0, "silent": 0} for name in FACTORS}
    for row in rows:
        line = _line_of(row, lines)
        style = {entry["attribute"]: entry["word"] for entry in row["style"]}
        for name in FACTORS if line else ():
            assert line is not None
            if line.controls[name]:
                counts[name][_verdict(name, style.get(name), line.controls[name])] += 1
    found: dict[str, Any] = {"utterances": len(rows)}
    for name, count in counts.items():
        total = max(1, sum(count.values()))
        found[name] = {"clips": sum(count.values())} | {key: round(value / total, 3) for key, value in count.items()}
    return found


def _verdict(name: str, word: str | None, step: int) -> str:
    direction = -1 if word in LESS[name] else 1 if word in MORE[name] else 0
    return "silent" if direction == 0 else "same" if direction == step else "other"


def _line_of(row: dict[str, Any], lines: Sequence[Line]) -> Line | None:
    """Find the line that holds four fifths of an utterance; None if it spans two."""
    for line in lines:
        overlap = min(row["end"], line.end) - max(row["start"], line.start)
        if line.episode == row["episode"] and overlap >= 0.8 * (row["end"] - row["start"]):
            return line
    return None


def retrieval(corpus: Corpus, model: Path, out: Path) -> dict[str, Any]:
    """mAP@10 of a trained model on this set, in pools of 200, both modes."""
    from fsclap.data.clips import ClipStore
    from fsclap.data.splits import Split, SplitSettings
    from fsclap.evaluation.run import evaluate_model

    version = corpus.version()
    batches = corpus.dataset(version=version).to_batches(batch_size=256)
    clips = ClipStore.create(out / "clips", batches, key=str(version), progress=False)
    ids = sorted(clips.rows)
    everything = Split(
        settings=SplitSettings(), train=[], validation=[], test=ids, removed={}, voices=[],
        nearest={"validation": None, "test": None},
    )  # fmt: skip
    found = evaluate_model(
        model, clips, everything, "test", cache=out / "features", corpus="synthetic", version=version
    ).evaluation
    return {
        f"{row.mode} mAP@10 of {row.pool}": row.metrics["mAP@10"].model_dump() | {"chance": row.chance["mAP@10"]}
        for row in found.retrieval
        if row.direction == "mean"
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.synthetic_corpus", __doc__)
    parser.add_argument("--out", type=report.absolute_path, default="data/synthetic", help="default: %(default)s")
    add_packages(parser)
    parser.add_argument("--bins", type=report.absolute_path, help="caption bins, for instance data/style/bins.json")
    parser.add_argument("--model", type=report.absolute_path, help="a trained model to search with")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        lines = write_episodes(packages(options), options.out)
    except SourceError as error:
        parser.exit(1, f"error: {error}\n")
    settings = BuildSettings(captioning=CaptioningSettings(bins=options.bins))
    run_flow([str(options.out / "synthetic")], options.out, settings)
    corpus = Corpus.open(str(options.out / "corpus"))
    figures: dict[str, Any] = {"lines": len(lines), "heard": heard(corpus, lines)}
    if options.model:
        figures["retrieval"] = retrieval(corpus, options.model, options.out)
    print(json.dumps(figures, indent=1))
    report.write(options.json or options.out / "summary.json", figures)


if __name__ == "__main__":
    main()
