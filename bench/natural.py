"""Score searches in everyday words on an index: `python -m bench.natural --index FOLDER`.

The queries, the score and the rankings are those of every evaluation: see
`fsclap/evaluation/natural.py`. Here they are searched among all clips of an index. Prints the mean
score of each ranking, with its interval over queries, and the share of the queries that score well.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench import report
from fsclap.evaluation.natural import Searched, load_queries, score_queries
from fsclap.evaluation.results import GOOD, NATURAL_CHANCE, Natural
from fsclap.model.embedded import SentenceTokens
from fsclap.retrieval.search import Searcher


def measure(searcher: Searcher) -> Natural:
    """Score the queries among the clips of an index."""
    index = searcher.index
    clips = Searched.of(index.rows, np.arange(len(index.rows)), np.asarray(index.vectors))
    return score_queries(
        clips,
        lambda texts: searcher.model.embed_text(texts).cpu().numpy(),
        SentenceTokens().sentences,
        seed=0,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.natural", __doc__)
    parser.add_argument("--index", type=report.absolute_path, default=report.absolute_path("data/corpus-index"))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = measure(Searcher.open(options.index))
    if found.left_out:
        raise SystemExit(found.left_out)
    figures: dict[str, Any] = {"clips": found.clips, "queries": len(found.queries), "chance": NATURAL_CHANCE}
    for name, ranking in found.rankings.items():
        mean = ranking.percentile
        figures[name] = f"{mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f}), above {GOOD}: {ranking.good:.0%}"
    print("\n".join(report.name_values(figures)))
    known = {query.query: query for query in load_queries()}
    each = [
        known[query.query].model_dump() | {name: round(value, 3) for name, value in query.scores.items()}
        for query in found.queries
    ]
    report.write(options.json, {"figures": figures, "queries": each})


if __name__ == "__main__":
    main()
