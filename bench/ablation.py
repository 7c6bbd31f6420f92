"""Table 3 of the paper on speakers never seen: six rows, three seeds each, with intervals.

    python -m bench.style_corpus          the corpus, once
    python -m bench.ablation [--style data/style] [--out data/ablation] [--rows NAME ...] [--batch 96]

Every row has the same clips, texts, split and budget, and keeps its last weights. Figures are of the
test part: mAP@10 and R@1 of single-positive retrieval, mean of both directions, in pools of 200 and
in the whole part. The interval is a 95 % bootstrap over clips of mAP@10 in pools of 200, averaged
over pools and seeds; the difference from the base row is paired by clip. "Everyday queries" is the
mean directed percentile of searches that no training saw (fsclap.evaluation.natural). A run that is
finished is not repeated. Another batch has as many steps, hence other epochs; give it an --out of its own.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import report
from fsclap.comparison.settings import BUDGET as BUDGETS
from fsclap.data.clips import ClipStore
from fsclap.data.splits import Split, SplitSettings, make_split
from fsclap.evaluation.metrics import clip_map10, one_vector_a_caption
from fsclap.evaluation.protocol import difference, interval
from fsclap.evaluation.results import Evaluation, Interval
from fsclap.evaluation.run import evaluate_model
from fsclap.model.settings import LossResearch, LossSettings, ModelSettings
from fsclap.training.loop import train
from fsclap.training.settings import TextSettings, TrainSettings
from storage.corpus import Corpus
from storage.rows import CorpusError

log = logging.getLogger(__name__)

INFO_NCE, HARD_NEGATIVES = LossSettings(gamma=0.0), LossSettings()
GLOBAL: dict[str, Any] = {"fusion": "none", "separation": False, "pooling": "mean"}
FULL: dict[str, Any] = {"fusion": "shared"}
ROWS: dict[str, tuple[dict[str, Any], LossSettings]] = {
    "base": (GLOBAL, INFO_NCE),
    "FU": ({"fusion": "shared", "separation": False}, INFO_NCE),
    "SE": ({"fusion": "none", "separation": True}, INFO_NCE),
    "HN": (GLOBAL, HARD_NEGATIVES),
    "FU+SE": (FULL, INFO_NCE),
    "FU+SE+HN": (FULL, HARD_NEGATIVES),
}
"""The rows of Table 3: parts of the model, and the loss. Only base and HN pool by the mean."""
STUDIES: dict[str, tuple[dict[str, Any], LossSettings]] = {
    "base, attention pooling": ({**GLOBAL, "pooling": "attention"}, INFO_NCE),
    "FU, mean pooling": ({"fusion": "shared", "separation": False, "pooling": "mean"}, INFO_NCE),
    "base, no functionals": ({**GLOBAL, "functionals": "none"}, INFO_NCE),
    "FU+SE+HN, no functionals": ({**FULL, "functionals": "none"}, HARD_NEGATIVES),
    "SE+HN": ({}, HARD_NEGATIVES),
    "SE+HN, no functionals": ({"functionals": "none"}, HARD_NEGATIVES),
    "SE+HN, of the clip": ({"functionals": "clip"}, HARD_NEGATIVES),
    "SE+HN, captions alone": ({}, HARD_NEGATIVES),
    "SE+HN, from the starter": ({}, HARD_NEGATIVES),
    "rerank": ({**FULL, "rerank": True}, HARD_NEGATIVES),
    "base, speech tokens": ({**GLOBAL, "speech_tokens": True}, INFO_NCE),
    "FU+SE+HN, speech tokens": ({**FULL, "speech_tokens": True}, HARD_NEGATIVES),
    "Eq. 3": (FULL, LossSettings(research=LossResearch(regularization="sample"))),
    "gradient through weights": (FULL, LossSettings(research=LossResearch(detach_weights=False))),
}
TRAINING: dict[str, dict[str, Any]] = {
    "SE+HN, captions alone": {"texts": TextSettings(query_share=0)},
    "SE+HN, from the starter": {"init": "starter", "head_lr": 5e-4},
}
"""What a row's training does otherwise."""
"""A row with one thing changed. rerank adds the matching head, whose figures are shown apart."""

BUDGET = BUDGETS["embedded"]
"""The same for all rows, from random weights. The paper's 10 epochs at 1e-4 fine-tune a CLAP on 10^5
clips; here all but the encoders is new."""
METRICS = ("mAP@10", "R@1")
COLLAPSE = ("uniformity", "effective_rank", "mean_cosine")
POOL, DRAWS = 200, 200
"""Clips to a pool, as small as the paper's; and pools that a clip's figure is averaged over."""


def style_settings(**others: Any) -> SplitSettings:
    """Train, validation and test as bench.style_corpus laid them out: no speaker is in two of them.

    The series are disjoint in speakers by construction, and the embedder takes some of the fish for
    one another, so voices are not linked beyond the episode.
    """
    parts: dict[str, Any] = {"validation_series": ("validation-*",), "test_series": ("test-*",)}
    return SplitSettings(**parts, voice_similarity=1.0, **others)


def train_settings(row: str, seed: int, batch: int = BUDGET["batch"]) -> TrainSettings:
    model, loss = (ROWS | STUDIES)[row]
    budget = BUDGET | {"batch": batch, "epochs": round(BUDGET["epochs"] * batch / BUDGET["batch"])}
    return TrainSettings(model=ModelSettings(**model), loss=loss, seed=seed, **(budget | TRAINING.get(row, {})))


def run(
    style: Path,
    out: Path,
    rows: Sequence[str],
    seeds: int,
    batch: int,
) -> dict[str, Any]:
    """Train and evaluate rows of a table.

    Args:
        style: What bench.style_corpus wrote.
        out: Folder of the models and of what was computed for all.
        rows: Names of the rows.
        seeds: Number of seeds.
        batch: Pairs per batch.
    """
    corpus = Corpus.open(str(style / "corpus"))
    version = corpus.version()
    clips = ClipStore.create(
        out / "clips", corpus.dataset(version=version).to_batches(batch_size=256), key=str(version)
    )
    split = make_split(clips.table, style_settings())
    table: dict[str, Any] = {}
    for row in rows:
        found = [_seed(row, train_settings(row, seed, batch), clips, split, out, version) for seed in range(seeds)]
        table[row] = _figures(found)
        base = table.get("base")
        if base and row != "base":
            table[row]["against base"] = _plain(difference(table[row]["clips"], base["clips"], seed=0))
        print(_line(row, table[row]), flush=True)
    parts = {part: len(split.ids(part)) for part in ("train", "validation", "test")}
    removed = len(split.removed)
    for figures in table.values():
        del figures["clips"]
    return {
        "rows": table,
        "parts": parts,
        "removed": removed,
        "seeds": seeds,
        "pool": POOL,
        "budget": BUDGET | {"batch": batch},
    }


def _seed(row: str, settings: TrainSettings, clips: ClipStore, split: Split, out: Path, version: int) -> dict[str, Any]:
    folder = out / f"{row}-{settings.seed}"
    cache = out / "features"
    trained = train(clips, split, settings, folder, cache=cache, version=version, progress=False)
    if not (folder / "clips.npy").is_file():
        found = evaluate_model(folder, clips, split, "test", cache=cache, corpus="style", version=version)
        found.evaluation.save(folder / "evaluation.json")
        text = one_vector_a_caption(found.vectors.text, found.vectors.captions)
        np.save(folder / "clips.npy", clip_figures(found.vectors.audio, text))
    return {
        "evaluation": Evaluation.load(folder / "evaluation.json"),
        "clips": np.load(folder / "clips.npy"),
        "epoch": trained.best_epoch,
        "validation": trained.validation,
    }


def clip_figures(audio: np.ndarray, text: np.ndarray, *, pool: int = POOL, draws: int = DRAWS) -> np.ndarray:
    """(clips,) mean over pools drawn at random of a clip's AP@10, mean of both directions.

    The same pools for every model, so that two can be compared clip by clip.
    """
    rng = np.random.default_rng(0)
    total, times = np.zeros(len(audio)), np.zeros(len(audio))
    for _ in range(draws):
        rows = rng.permutation(len(audio))[:pool]
        total[rows] += clip_map10(audio[rows], text[rows])
        times[rows] += 1
    return total / times


def _figures(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Make one row of the table: means and spread over seeds, interval over clips."""
    evaluations: list[Evaluation] = [seed["evaluation"] for seed in seeds]
    everyone = np.mean([seed["clips"] for seed in seeds], axis=0)
    figures: dict[str, Any] = {"clips": everyone, f"mAP@10 {POOL}": _plain(interval(everyone, seed=0))}
    for pool in (200, None):
        for metric in METRICS:
            values = [100 * e.figure(metric, mode="paper", pool=pool).value for e in evaluations]
            figures[f"{metric} {pool or 'all'} by seed"] = [round(value, 2) for value in values]
    figures["grouped mAP@10 200"] = _mean(100 * e.figure("mAP@10", mode="grouped", pool=200).value for e in evaluations)
    for stage in sorted({row.stage for row in evaluations[0].retrieval} - {"embeddings"}):
        figures[f"{stage} mAP@10 200 by seed"] = [_of_stage(e, stage) for e in evaluations]
    for side in ("audio", "text"):
        for measure in COLLAPSE:
            figures[f"{side} {measure}"] = _mean(getattr(getattr(e, side), measure) for e in evaluations)
    figures["alignment"] = _mean(e.joint.alignment for e in evaluations)
    figures["modality_gap"] = _mean(e.joint.modality_gap for e in evaluations)
    figures["kept epochs"] = [seed["epoch"] for seed in seeds]
    natural = [e.natural.rankings for e in evaluations if e.natural is not None]
    for ranking in natural[0] if natural else ():
        figures[f"everyday queries, {ranking}"] = _mean(one[ranking].percentile.value for one in natural)
        figures[f"everyday queries above 0.7, {ranking}"] = _mean(one[ranking].good for one in natural)
    figures["validation"] = [round(100 * seed["validation"], 2) for seed in seeds]
    return figures


def _of_stage(evaluation: Evaluation, stage: str) -> float:
    """mAP@10 of a pool of 200, mean of both directions, in %."""
    rows = [row for row in evaluation.retrieval if row.stage == stage and row.mode == "paper" and row.pool == 200]
    return round(100 * next(row.metrics["mAP@10"].value for row in rows if row.direction == "mean"), 2)


def _mean(values: Any) -> float:
    return round(float(np.mean(list(values))), 3)


def _plain(found: Interval) -> list[float]:
    return [round(100 * value, 2) for value in (found.value, found.low, found.high)]


def _line(row: str, figures: dict[str, Any]) -> str:
    line = f"{row:9} mAP@10 of {POOL}: {{:.2f}} ({{:.2f}} to {{:.2f}})".format(*figures[f"mAP@10 {POOL}"])
    line += "   by seed: {}".format(figures[f"mAP@10 {POOL} by seed"])
    if "against base" in figures:
        line += "   against base: {:+.2f} ({:+.2f} to {:+.2f})".format(*figures["against base"])
    return line


def markdown(table: dict[str, Any]) -> str:
    """Make the tables of docs/results.md; in pools of POOL clips where nothing else is said."""
    heads = (
        "mAP@10, pool 200",
        "against base",
        "by seed",
        "R@1, pool 200",
        "mAP@10, all",
        "grouped mAP@10",
        "everyday queries",
    )
    lines = _header(*heads)
    for row, figures in table.items():
        apart = "{:+.2f} ({:+.2f} to {:+.2f})".format(*figures["against base"]) if "against base" in figures else ""
        cells = [
            row,
            "{:.2f} ({:.2f} to {:.2f})".format(*figures[f"mAP@10 {POOL}"]),
            apart,
            ", ".join(f"{value:.2f}" for value in figures[f"mAP@10 {POOL} by seed"]),
            _spread(figures[f"R@1 {POOL} by seed"]),
            _spread(figures["mAP@10 all by seed"]),
            f"{figures[f'grouped mAP@10 {POOL}']:.2f}",
            "{:.2f}".format(figures.get("everyday queries, model", float("nan"))),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    measured = "uniformity, audio", "text", "effective rank, audio", "text", "mean cosine, audio", "text"
    lines += ["", *_header(*measured, "alignment", "modality gap")]
    measures = [f"{side} {name}" for name in COLLAPSE for side in ("audio", "text")] + ["alignment", "modality_gap"]
    lines += [
        f"| {row} | {' | '.join(f'{figures[name]:.2f}' for name in measures)} |" for row, figures in table.items()
    ]
    return "\n".join(lines)


def _header(*names: str) -> list[str]:
    return [f"| row | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}"]


def _spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over the seeds."""
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=len(values) > 1):.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.ablation", __doc__)
    parser.add_argument(
        "--style", type=report.absolute_path, default="data/style", help="what bench.style_corpus wrote"
    )
    parser.add_argument("--out", type=report.absolute_path, default="data/ablation", help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS | STUDIES), default=list(ROWS))
    parser.add_argument("--batch", type=int, default=BUDGET["batch"], help="pairs per batch; default: %(default)s")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        figures = run(options.style, options.out, options.rows, options.seeds, options.batch)
    except CorpusError as error:
        parser.exit(1, f"error: {error}; `python -m bench.style_corpus` makes it\n")
    report.write(options.json or options.out / "ablation.json", figures)
    print(f"\n{markdown(figures['rows'])}")


if __name__ == "__main__":
    main()
