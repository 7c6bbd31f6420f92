"""From finished cells to figures: means over seeds with intervals over clips, and what they lie between."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from fsclap.comparison.grid import Cell, ComparisonError, Cost, Finished, Grid
from fsclap.comparison.scores import (
    DIRECTIONS,
    Difference,
    best_possible,
    by_direction,
    differences,
    intervals,
    random_order,
)
from fsclap.comparison.settings import ComparedCorpus
from fsclap.data.captions import caption_groups
from fsclap.evaluation.match import matcher_rows
from fsclap.evaluation.metrics import one_vector_a_caption
from fsclap.evaluation.results import ALL_WORDS, AUDIBLE, METRICS, Interval
from fsclap.evaluation.vectors import Vectors

MEAN = "mean"
HEADLINE = "mAP@10"
"""What systems are compared by, as the mean of both directions."""
SEED = 0
"""Of the bootstrap."""

Measures = dict[str, float]


@dataclass(frozen=True, slots=True)
class RowFigures:
    """A row on a corpus.

    Attributes:
        figures: (direction, metric) -> mean over seeds, with its interval over clips; 0 to 1. Directions are those of
            `DIRECTIONS`, and MEAN.
        by_seed: Seed -> mean of both directions of HEADLINE.
        wanted: Number of seeds that were asked for.
        measures: Spread of the embeddings and other figures of the evaluation, means over seeds.
        costs: Seed -> what the training took.
    """

    figures: dict[tuple[str, str], Interval]
    by_seed: dict[int, float]
    wanted: int
    measures: Measures
    costs: dict[int, Cost]


@dataclass(frozen=True, slots=True)
class CorpusFigures:
    """All rows on a corpus.

    Attributes:
        corpus: The corpus.
        pool: Clips in a pool.
        clips: Test clips that every finished cell was evaluated on; the figures are of these.
        left_out: Clips that only some of them have.
        captions: Number of distinct captions of the clips.
        speakers: Number of speakers of the test part.
        rows: By name; a row without a finished cell is not among them.
        chance: Metric -> figure of a random order.
        ceiling: Metric -> figure of the best order, which can't tell the same captions apart.
        matched: Stage of the matcher without a model -> (direction, metric) -> figure.
        differences: Rows compared with each other by HEADLINE.
    """

    corpus: ComparedCorpus
    pool: int
    clips: int
    left_out: int
    captions: int
    speakers: int
    rows: dict[str, RowFigures]
    chance: Measures
    ceiling: Measures
    matched: dict[str, dict[tuple[str, str], float]]
    differences: list[Difference]

    def compared(self, first: str, second: str) -> Difference | None:
        """Return how much the first row exceeds the second; None if they were not compared."""
        for found in self.differences:
            if (found.first, found.second) == (first, second):
                return found
            if (found.second, found.first) == (first, second):
                turned = found.difference
                reverse = Interval(value=-turned.value, low=-turned.high, high=-turned.low)
                return Difference(first, second, reverse, found.p, found.corrected)
        return None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that the report shows."""

    grid: Grid
    corpora: list[CorpusFigures]
    missing: list[tuple[Cell, str]]


def compare(grid: Grid) -> Comparison:
    """Compute all figures of the cells that are finished.

    Raises:
        ComparisonError: No cell is finished, or the finished ones share no clips.
    """
    missing = [(cell, why) for cell in grid.cells if (why := cell.missing()) is not None]
    finished = [Finished.of(cell) for cell in grid.cells if cell.missing() is None]
    missing += [(one.cell, "the model leaks: its figures would mean nothing") for one in finished if _leaks(one)]
    finished = [one for one in finished if not _leaks(one)]
    if not finished:
        reasons = "; ".join(dict.fromkeys(why for _, why in missing))
        raise ComparisonError(f"no cell of {len(grid.cells)} has figures yet ({reasons}): there is nothing to report")
    corpora = []
    for corpus in grid.corpora:
        own = [one for one in finished if one.cell.corpus == corpus.shown]
        if own:
            corpora.append(_on(corpus, own, grid))
    return Comparison(grid, corpora, missing)


def _leaks(one: Finished) -> bool:
    return one.evaluation.leak.leaks


def _on(corpus: ComparedCorpus, finished: list[Finished], grid: Grid) -> CorpusFigures:
    known = [set(one.vectors().ids) for one in finished]
    shared = reduce(set.intersection, known)
    if len(shared) < 2:
        raise ComparisonError(f"{corpus.shown}: its cells were evaluated on different clips; evaluate them again")
    pool = min(corpus.pool or grid.settings.pool, len(shared))
    resamples = grid.settings.resamples
    rows, values = {}, {}
    for row in grid.settings.rows():
        if own := [one for one in finished if one.cell.row == row]:
            scores = [_scores(_only(one.vectors(), shared), pool) for one in own]
            rows[row] = _row(own, scores, grid.settings.seeds, resamples)
            values[row] = np.mean(scores, axis=0)[:, _COLUMNS.index((MEAN, HEADLINE))]
    clips = _only(finished[0].vectors(), shared)
    caption = caption_groups(clips.captions)
    return CorpusFigures(
        corpus=corpus,
        pool=pool,
        clips=len(shared),
        left_out=len(set.union(*known)) - len(shared),
        captions=int(caption.max()) + 1,
        speakers=finished[0].evaluation.speakers,
        rows=rows,
        chance=random_order(pool),
        ceiling=best_possible(caption, pool),
        matched={stage: _matched(clips, stage, pool) for stage in (AUDIBLE, ALL_WORDS)},
        differences=differences(list(values), np.stack(list(values.values()), 1), resamples=resamples, seed=SEED),
    )


_COLUMNS = [(direction, metric) for direction in (*DIRECTIONS, MEAN) for metric in METRICS]


def _only(vectors: Vectors, ids: set[str]) -> Vectors:
    """Return the pairs with these ids, in the order of the ids."""
    order = [row for row in np.argsort(np.array(vectors.ids)).tolist() if vectors.ids[row] in ids]
    texts = {name: [getattr(vectors, name)[row] for row in order] for name in ("ids", "captions", "styles")}
    return Vectors(**texts, audio=vectors.audio[order], text=vectors.text[order])


def _scores(vectors: Vectors, pool: int) -> np.ndarray:
    """(clips, columns) expected figures of each clip's queries."""
    found = by_direction(vectors.audio, one_vector_a_caption(vectors.text, vectors.captions), pool)
    found[MEAN] = {name: np.mean([found[direction][name] for direction in DIRECTIONS], axis=0) for name in METRICS}
    return np.stack([found[direction][metric] for direction, metric in _COLUMNS], axis=1)


def _row(finished: Sequence[Finished], scores: list[np.ndarray], wanted: int, resamples: int) -> RowFigures:
    headline = _COLUMNS.index((MEAN, HEADLINE))
    return RowFigures(
        figures=dict(zip(_COLUMNS, intervals(np.mean(scores, axis=0), resamples=resamples, seed=SEED), strict=True)),
        by_seed={one.cell.seed: float(of[:, headline].mean()) for one, of in zip(finished, scores, strict=True)},
        wanted=wanted,
        measures=_measures(finished),
        costs={one.cell.seed: one.cost for one in finished},
    )


def _measures(finished: Sequence[Finished]) -> Measures:
    each: list[Measures] = []
    for one in finished:
        found = one.evaluation
        each.append({
            "grouped mAP@10, all clips": found.figure("mAP@10", mode="grouped").value,
            "uniformity, audio": found.audio.uniformity,
            "uniformity, text": found.text.uniformity,
            "effective rank, audio": found.audio.effective_rank,
            "effective rank, text": found.text.effective_rank,
            "modality gap": found.joint.modality_gap,
            "alignment": found.joint.alignment,
        })  # fmt: skip
        if found.natural is not None and "model" in found.natural.rankings:
            each[-1]["everyday queries"] = found.natural.rankings["model"].percentile.value
    names = [name for name in each[0] if all(name in measures for measures in each)]
    return {name: float(np.mean([measures[name] for measures in each])) for name in names}


def _matched(clips: Vectors, stage: str, pool: int) -> dict[tuple[str, str], float]:
    found = by_direction(*matcher_rows(clips.captions, clips.styles, stage), pool)
    figures = {(side, name): float(found[side][name].mean()) for side in DIRECTIONS for name in METRICS}
    return figures | {(MEAN, name): float(np.mean([figures[side, name] for side in DIRECTIONS])) for name in METRICS}
