"""The evaluation protocol: modes, directions, pools, intervals, chance and ceiling.

*Paper* mode has one positive per query: clip i and its own caption, though other clips may share
it. *Grouped* mode counts every clip or caption of the query's style as right, and uses each caption
as a query once.

Intervals are percentile bootstraps. The resampled unit is a clip with all its results, in both
directions and in all its pools. In grouped mode, where a text query stands for all clips with its
caption, the unit is a caption with the results of these clips, so that clips with the same caption,
and so the same results, count as one observation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fsclap.data.captions import caption_groups, numbered
from fsclap.evaluation.metrics import (
    PerQuery,
    Ranks,
    Relevance,
    grouped_metrics,
    metrics_of_ranks,
    one_vector_a_caption,
    paper_metrics,
    random_metrics,
    same_group,
    scored_metrics,
    top_items,
)
from fsclap.evaluation.results import METRICS, Direction, Interval, Mode, RetrievalFigures

POOLS = (200, 1000, 5000)
RESAMPLES = 1000
LEVEL = (2.5, 97.5)

PairScorer = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From rows of audio (P,) and rows of text (P,) to the scores of these pairs (P,)."""


@dataclass(frozen=True, slots=True)
class Rerank:
    """The second stage: the first k items of each query, reordered by a scorer that sees both.

    Attributes:
        score: The scorer. Each pair is scored once, in whatever modes, pools and directions it
            occurs.
        k: Number of items it reorders; at least 10, the depth of the metrics.
        draws: Number of pools of each size to re-rank: a pair costs far more than in the first
            stage.
        largest_pool: Size of the largest pools to re-rank.
    """

    score: PairScorer
    k: int = 20
    draws: int = 3
    largest_pool: int = 1000

    def __post_init__(self) -> None:
        if self.k < 10:
            raise ValueError(f"rerank.k is {self.k}, but the metrics look at the first 10: choose at least 10")


def evaluate_embeddings(
    audio: np.ndarray,
    text: np.ndarray,
    captions: Sequence[str],
    style_keys: Sequence[str],
    *,
    pools: Sequence[int] = POOLS,
    draws: int = 20,
    seed: int = 0,
    resamples: int = RESAMPLES,
    rerank: Rerank | None = None,
) -> list[RetrievalFigures]:
    """Compute all figures: pools x stages x modes x (both directions and their mean).

    Args:
        audio: (N, E) unit rows.
        text: (N, E) unit rows; row i is the caption of clip i.
        captions: N captions; the same caption (`caption_key`) gets one embedding, the first.
        style_keys: N styles; equal ones are relevant to each other in grouped mode.
        pools: Sizes of pools drawn from the N clips without replacement. Sizes of N and above are
            ignored, since all N clips are always evaluated as one pool.
        draws: Number of pools of each size.
        seed: Seed of pools and bootstrap.
        resamples: Number of bootstrap resamples.
        rerank: The second stage, if there is one.

    Raises:
        ValueError: Lengths differ, there is no clip, an embedding is not finite, or the embeddings
            of equal captions are far apart.
    """
    if not len(audio) == len(text) == len(captions) == len(style_keys) or not len(audio):
        lengths = [len(part) for part in (audio, text, captions, style_keys)]
        raise ValueError(f"expected as many audio, text, captions and style keys, at least 1; got {lengths}")
    clips = Clips(audio, one_vector_a_caption(text, captions), caption_groups(captions), numbered(style_keys))
    second = None if rerank is None else _SecondStage(rerank, clips, seed)
    figures: list[RetrievalFigures] = []
    for size in (*sorted({size for size in pools if 0 < size < len(audio)}), len(audio)):
        drawn = _pools(len(audio), size, draws, seed)
        figures += _figures(clips, drawn, first_stage, "embeddings", seed, resamples)
        if second is not None and size <= second.settings.largest_pool:
            stage = f"rerank@{second.settings.k}"
            figures += _figures(clips, drawn[: second.settings.draws], second, stage, seed, resamples)
    return figures


def difference(ours: np.ndarray, theirs: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> Interval:
    """Compute how much the mean of one model exceeds that of another on the same queries.

    The bootstrap is paired: a query that is hard for both models cancels out. With
    `metrics.clip_map10` of each model, a lower bound above 0 means that the first one is better.

    Args:
        ours: (Q,) values per query.
        theirs: (Q,) values of the same queries in the same order.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.

    Raises:
        ValueError: Lengths differ, or there is no query.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"expected the same queries for both, got {ours.shape} and {theirs.shape} values")
    return interval(ours - theirs, seed=seed, resamples=resamples)


def interval(values: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> Interval:
    """Compute the mean of (Q,) values with its 95 % percentile bootstrap interval.

    Raises:
        ValueError: There is no value.
    """
    if values.ndim != 1 or not len(values):
        raise ValueError(f"expected (Q,) values, Q >= 1, got shape {values.shape}")
    means = _weights(len(values), seed, resamples) @ values / len(values)
    low, high = np.percentile(means, LEVEL)
    return Interval(value=float(values.mean()), low=float(low), high=float(high))


@dataclass(frozen=True)
class Clips:
    """All clips of a part: (N, E) unit rows, and (N,) captions and styles as numbers from 0."""

    audio: np.ndarray
    text: np.ndarray
    caption: np.ndarray
    style: np.ndarray

    @cached_property
    def first_of_caption(self) -> np.ndarray:
        """The first clip with each caption, (captions,)."""
        return np.unique(self.caption, return_index=True)[1]


@dataclass(frozen=True, slots=True)
class Search:
    """One direction of one mode in one pool.

    Attributes:
        of_audio: Queries are clips and items captions; or the other way round.
        queries: (Q,) rows of the queries' embeddings.
        items: (M,) rows of the items' embeddings.
        relevance: Which items answer which queries.
        total: (Q,) relevant items of each query.
        ceiling: Metrics of the best order for each query.
        unit: (Q,) the unit that the bootstrap resamples: clips or captions, by number.
        one_positive: Item i alone answers query i.
    """

    of_audio: bool
    queries: np.ndarray
    items: np.ndarray
    relevance: Relevance
    total: np.ndarray
    ceiling: PerQuery
    unit: np.ndarray
    one_positive: bool

    def vectors(self, clips: Clips) -> tuple[np.ndarray, np.ndarray]:
        queries, items = (clips.audio, clips.text) if self.of_audio else (clips.text, clips.audio)
        return queries[self.queries], items[self.items]


Stage = Callable[[Clips, Search], PerQuery]


def paper_searches(clips: Clips, pool: np.ndarray) -> tuple[Search, Search]:
    """Prepare both directions in paper mode.

    For g clips with the same caption, the best a model can do is to rank all g first. Their order
    is random, so the right one is at place 1 to g, in either direction. That is the ceiling.
    """
    _, which, sizes = np.unique(clips.caption[pool], return_inverse=True, return_counts=True)
    tied = sizes[which] - 1
    alone = np.arange(len(pool))
    search = Search(
        of_audio=True,
        queries=pool,
        items=pool,
        relevance=same_group(alone, alone),
        total=np.ones_like(pool),
        ceiling=metrics_of_ranks(Ranks(better=np.zeros_like(tied), tied=tied)),
        unit=pool,
        one_positive=True,
    )
    return search, replace(search, of_audio=False)


def grouped_searches(clips: Clips, pool: np.ndarray) -> tuple[Search, Search]:
    """Prepare both directions in grouped mode: clips against distinct captions, and the reverse.

    A caption is right for each style of the pool's clips with that caption; rarely more than one.
    """
    captions, caption = np.unique(clips.caption[pool], return_inverse=True)
    styles, style = np.unique(clips.style[pool], return_inverse=True)
    captioned = np.zeros((len(styles), len(captions)), dtype=bool)
    captioned[style, caption] = True
    texts = clips.first_of_caption[captions]
    search = Search(
        of_audio=True,
        queries=pool,
        items=texts,
        relevance=lambda rows: captioned[style[rows]],
        total=captioned.sum(axis=1)[style],
        ceiling={name: np.ones(len(pool)) for name in METRICS},
        unit=clips.caption[pool],
        one_positive=False,
    )
    reverse = Search(
        of_audio=False,
        queries=texts,
        items=pool,
        relevance=lambda rows: captioned.T[rows][:, style],
        total=captioned.T @ np.bincount(style),
        ceiling={name: np.ones(len(texts)) for name in METRICS},
        unit=captions,
        one_positive=False,
    )
    return search, reverse


def first_stage(clips: Clips, search: Search) -> PerQuery:
    """Compute metrics of the order by cosine."""
    queries, items = search.vectors(clips)
    return paper_metrics(queries, items) if search.one_positive else grouped_metrics(queries, items, search.relevance)


class _SecondStage:
    """Metrics after a scorer has reordered the first k of each query; remembers scores."""

    def __init__(self, settings: Rerank, clips: Clips, seed: int) -> None:
        self.settings = settings
        self.seed = seed
        self.text_row = clips.first_of_caption[clips.caption]
        self.pairs = np.empty(0, dtype=np.int64)
        self.scores = np.empty(0)

    def __call__(self, clips: Clips, search: Search) -> PerQuery:
        candidates = top_items(*search.vectors(clips), self.settings.k, seed=self.seed)
        queries, items = np.broadcast_arrays(search.queries[:, None], search.items[candidates])
        audio, text = (queries, items) if search.of_audio else (items, queries)
        scores = self._scores(audio, self.text_row[text])
        relevant = np.concatenate(
            [
                np.take_along_axis(search.relevance(slice(row, row + 1)), candidates[row : row + 1], axis=1)
                for row in range(len(candidates))
            ]
        )
        return scored_metrics(scores, relevant, search.total)

    def _scores(self, audio: np.ndarray, text: np.ndarray) -> np.ndarray:
        count = len(self.text_row)
        pairs = audio * count + text
        new = np.setdiff1d(pairs, self.pairs)
        if len(new):
            scores = np.asarray(self.settings.score(new // count, new % count), dtype=np.float64)
            if scores.shape != new.shape or not np.isfinite(scores).all():
                raise ValueError(
                    f"the re-ranker got {len(new)} pairs and returned scores of shape {scores.shape}, "
                    f"{np.count_nonzero(~np.isfinite(scores))} of them not finite"
                )
            order = np.argsort(known := np.concatenate([self.pairs, new]))
            self.pairs, self.scores = known[order], np.concatenate([self.scores, scores])[order]
        return np.asarray(self.scores[np.searchsorted(self.pairs, pairs)])


def _figures(
    clips: Clips, pools: list[np.ndarray], stage: Stage, name: str, seed: int, resamples: int
) -> list[RetrievalFigures]:
    modes: tuple[tuple[Mode, Callable[[Clips, np.ndarray], tuple[Search, Search]]], ...] = (
        ("paper", paper_searches),
        ("grouped", grouped_searches),
    )
    figures = []
    for mode, searches in modes:
        both = list(zip(*(searches(clips, pool) for pool in pools), strict=True))
        answers = [Answers.of([(search, stage(clips, search)) for search in direction]) for direction in both]
        parts: tuple[tuple[Direction, list[Answers]], ...] = (
            ("audio_to_text", answers[:1]),
            ("text_to_audio", answers[1:]),
            ("mean", answers),
        )
        for direction, part in parts:
            figures.append(
                RetrievalFigures(
                    mode=mode,
                    direction=direction,
                    pool=len(pools[0]),
                    draws=len(pools),
                    queries=sum(len(directed.unit) for directed in part),
                    metrics=_intervals(part, seed, resamples),
                    chance=_mean([directed.chance for directed in part]),
                    ceiling=_mean([directed.ceiling for directed in part]),
                    stage=name,
                )
            )
    return figures


@dataclass(frozen=True, slots=True)
class Answers:
    """Results of the queries of one direction in all pools: (Q,) units and (Q, metrics) values."""

    unit: np.ndarray
    reached: np.ndarray
    chance: np.ndarray
    ceiling: np.ndarray

    @classmethod
    def of(cls, searches: Sequence[tuple[Search, PerQuery]]) -> "Answers":
        return cls(
            np.concatenate([search.unit for search, _ in searches]),
            np.concatenate([_columns(reached) for _, reached in searches]),
            np.concatenate([_columns(random_metrics(len(search.items), search.total)) for search, _ in searches]),
            np.concatenate([_columns(search.ceiling) for search, _ in searches]),
        )


def _columns(values: PerQuery) -> np.ndarray:
    return np.stack([values[name] for name in METRICS], axis=1)


def _mean(directions: Sequence[np.ndarray]) -> dict[str, float]:
    means = np.mean([values.mean(axis=0) for values in directions], axis=0)
    return dict(zip(METRICS, means.tolist(), strict=True))


def _intervals(directions: Sequence[Answers], seed: int, resamples: int) -> dict[str, Interval]:
    """Average over queries, then over directions, with the interval of that."""
    units = np.unique(np.concatenate([answers.unit for answers in directions]))
    weights = _weights(len(units), seed, resamples)
    drawn = np.zeros((resamples, len(METRICS)))
    for answers in directions:
        of_unit = np.zeros((len(units), len(METRICS) + 1))
        counted = np.column_stack([answers.reached, np.ones(len(answers.unit))])
        np.add.at(of_unit, np.searchsorted(units, answers.unit), counted)
        sums = weights @ of_unit
        drawn += sums[:, :-1] / sums[:, -1:] / len(directions)
    low, high = np.percentile(drawn, LEVEL, axis=0)
    value = _mean([answers.reached for answers in directions])
    return {
        name: Interval(value=value[name], low=float(low[column]), high=float(high[column]))
        for column, name in enumerate(METRICS)
    }


def _weights(units: int, seed: int, resamples: int) -> np.ndarray:
    """How often each unit occurs in each resample, (resamples, units) float64."""
    rng = np.random.default_rng(seed)
    return np.stack(
        [np.bincount(rng.integers(units, size=units), minlength=units) for _ in range(resamples)]
    ).astype(np.float64)  # fmt: skip


def _pools(count: int, size: int, draws: int, seed: int) -> list[np.ndarray]:
    """Rows of the clips in each pool; a single pool if all clips fit."""
    if size == count:
        return [np.arange(count)]
    rng = np.random.default_rng([seed, size])
    return [rng.choice(count, size=size, replace=False) for _ in range(draws)]
