"""Queries as people type them, scored against what was measured of the clips.

`natural_queries.json` holds queries in everyday words, each with the directions that any reader
would agree on: for "somebody talking right after breathing in balloon gas" the hits should have a
high pitch. A query scores the mean percentile of its ten best clips in those directions, among all
clips searched: 0.5 is chance, 1 the best.

The rankings compared:

    model: by the cosine of the query, as fsclap.queries.prompts embeds it, and each clip.
    words: no trained model. The query is read by the wordings nearest to it, and clips are ranked by
        how well the words of their styles, and what was measured of them, meet that reading.
    both: the weighted sum of the two, each standardised over the clips.
    ideal: the ten clips that lie farthest in the directions asked for.

The queries are a test set. None of their content words is in the caption grammar or in the wordings
that they are read by here and that models are trained on; a test checks that.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from fsclap.data.measured import clip_measures, percentiles
from fsclap.evaluation.protocol import interval
from fsclap.evaluation.results import GOOD, Natural, NaturalQuery, NaturalRanking
from fsclap.queries.conditions import clip_words, nothing_heard
from fsclap.queries.reading import Heard, Reading, combined

QUERIES = Path(__file__).with_name("natural_queries.json")
TOP = 10
"""Hits of a query that are scored."""
FEWEST = 20
"""Clips below which nothing is scored: ten of them are no choice."""
MEASURES = {
    "pitch_hz": "pitch",
    "level": "energy",
    "speaking_rate": "speaking_rate",
    "pause_ratio": "pauses",
    "pitch_range_st": "pitch_range",
    "pitch_slope_st": "intonation",
    "aperiodicity": "voice_quality",
    "spectral_tilt_db": "timbre",
    "energy_range_db": "dynamics",
}
"""Measure of a target -> attribute of the style that bins it."""
# Words that say nothing about a voice by themselves.
_FUNCTION_WORDS = """
    a about after all always an and any anyone anything anywhere are as at be been before between bit boy by did do
    does don't down each even every for from girl had has have he her his in into is it it's its just kid less like
    little man me means more most my neither never no nobody none nor not nothing of often on one one's only or out
    over person please right said she should so some somebody someone something sound sounds speak speaker speaking
    speaks spoken still talk talking talks that the their them then there they this to too type under up very voice
    voices want was were what whatsoever when while who whose with woman you your
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())

Embed = Callable[[Sequence[str]], np.ndarray]
"""Queries -> (queries, embedding) unit rows."""
Read = Callable[[str], Reading]
"""Query -> what it asks for."""


class Query(BaseModel):
    """A search as a person types it, and where its hits should lie: 1 high values, -1 low ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query: str
    targets: dict[str, Literal[1, -1]]
    kind: str

    @property
    def directions(self) -> dict[str, int]:
        """Attribute of the style -> 1 or -1."""
        return {MEASURES[name]: sign for name, sign in self.targets.items()}


def load_queries(file: Path = QUERIES) -> list[Query]:
    """Read queries: by default the test set that comes with the package."""
    return [Query.model_validate(entry) for entry in json.loads(file.read_text(encoding="utf-8"))]


def content_words(text: str) -> set[str]:
    """Return the words of a text that may say something about a voice."""
    return set(re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower())) - FUNCTION_WORDS


@dataclass(frozen=True)
class Searched:
    """The clips that are searched.

    Attributes:
        vectors: (clips, embedding) unit rows of the model.
        style_keys: Style of each clip; may be empty.
        measured: Attribute -> (clips,) measured values, NaN where unknown.
    """

    vectors: np.ndarray
    style_keys: Sequence[str]
    measured: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, table: pa.Table, rows: np.ndarray, vectors: np.ndarray) -> "Searched":
        """Take clips out of a corpus.

        Args:
            table: Rows of the whole corpus: what is usual for a speaker is known from all of them.
            rows: (clips,) numbers of the rows that are searched.
            vectors: (clips, embedding) unit rows, in the order of `rows`.
        """
        keys = table["style_key"].to_pylist() if "style_key" in table.column_names else [""] * len(table)
        measured = {name: values[rows] for name, values in clip_measures(table).items()}
        return cls(vectors, [keys[row] or "" for row in rows], measured)


def score_queries(
    clips: Searched, embed: Embed, read: Read | None, *, seed: int, queries: Sequence[Query] | None = None
) -> Natural:
    """Score every ranking on the queries whose measures are known of enough clips.

    Args:
        clips: What is searched.
        embed: The model's embedding of queries.
        read: Query -> what it asks for; without it there is no ranking by words.
        seed: Seed of ties and of the bootstrap over queries.
        queries: What is searched for; None: the test set of the package.

    Returns:
        The figures; if there are fewer than FEWEST clips, or clips with measures, only the reason
        why nothing was scored.
    """
    count = len(clips.style_keys)
    if count < FEWEST:
        return _left_out(count, f"{count} clips are too few to search: at least {FEWEST} are needed")
    queries = answerable(clips.measured, queries)
    if not queries:
        return _left_out(count, f"fewer than {FEWEST} clips have measured attributes, or these are all the same")
    ranks = percentiles(clips.measured)
    texts = [query.query for query in queries]
    rankings = {"model": embed(texts) @ clips.vectors.T}
    if read is not None and not nothing_heard(words := clip_words(clips.style_keys)):
        heard = Heard(words, ranks)
        rankings["words"] = np.stack([heard.scores(read(text)) for text in texts])
        rankings["both"] = np.stack([combined(*one) for one in zip(rankings["words"], rankings["model"], strict=True)])
    rankings["ideal"] = np.stack([directed(query.directions, ranks) for query in queries])
    return _figures(queries, rankings, ranks, count, seed)


def answerable(measured: Mapping[str, np.ndarray], queries: Sequence[Query] | None = None) -> list[Query]:
    """Return the queries whose measures are known of at least FEWEST clips, and differ among them.

    Args:
        measured: Attribute -> (clips,) measured values, NaN where unknown.
        queries: Those to choose from; None: the test set of the package.
    """
    finite = {name: values[np.isfinite(values)] for name, values in measured.items()}
    known = {name for name, values in finite.items() if len(values) >= FEWEST and np.ptp(values) > 0}
    return [query for query in queries or load_queries() if known.issuperset(query.directions)]


def directed(directions: Mapping[str, int], ranks: Mapping[str, np.ndarray]) -> np.ndarray:
    """Compute the mean percentile of each clip in some directions: (clips,), 0 to 1.

    Args:
        directions: Attribute -> 1 where high values are asked for, -1 where low ones are.
        ranks: Attribute -> (clips,) percentile of each clip, 0 to 1.
    """
    parts = [ranks[name] if sign > 0 else 1 - ranks[name] for name, sign in directions.items()]
    return np.asarray(np.mean(parts, axis=0))


def score(scores: np.ndarray, query: Query, ranks: Mapping[str, np.ndarray], *, seed: int = 0) -> float:
    """Compute the mean directed percentile of the TOP clips with the highest of (clips,) scores.

    Equal scores are ordered at random.
    """
    order = np.lexsort((np.random.default_rng(seed).random(len(scores)), -scores))
    return float(directed(query.directions, ranks)[order[:TOP]].mean())


def _figures(
    queries: Sequence[Query],
    rankings: Mapping[str, np.ndarray],
    ranks: Mapping[str, np.ndarray],
    clips: int,
    seed: int,
) -> Natural:
    reached = {
        name: np.array([score(row, query, ranks, seed=seed) for row, query in zip(scores, queries, strict=True)])
        for name, scores in rankings.items()
    }
    return Natural(
        clips=clips,
        rankings={
            name: NaturalRanking(percentile=interval(values, seed=seed), good=float((values > GOOD).mean()))
            for name, values in reached.items()
        },
        queries=[
            NaturalQuery(query=query.query, scores={name: float(values[at]) for name, values in reached.items()})
            for at, query in enumerate(queries)
        ],
    )


def _left_out(clips: int, reason: str) -> Natural:
    return Natural(clips=clips, rankings={}, queries=[], left_out=reason)
