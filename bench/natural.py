"""Score searches in everyday words against what was measured: `python -m bench.natural`.

`natural_queries.json` holds queries as people type them, each with the directions that any reader
would agree on: for "somebody talking right after breathing in balloon gas" the hits should have a
high pitch. A query scores the mean percentile of its ten best clips in those directions, among all
clips of the index: 0.5 is chance, 1 the best.

Two rankings are compared. `model` is the search itself. `words` uses no trained model: it reads a
query by its similarity (MiniLM, mean of the tokens) to the phrases of `fsclap/queries/wordings.json`, each of which
stands for one word of the style, and ranks the clips by the words of their styles. `ideal` takes the
ten clips that lie farthest in the directions asked for.

The queries are a test set. None of their content words is in the caption grammar or in
`fsclap/queries/wordings.json`; a test checks that.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.stats import rankdata

from bench import report
from fsclap.corpus.captioning.attributes import Attributes
from fsclap.corpus.captioning.bins import mean, measures
from fsclap.evaluation.protocol import interval
from fsclap.model.embedded import SentenceTokens
from fsclap.queries.wordings import Wording, load_wordings
from fsclap.retrieval.search import Searcher

QUERIES = Path(__file__).with_name("natural_queries.json")
TOP = 10
NEAREST = 100
"""Phrases that a query is read by."""
TEMPERATURE = 0.03
"""Of the softmax over their cosines: the nearest phrases decide."""
GOOD = 0.7
# Measure of a target -> attribute of the style that bins it.
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


class Query(BaseModel):
    """A search as a person types it, and where its hits should lie: 1 high values, -1 low ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query: str
    targets: dict[str, Literal[1, -1]]
    kind: str


def load_queries() -> list[Query]:
    return [Query.model_validate(entry) for entry in json.loads(QUERIES.read_text(encoding="utf-8"))]


def content_words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower())) - FUNCTION_WORDS


def percentiles(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Measure -> (clips,) percentile of each clip, 0 to 1; 0.5 where it was not measured."""
    attributes = [Attributes(**row["attributes"]) for row in rows]
    speakers = [row["speaker"] for row in rows]
    usual = {
        name: mean([a for a, speaker in zip(attributes, speakers, strict=True) if speaker == name])
        for name in set(speakers)
    }
    values = [measures(a, usual[speaker]) for a, speaker in zip(attributes, speakers, strict=True)]
    return {measure: _percentile([row[scale] for row in values]) for measure, scale in MEASURES.items()}


def _percentile(values: Sequence[float | None]) -> np.ndarray:
    column = np.array([np.nan if value is None else value for value in values])
    known = np.isfinite(column)
    ranks = np.full(len(column), 0.5)
    ranks[known] = (rankdata(column[known]) - 0.5) / known.sum()
    return ranks


def directed(query: Query, ranks: Mapping[str, np.ndarray]) -> np.ndarray:
    """(clips,) mean percentile of each clip in the directions of a query."""
    parts = [ranks[name] if sign > 0 else 1 - ranks[name] for name, sign in query.targets.items()]
    return np.mean(parts, axis=0)


def score(scores: np.ndarray, query: Query, ranks: Mapping[str, np.ndarray]) -> float:
    """Mean directed percentile of the TOP clips with the highest of (clips,) scores, ties at random."""
    order = np.lexsort((np.random.default_rng(0).random(len(scores)), -scores))
    return float(directed(query, ranks)[order[:TOP]].mean())


def style_of(row: Mapping[str, Any]) -> dict[str, str]:
    """Attribute -> word of a corpus row's style."""
    return {part["attribute"]: part["word"] for part in row["style"]}


def read_by_words(
    queries: Sequence[str], styles: Sequence[Mapping[str, str]], wordings: Sequence[Wording]
) -> np.ndarray:
    """(queries, clips) share of the phrases nearest to each query that each clip's style meets."""
    similarity = _sentences(queries) @ _sentences([phrase for *_, phrase in wordings]).T
    meets = np.array([[style.get(name, "none") == word for style in styles] for name, word, *_ in wordings], dtype=float)
    scores = np.empty((len(queries), len(styles)))
    for at, row in enumerate(similarity):
        nearest = np.argsort(-row)[:NEAREST]
        weights = np.exp((row[nearest] - row[nearest[0]]) / TEMPERATURE)
        scores[at] = weights / weights.sum() @ meets[nearest]
    return scores


def _sentences(texts: Sequence[str]) -> np.ndarray:
    means = np.stack([tokens.mean(axis=0) for tokens in SentenceTokens().features(list(texts))])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def measure(searcher: Searcher) -> dict[str, np.ndarray]:
    """Ranking -> (queries,) score of each query on an index."""
    queries = load_queries()
    rows = searcher.index.rows.select(["attributes", "speaker", "style"]).to_pylist()
    ranks = percentiles(rows)
    texts = [query.query for query in queries]
    by_model = searcher.model.embed_text(texts).cpu().numpy() @ np.asarray(searcher.index.vectors).T
    wordings = [wording for wording in load_wordings() if not wording[0].startswith("relative_")]
    by_words = read_by_words(texts, [style_of(row) for row in rows], wordings)
    rankings = {
        "model": by_model,
        "words": by_words,
        "ideal": np.stack([directed(query, ranks) for query in queries]),
    }
    return {
        name: np.array([score(row, query, ranks) for row, query in zip(scores, queries, strict=True)])
        for name, scores in rankings.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.natural", __doc__)
    parser.add_argument("--index", type=report.absolute_path, default=report.absolute_path("data/corpus-index"))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    searcher = Searcher.open(options.index)
    queries, scores = load_queries(), measure(searcher)
    figures: dict[str, Any] = {"clips": searcher.index.record.clips, "queries": len(queries), "chance": 0.5}
    for name, values in scores.items():
        found = interval(values, seed=0)
        figures[name] = (
            f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f}), above {GOOD}: {(values > GOOD).mean():.0%}"
        )
    print("\n".join(report.name_values(figures)))
    each = [
        {**query.model_dump(), **{name: round(float(values[at]), 3) for name, values in scores.items()}}
        for at, query in enumerate(queries)
    ]
    report.write(options.json, {"figures": figures, "queries": each})


if __name__ == "__main__":
    main()
