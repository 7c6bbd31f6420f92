"""Score searches in everyday words on an index: `python -m bench.natural --index FOLDER`.

The queries, the score and the rankings are those of every evaluation: see
`fsclap/evaluation/natural.py`. Here they are searched among all clips of an index. Prints the mean
score of each ranking, with its interval over queries, and the share of the queries that score well.

With `--validation` the queries are 216 others, `natural_validation.json`, whose words may be in the
wordings. The default ranking and the constants of fsclap.queries.reading were chosen by these.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import report
from fsclap.evaluation.natural import Query, Searched, load_queries, score_queries
from fsclap.evaluation.results import GOOD, NATURAL_CHANCE, Natural
from fsclap.model.embedded import SentenceTokens
from fsclap.retrieval.search import Searcher

VALIDATION = Path(__file__).with_name("natural_validation.json")


def measure(searcher: Searcher, queries: Sequence[Query]) -> Natural:
    """Score queries among the clips of an index."""
    index = searcher.index
    clips = Searched.of(index.rows, np.arange(len(index.rows)), np.asarray(index.vectors))
    return score_queries(
        clips,
        lambda texts: searcher.model.embed_text(texts).cpu().numpy(),
        SentenceTokens().sentences,
        seed=0,
        queries=queries,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.natural", __doc__)
    parser.add_argument("--index", type=report.absolute_path, default=report.absolute_path("data/corpus-index"))
    parser.add_argument("--validation", action="store_true", help="the queries that settings are chosen by")
    options = parser.parse_args(arguments)
    queries = load_queries(VALIDATION) if options.validation else load_queries()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = measure(Searcher.open(options.index), queries)
    if found.left_out:
        raise SystemExit(found.left_out)
    figures: dict[str, Any] = {"clips": found.clips, "queries": len(found.queries), "chance": NATURAL_CHANCE}
    for name, ranking in found.rankings.items():
        mean = ranking.percentile
        figures[name] = f"{mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f}), above {GOOD}: {ranking.good:.0%}"
    print("\n".join(report.name_values(figures)))
    known = {query.query: query for query in queries}
    each = [
        known[query.query].model_dump() | {name: round(value, 3) for name, value in query.scores.items()}
        for query in found.queries
    ]
    report.write(options.json, {"figures": figures, "queries": each})


if __name__ == "__main__":
    main()
