"""Retrieval metrics of unit embeddings, in blocks of queries to bound memory.

Notation: Q queries, N items, E the width of the embeddings. A metric has one value per query, (Q,)
float64 in [0, 1].

Ties are resolved by expectation: a metric is its exact mean over all orders that equal scores
allow. Equal items have equal scores to the last bit, wherever in the matrix they are.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from fsclap.data.captions import caption_groups, numbered
from fsclap.evaluation.results import METRICS

DEPTH = 10
"""How far down R@10 and mAP@10 look."""

AT_A_TIME = 2**24
"""Similarities in a block: 64 MiB in float32."""

PerQuery = dict[str, np.ndarray]
"""(Q,) values for each of METRICS."""

Relevance = Callable[[slice], np.ndarray]
"""From a range of queries to (queries, N) bool: which items answer them."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """The rank of each query's one positive, (Q,) int64 each.

    Attributes:
        better: Items with a higher score.
        tied: Other items with the same score.
    """

    better: np.ndarray
    tied: np.ndarray

    @property
    def expected(self) -> np.ndarray:
        """Mean rank over all orders of the ties, (Q,); 1 is first."""
        return self.better + self.tied / 2 + 1


def paper_metrics(queries: np.ndarray, items: np.ndarray) -> PerQuery:
    """Compute metrics with one positive per query: item i answers query i. mAP@10 is then MRR@10.

    Args:
        queries: (N, E) unit rows.
        items: (N, E) unit rows.

    Raises:
        ValueError: Shapes differ, there is no row, or an embedding is not finite.
    """
    return metrics_of_ranks(ranks(queries, items))


def ranks(queries: np.ndarray, items: np.ndarray) -> Ranks:
    """Rank item i for query i; arguments and errors as for `paper_metrics`."""
    if queries.shape != items.shape:
        raise ValueError(f"expected one item per query, got shapes {queries.shape} and {items.shape}")
    better, tied = np.empty((2, len(queries)), dtype=np.int64)
    for rows, scores in _blocks(queries, items):
        positive = scores[np.arange(len(scores)), np.arange(rows.start, rows.stop)][:, None]
        better[rows] = np.count_nonzero(scores > positive, axis=1)
        tied[rows] = np.count_nonzero(scores == positive, axis=1) - 1
    return Ranks(better, tied)


def metrics_of_ranks(positives: Ranks) -> PerQuery:
    """Compute R@k, the share of tied places within k, and MRR@10, their mean 1 / place."""
    places = positives.tied + 1
    result: PerQuery = {f"R@{k}": np.clip(k - positives.better, 0, places) / places for k in (1, 5, 10)}
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, DEPTH + 1))])
    last, first = (np.minimum(place, DEPTH) for place in (positives.better + places, positives.better))
    return result | {"mAP@10": (harmonic[last] - harmonic[first]) / places}


def grouped_metrics(queries: np.ndarray, items: np.ndarray, relevance: Relevance) -> PerQuery:
    """Compute metrics with R >= 1 positives per query.

    R@k is any hit in the first k; AP@10 is divided by min(R, 10).

    Args:
        queries: (Q, E) unit rows.
        items: (N, E) unit rows.
        relevance: Which items answer a range of queries; at least one for each.

    Raises:
        ValueError: A query has no relevant item, shapes differ, or an embedding is not finite.
    """
    blocks = []
    for rows, scores in _blocks(queries, items):
        relevant = relevance(rows)
        blocks.append(scored_metrics(scores, relevant, relevant.sum(axis=1)))
    return {name: np.concatenate([block[name] for block in blocks]) for name in METRICS}


def same_group(query_groups: np.ndarray, item_groups: np.ndarray) -> Relevance:
    """Make items relevant to the queries of their group, by (Q,) and (N,) ids."""
    return lambda rows: query_groups[rows, None] == item_groups


def scored_metrics(scores: np.ndarray, relevant: np.ndarray, total: np.ndarray) -> PerQuery:
    """Compute the grouped metrics from scores of all items, or of the leading candidates.

    Args:
        scores: (Q, M) float.
        relevant: (Q, M) bool.
        total: (Q,) relevant items of each query, among the M or not; at least 1.

    Raises:
        ValueError: A query has no relevant item.
    """
    if np.any(total < 1):
        raise ValueError(f"query {int(np.argmin(total))} of the block has no relevant item")
    return metrics_of_levels(_levels(scores, relevant), total)


@dataclass(frozen=True, slots=True)
class Levels:
    """Ties at each of the first P <= 10 places: items with the same score, (Q, P) int64 each.

    Attributes:
        before: Items with a higher score.
        hits_before: Relevant items among them.
        size: Items with this score.
        hits: Relevant items among them.
    """

    before: np.ndarray
    hits_before: np.ndarray
    size: np.ndarray
    hits: np.ndarray


def _levels(scores: np.ndarray, relevant: np.ndarray) -> Levels:
    count = scores.shape[1]
    depth = min(DEPTH, count)
    first = np.argpartition(scores, count - depth, axis=1)[:, count - depth :]
    top, hit = np.take_along_axis(scores, first, axis=1), np.take_along_axis(relevant, first, axis=1)
    order = np.argsort(-top, axis=1)
    top, hit = np.take_along_axis(top, order, axis=1), np.take_along_axis(hit, order, axis=1)
    higher, equal = top[:, None, :] > top[:, :, None], top[:, None, :] == top[:, :, None]
    size, hits = equal.sum(axis=2), (equal & hit[:, None, :]).sum(axis=2)
    # All scores above the lowest of these are included, but not all that equal the lowest.
    lowest = top[:, -1:]
    level = scores == lowest
    size = np.where(top == lowest, np.count_nonzero(level, axis=1)[:, None], size)
    hits = np.where(top == lowest, np.count_nonzero(level & relevant, axis=1)[:, None], hits)
    return Levels(higher.sum(axis=2), (higher & hit[:, None, :]).sum(axis=2), size, hits)


def metrics_of_levels(levels: Levels, total: np.ndarray) -> PerQuery:
    """Compute the expected metrics over the orders within levels.

    Place p is the t-th of its level of n items, h of them relevant, after `hits_before` relevant
    ones. Its item is relevant with probability h / n; given that, the expected number of relevant
    items up to and including it is hits_before + 1 + (t - 1)(h - 1) / (n - 1) (McSherry & Najork
    2008).
    """
    n, h = levels.size, levels.hits
    place = np.arange(1, n.shape[1] + 1)
    up_to = levels.hits_before + 1 + (place - levels.before - 1) * (h - 1) / np.maximum(n - 1, 1)
    average = (h / n * up_to / place).sum(axis=1) / np.minimum(total, DEPTH)
    none = np.where(levels.hits_before > 0, 0.0, _no_hit(n, h, place - levels.before))
    recall = {f"R@{k}": 1 - none[:, min(k, n.shape[1]) - 1] for k in (1, 5, 10)}
    return recall | {"mAP@10": average}


def random_metrics(items: int, total: np.ndarray) -> PerQuery:
    """Compute the expectation for a random order of `items`, `total` (Q,) relevant."""
    shape = (len(total), min(DEPTH, items))
    nothing = np.zeros(shape, dtype=np.int64)
    hits = np.broadcast_to(total[:, None], shape)
    return metrics_of_levels(Levels(nothing, nothing, np.full(shape, items), hits), total)


def _no_hit(size: np.ndarray, hits: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """P(no hit among `drawn` of `size`) = C(size - hits, drawn) / C(size, drawn)."""
    misses = size - hits
    possible = drawn <= misses
    left = np.where(possible, misses - drawn, 0)
    log = gammaln(misses + 1) - gammaln(left + 1) - gammaln(size + 1) + gammaln(size - drawn + 1)
    return np.where(possible, np.exp(log), 0.0)


def top_items(queries: np.ndarray, items: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Return the best items, best first, ties at random: (Q, min(count, N)) int64."""
    # In a shuffled row, whichever of several equal items the partition picks is a random choice.
    shuffled = np.random.default_rng(seed).permutation(len(items))
    count = min(count, len(items))
    top = []
    for _, scores in _blocks(queries, items[shuffled]):
        first = np.argpartition(scores, len(items) - count, axis=1)[:, len(items) - count :]
        order = np.argsort(-np.take_along_axis(scores, first, axis=1), axis=1)
        top.append(shuffled[np.take_along_axis(first, order, axis=1)])
    return np.concatenate(top)


def clip_map10(audio: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Compute each pair's AP@10, mean of both directions, in paper mode over all pairs: (N,)."""
    audio_to_text, text_to_audio = paper_metrics(audio, text), paper_metrics(text, audio)
    return np.asarray((audio_to_text["mAP@10"] + text_to_audio["mAP@10"]) / 2)


def mean_map10(audio: np.ndarray, text: np.ndarray) -> float:
    """Compute the figure that models are selected by: mAP@10, mean of both directions, paper mode.

    Args:
        audio: (N, E) unit rows.
        text: (N, E) unit rows; row i belongs to audio i. See `one_vector_a_caption`.
    """
    return float(clip_map10(audio, text).mean())


def one_vector_a_caption(text: np.ndarray, captions: Sequence[str]) -> np.ndarray:
    """Make the embeddings of the same caption equal to the last bit, so that they tie.

    The same caption in two batches is padded to two lengths, so its embeddings differ in the last
    bits. Captions that differ in case or spacing alone are the same (`caption_key`), although some
    encoders tell them apart: the first one's embedding stands for all.

    Args:
        text: (N, E) embeddings.
        captions: N captions.

    Raises:
        ValueError: Two embeddings of equal captions differ by more than 0.1, far beyond rounding.
    """
    apart = np.linalg.norm(text[_firsts(numbered(captions))] - text, axis=1)
    if apart.max(initial=0) > 0.1:
        raise ValueError(
            f"the caption {captions[int(apart.argmax())]!r} has embeddings {apart.max():.2f} apart: an embedding "
            "that depends on anything but its caption can't be searched by (is the model in evaluation mode?)"
        )
    return text[_firsts(caption_groups(captions))]


def _firsts(groups: np.ndarray) -> np.ndarray:
    """(N,) the first row of each row's group."""
    return np.unique(groups, return_index=True)[1][groups]


def _blocks(queries: np.ndarray, items: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Ranges of queries and their (queries, N) similarities.

    Equal items are multiplied once: in a matrix product, the same row may round differently
        elsewhere.
    """
    for name, array in (("queries", queries), ("items", items)):
        if array.ndim != 2 or not len(array) or array.shape[1] != queries.shape[1]:
            raise ValueError(f"expected (n, {queries.shape[-1]}) {name}, n >= 1, got shape {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} {np.flatnonzero(~np.isfinite(array).all(axis=1))[:5]} have a NaN or infinity")
    distinct, which = np.unique(items, axis=0, return_inverse=True)
    repeated = len(distinct) < len(items)
    size = max(1, AT_A_TIME // len(items))
    for start in range(0, len(queries), size):
        rows = slice(start, min(start + size, len(queries)))
        scores = queries[rows] @ (distinct if repeated else items).T
        yield rows, scores[:, which] if repeated else scores
