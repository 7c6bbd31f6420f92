"""How much speech a training needs, and which of its weights to keep: on speakers never seen.

    python -m bench.style_corpus                    the corpus, once
    python -m bench.learning_curves [--clips 100 300 1000] [--seeds 5] [--keep last best]

Each training has N clips of the training part, drawn by the seed, and N / 8 clips to validate on, as a corpus of
that size would have. The test part is always the whole one. `start` is where the weights come from: random ones
(none), or the starter model. With `keep` = best, those of the best epoch on validation are tested, with last, those of
the last epoch. Figures are those of bench.ablation: mAP@10 in pools of 200, mean of both directions, and its mean and
standard deviation over seeds. Chance is 1.5 %. A training that is finished is not repeated.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np

from bench import report
from bench.ablation import BUDGET, POOL, clip_figures, style_settings
from fsclap.data.clips import ClipStore
from fsclap.data.splits import Split, make_split
from fsclap.evaluation.metrics import one_vector_a_caption
from fsclap.evaluation.run import evaluate_model
from fsclap.training.loop import train
from fsclap.training.settings import TrainSettings
from storage.corpus import Corpus
from storage.rows import CorpusError

VALIDATION = 8
"""One clip to validate on for so many to train on."""


@dataclass(frozen=True)
class Point:
    """One point of a curve.

    Attributes:
        start: Weights to start from: none or starter.
        keep: Weights that were tested: last or best.
        clips: Clips of the training part.
        map10, deviation: mAP@10 of the test part in percent: mean and standard deviation over seeds.
        seeds: Figure of each seed.
        epochs: Epoch kept, by seed; 0 is the start itself.
    """

    start: str
    keep: str
    clips: int
    map10: float
    deviation: float
    seeds: list[float]
    epochs: list[int]


def part_of(split: Split, clips: int, seed: int) -> Split:
    """Keep `clips` of the training part and as large a part of validation as such a corpus has."""
    rng = np.random.default_rng(seed)
    train_ids = sorted(rng.permutation(split.train)[:clips].tolist())
    return split.model_copy(
        update={"train": train_ids, "validation": sorted(rng.permutation(split.validation)[: clips // VALIDATION])}
    )


class Study:
    """Trainings on parts of one corpus, in one folder."""

    def __init__(self, style: Path, out: Path) -> None:
        corpus = Corpus.open(str(style / "corpus"))
        self.version, self.out = corpus.version(), out
        batches = corpus.dataset(version=self.version).to_batches(batch_size=256)
        self.clips = ClipStore.create(out / "clips", batches, key=str(self.version))
        self.split = make_split(self.clips.table, style_settings())

    def point(self, start: str, keep: str, clips: int, seeds: int) -> Point:
        found = [self._tested(start, keep, clips, seed) for seed in range(seeds)]
        values = [value for value, _ in found]
        mean, deviation = float(np.mean(values)), float(np.std(values, ddof=seeds > 1))
        return Point(start, keep, clips, round(mean, 2), round(deviation, 2), values, [epoch for _, epoch in found])

    def _tested(self, start: str, keep: str, clips: int, seed: int) -> tuple[float, int]:
        folder = self.out / f"{start}-{keep}-{clips}-{seed}"
        file = folder / "figure.json"
        if not file.is_file():
            changes = {"init": start, "keep": keep, "head_lr": 5e-4 if start == "starter" else BUDGET["head_lr"]}
            settings = TrainSettings(seed=seed, **(BUDGET | changes))
            part, cache = part_of(self.split, clips, seed), self.out / "features"
            trained = train(self.clips, part, settings, folder, cache=cache, version=self.version, progress=False)
            found = evaluate_model(folder, self.clips, part, "test", cache=cache, corpus="style", version=self.version)
            text = one_vector_a_caption(found.vectors.text, found.vectors.captions)
            figure = round(100 * float(clip_figures(found.vectors.audio, text).mean()), 2)
            file.write_text(json.dumps([figure, trained.best_epoch]), encoding="utf-8")
        figure, epoch = json.loads(file.read_text(encoding="utf-8"))
        return figure, epoch


def curves(study: Study, sizes: Sequence[int], keeps: Sequence[str], seeds: int) -> Iterator[Point]:
    whole = len(study.split.train)
    for start, keep, clips in product(("none", "starter"), keeps, sorted({min(size, whole) for size in sizes})):
        yield study.point(start, keep, clips, seeds)


def markdown(points: Sequence[Point]) -> str:
    """Make the table of docs/results.md."""
    sizes = sorted({point.clips for point in points})
    lines = [f"| start | kept | {' | '.join(f'{size} clips' for size in sizes)} |", "|---|---|" + "---|" * len(sizes)]
    for start, keep in dict.fromkeys((point.start, point.keep) for point in points):
        row = {point.clips: point for point in points if (point.start, point.keep) == (start, keep)}
        cells = [start, keep, *(f"{row[size].map10:.1f} ± {row[size].deviation:.1f}" for size in sizes)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.learning_curves", __doc__)
    parser.add_argument("--style", type=report.absolute_path, default="data/style")
    parser.add_argument("--out", type=report.absolute_path, default="data/learning_curves")
    parser.add_argument("--clips", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--keep", nargs="+", choices=("last", "best"), default=["last", "best"])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        study = Study(options.style, options.out)
    except CorpusError as error:
        parser.exit(1, f"error: {error}; `python -m bench.style_corpus` makes it\n")
    points = []
    for point in curves(study, options.clips, options.keep, options.seeds):
        points.append(point)
        print(point, flush=True)
    figures = {"points": [asdict(point) for point in points], "pool": POOL, "budget": BUDGET}
    report.write(options.json or options.out / "learning_curves.json", figures)
    print(f"\n{markdown(points)}")


if __name__ == "__main__":
    main()
