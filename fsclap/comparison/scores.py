"""Figures of a query in pools of a given size, and systems compared query by query.

A figure depends on how many clips it is searched among. Here a query's figure is its expectation over
all pools of P of the N clips that hold its own clip, computed exactly. With m items ahead of the right
one among all N, of which P - 1 others are drawn, the items ahead of it in a pool are hypergeometric:

    f(m) = E[g(1 + H)],  H ~ Hypergeometric(N - 1, m, P - 1),  g(rank) = [rank <= k], or 1 / rank up to 10

An order of t tied items places between 0 and t of them ahead, each as likely, so that a query with b
better and t tied items has the mean of f(b) ... f(b + t). With P = N that is `metrics_of_ranks`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import hypergeom

from fsclap.evaluation.metrics import DEPTH, Ranks, ranks
from fsclap.evaluation.protocol import LEVEL
from fsclap.evaluation.results import METRICS, Interval

DIRECTIONS = ("audio_to_text", "text_to_audio")
ALPHA = 0.05
_AT_A_TIME = 250
"""Resamples that are weighted at once: memory is this many times the number of clips."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How much one system exceeds another on the same queries.

    Attributes:
        first: Name of the one.
        second: Name of the other.
        difference: Mean over clips, first minus second, 0 to 1.
        p: Two-sided p-value of the paired bootstrap.
        corrected: The same after Holm's correction for all pairs that are compared.
    """

    first: str
    second: str
    difference: Interval
    p: float
    corrected: float

    @property
    def significant(self) -> bool:
        """Whether chance is ruled out at 5 %, over all pairs."""
        return self.corrected < ALPHA


def in_pools(positives: Ranks, pool: int) -> dict[str, np.ndarray]:
    """Compute each query's expected figures over all pools of a size.

    Args:
        positives: Ranks among all N clips, (N,) each.
        pool: Clips in a pool, 2 to N.

    Returns:
        (N,) float64 for each of METRICS.

    Raises:
        ValueError: The pool is smaller than 2 or larger than N.
    """
    count = len(positives.better)
    if not 2 <= pool <= count:
        raise ValueError(f"a pool of {pool} clips can't be drawn from {count}")
    ahead = np.arange(count)[:, None]
    chance = hypergeom.pmf(np.arange(DEPTH), count - 1, ahead, pool - 1)  # (N, 10): so many are ahead in the pool
    gains = {f"R@{k}": (np.arange(DEPTH) < k).astype(float) for k in (1, 5, 10)}
    gains["mAP@10"] = 1 / np.arange(1, DEPTH + 1)
    start, end = positives.better, positives.better + positives.tied + 1
    result = {}
    for name in METRICS:
        sums = np.concatenate([[0.0], np.cumsum(chance @ gains[name])])
        result[name] = (sums[end] - sums[start]) / (end - start)
    return result


def by_direction(audio: np.ndarray, text: np.ndarray, pool: int) -> dict[str, dict[str, np.ndarray]]:
    """Compute `in_pools` from embeddings, (N, E) rows each, for both of DIRECTIONS."""
    sides = ((audio, text), (text, audio))
    return {name: in_pools(ranks(*pair), pool) for name, pair in zip(DIRECTIONS, sides, strict=True)}


def best_possible(caption: np.ndarray, pool: int) -> dict[str, float]:
    """Compute the figures of the best order, which can't tell the same captions apart.

    Args:
        caption: (N,) number of each clip's caption.
        pool: Clips in a pool.
    """
    _, which, sizes = np.unique(caption, return_inverse=True, return_counts=True)
    tied = sizes[which] - 1
    found = in_pools(Ranks(better=np.zeros_like(tied), tied=tied), pool)
    return {name: float(values.mean()) for name, values in found.items()}


def random_order(pool: int) -> dict[str, float]:
    """Compute the figures of a random order of a pool."""
    recalls = {f"R@{k}": min(k, pool) / pool for k in (1, 5, 10)}
    return recalls | {"mAP@10": float((1 / np.arange(1, min(DEPTH, pool) + 1)).sum() / pool)}


def bootstrap(values: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """Resample clips, the same ones for every column.

    Args:
        values: (N, columns) values of the clips.
        resamples: Number of resamples.
        seed: Seed of the resamples; equal seeds draw equal clips.

    Returns:
        (resamples, columns) means.
    """
    rng = np.random.default_rng(seed)
    count, means = len(values), []
    for start in range(0, resamples, _AT_A_TIME):
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=min(_AT_A_TIME, resamples - start))
        means.append(drawn @ values / count)
    return np.concatenate(means)


def intervals(values: np.ndarray, *, resamples: int, seed: int) -> list[Interval]:
    """Compute the mean of each column of (N, columns) values with its 95 % interval over clips."""
    low, high = np.percentile(bootstrap(values, resamples=resamples, seed=seed), LEVEL, axis=0)
    return [
        Interval(value=float(value), low=float(least), high=float(most))
        for value, least, most in zip(values.mean(axis=0), low, high, strict=True)
    ]


def differences(names: Sequence[str], values: np.ndarray, *, resamples: int, seed: int) -> list[Difference]:
    """Compare each system with each other: paired bootstrap over clips, Holm's correction.

    Args:
        names: Names of the systems.
        values: (N, systems) values of the same clips.
        resamples: Number of resamples; the least p-value is about 2 / resamples.
        seed: Seed of the resamples.
    """
    pairs = [(a, b) for a in range(len(names)) for b in range(a + 1, len(names))]
    if not pairs:
        return []
    means = bootstrap(values, resamples=resamples, seed=seed)
    found = []
    for a, b in pairs:
        drawn = means[:, a] - means[:, b]
        low, high = np.percentile(drawn, LEVEL)
        value = float((values[:, a] - values[:, b]).mean())
        tail = int(min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0)))
        found.append(
            (Interval(value=value, low=float(low), high=float(high)), min(1.0, 2 * (tail + 1) / (resamples + 1)))
        )
    corrected = holm([p for _, p in found])
    return [
        Difference(names[a], names[b], interval, p, adjusted)
        for (a, b), (interval, p), adjusted in zip(pairs, found, corrected, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979): step down, never less than a smaller one's."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, at in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[at]))
        adjusted[at] = largest
    return adjusted
