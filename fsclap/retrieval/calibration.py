"""What a score means: the share of a description that clips of that score were measured to have.

Queries in everyday words whose meaning is agreed on (`fsclap.evaluation.natural`, none of whose words
a model was trained on) are put to the clips of the index that the model was not trained on. A clip
meets a direction that a query asks for, such as "high pitch", if it lies in that third of all clips by
what was measured. Isotonic regression then maps scores to the mean share of the directions that are
met, so that "80 %" is true of four things in five. Two sounds are compared likewise: the share of the
words of their styles that they have in common.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from fsclap.data.splits import Split
from fsclap.evaluation.natural import FEWEST, answerable, load_queries
from fsclap.model.functionals import CONTEXT
from fsclap.queries.conditions import ANY, SILENT, vocabulary
from fsclap.queries.reading import Heard, combined
from fsclap.retrieval.words import Styles

THIRD = 1 / 3
"""Share of the clips that lie far enough in a direction to meet it: that of clips at random too."""
A_KNOT = 60
"""Pairs of query and clip behind a point of the curve."""
MOST_KNOTS = 60
MOST_CLIPS = 1000
"""Clips that are compared; of more, a random sample."""
WEAK = {False: 0.5, True: 0.3}
"""Whether the query is a sound -> share below which a clip is a weak match: half of what is asked for;
of two sounds, which share a fifth of their words by chance, three tenths."""


@dataclass(frozen=True)
class Calibration:
    """A curve from scores to shares.

    Attributes:
        scores: (knots,) ascending.
        shares: (knots,) 0 to 1, ascending.
        chance: Share of a clip at random.
        pairs: Number of pairs behind the curve.
    """

    scores: np.ndarray
    shares: np.ndarray
    chance: float
    pairs: int

    def share(self, score: float) -> float:
        """Return the share of what is asked for, 0 to 1, that clips of a score have on average."""
        return float(np.interp(score, self.scores, self.shares))


def fit(scores: np.ndarray, truth: np.ndarray) -> Calibration:
    """Fit the curve to (pairs,) scores and (pairs,) shares that were found to be true."""
    from sklearn.isotonic import IsotonicRegression

    groups = np.array_split(np.argsort(scores, kind="stable"), max(1, min(MOST_KNOTS, len(scores) // A_KNOT)))
    places = np.array([scores[group].mean() for group in groups])
    line = IsotonicRegression(y_min=0, y_max=1).fit(places, [truth[group].mean() for group in groups])
    return Calibration(line.X_thresholds_, line.y_thresholds_, float(truth.mean()), len(scores))


def by_queries(
    measured: Mapping[str, np.ndarray], ranks: Mapping[str, np.ndarray], score: Callable[[str], np.ndarray]
) -> Calibration | None:
    """Calibrate the scores of descriptions.

    Args:
        measured: Attribute -> (clips,) measured values, NaN where unknown.
        ranks: Attribute -> (clips,) place among all clips of the index, 0 to 1.
        score: Query -> (clips,) scores.

    Returns:
        None if there are fewer than FEWEST clips, or clips with measures.
    """
    queries = answerable(measured) if len(next(iter(measured.values()))) >= FEWEST else []
    if not queries:
        return None
    scores = [score(query.query) for query in queries]
    truth = [met(query.directions, ranks) for query in queries]
    return fit(np.concatenate(scores), np.concatenate(truth))


def by_sounds(words: np.ndarray, vectors: np.ndarray, without: Sequence[str]) -> Calibration | None:
    """Calibrate the cosines of two sounds.

    Args:
        words: (clips, attributes) int64: `fsclap.queries.conditions.clip_words`.
        vectors: (clips, embedding) unit rows.
        without: Attributes that don't count, because one clip alone can't tell them.

    Returns:
        None if there are fewer than FEWEST clips, or no two of them have a word.
    """
    if len(words) < FEWEST:
        return None
    kept = [at for at, name in enumerate(vocabulary()) if name not in without]
    first, second = np.triu_indices(len(words), 1)
    a, b = words[first][:, kept], words[second][:, kept]
    either = (a != ANY) & (b != ANY) & ((a != SILENT) | (b != SILENT))
    counted = either.sum(axis=1)
    if not counted.any():
        return None
    shared = ((a == b) & either).sum(axis=1)[counted > 0] / counted[counted > 0]
    cosines = np.einsum("ij,ij->i", vectors[first], vectors[second])[counted > 0]
    return fit(cosines, shared)


def calibrate(
    ids: Sequence[str], split: Path, vectors: np.ndarray, styles: Styles, embed: Callable[[str], np.ndarray]
) -> dict[str, Calibration | None]:
    """Calibrate the scores of each way to search, and of a sound.

    Args:
        ids: Utterance id of each row of the index.
        split: File of the split that trained the model; it may be missing.
        vectors: (rows, embedding) unit rows.
        styles: The styles of the rows.
        embed: The model's embedding of a text, (embedding,) of unit norm.
    """
    rows = unheard_rows(ids, split)
    near, ranks = np.asarray(vectors[rows]), {name: order[rows] for name, order in styles.heard.order.items()}
    heard = Heard(styles.heard.words[rows], ranks)
    measured = {name: values[rows] for name, values in styles.measured.items()}

    styles.prepare([query.query for query in load_queries()])

    @functools.cache  # each is taken alone and in the sum of both
    def words(query: str) -> np.ndarray:
        return heard.scores(styles.read(query))

    @functools.cache
    def model(query: str) -> np.ndarray:
        return near @ embed(query)

    def both(query: str) -> np.ndarray:
        return combined(words(query), model(query))

    ways: dict[str, Callable[[str], np.ndarray]] = {"model": model, "words": words, "both": both}
    found = {by: by_queries(measured, ranks, score) for by, score in ways.items()}
    return found | {"sound": by_sounds(heard.words, near, tuple(CONTEXT))}


def unheard_rows(ids: Sequence[str], split: Path) -> np.ndarray:
    """Choose the rows to calibrate on: those that the model was not trained on, if these are enough.

    Args:
        ids: Utterance id of each row of the index.
        split: File of the split that trained the model; it may be missing.
    """
    try:
        trained = set(Split.load(split).train)
    except (OSError, ValidationError):
        trained = set()
    rows = np.array([row for row, id_ in enumerate(ids) if id_ not in trained], dtype=np.int64)
    rows = rows if len(rows) >= FEWEST else np.arange(len(ids))
    return np.sort(np.random.default_rng(0).permutation(rows)[:MOST_CLIPS])


def met(directions: Mapping[str, int], ranks: Mapping[str, np.ndarray]) -> np.ndarray:
    """Compute the share of the directions, attribute -> 1 or -1, that each clip meets: (clips,)."""
    parts = [ranks[name] > 1 - THIRD if sign > 0 else ranks[name] < THIRD for name, sign in directions.items()]
    return np.asarray(np.mean(parts, axis=0))
