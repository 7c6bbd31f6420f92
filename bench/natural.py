"""Score searches in everyday words on an index: `python -m bench.natural --index FOLDER`.

The queries, the score and the rankings are those of every evaluation: see
`fsclap/evaluation/natural.py`. Here they are searched among all clips of an index. Prints the mean
score of each ranking, with its interval over queries, and the share of the queries that score well.

With `--validation` the queries are 335 others, `natural_validation.json`, whose words may be in the
wordings. The default ranking and the constants of fsclap.queries.reading were chosen by these.

With `--blind` they are 284 more, `natural_blind.json`, written by someone who had seen neither the wordings
nor the other queries, and read by all wordings, as a search does. Nothing was chosen by these.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import report
from fsclap.evaluation.natural import QUERIES, Query, Searched, load_queries, score_queries
from fsclap.evaluation.results import GOOD, NATURAL_CHANCE, Natural
from fsclap.model.embedded import SentenceTokens
from fsclap.queries.conditions import clip_words
from fsclap.queries.prompts import Asked, Prompts
from fsclap.queries.reading import Reader
from fsclap.retrieval.search import Searcher

VALIDATION = Path(__file__).with_name("natural_validation.json")
BLIND = Path(__file__).with_name("natural_blind.json")


def measure(searcher: Searcher, queries: Sequence[Query], *, held_out: bool = False) -> Natural:
    """Score queries among the clips of an index.

    Args:
        searcher: The index.
        queries: What is searched for.
        held_out: Whether to read them by the held-out wordings too, as a search does.
    """
    rows = searcher.index.rows
    clips = Searched.of(rows, np.arange(len(rows)), np.asarray(searcher.index.vectors))
    read = Reader.of(SentenceTokens().sentences, clip_words(clips.style_keys), held_out=held_out).read
    embed = Asked(
        lambda texts: searcher.model.embed_text(texts).cpu().numpy(), read, Prompts.load(searcher.model_folder)
    )
    return score_queries(clips, embed, read, seed=0, queries=queries)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.natural", __doc__)
    parser.add_argument("--index", type=report.absolute_path, default=report.absolute_path("data/corpus-index"))
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--validation", action="store_true", help="the queries that settings are chosen by")
    which.add_argument("--blind", action="store_true", help="queries by someone who had not seen the wordings")
    options = parser.parse_args(arguments)
    queries = load_queries(VALIDATION if options.validation else BLIND if options.blind else QUERIES)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = measure(Searcher.open(options.index), queries, held_out=options.blind)
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
