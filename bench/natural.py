"""Score searches in everyday words on an index: `python -m bench.natural --index FOLDER`.

The queries, the score and the rankings are those of every evaluation: see
`fsclap/evaluation/natural.py`. Here they are searched among the clips of an index. Prints the mean
score of each ranking, with its interval over queries, and the share of the queries that score well.

With `--validation` the queries are 335 others, `natural_validation.json`, whose words may be in the
wordings. The default ranking and the constants of fsclap.queries.reading were chosen by these.

With `--blind` they are 284 more, `natural_blind.json`, written by someone who had seen neither the wordings
nor the other queries, and read by all wordings, as a search does. Nothing was chosen by these.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from bench import report
from fsclap.data.splits import Part, Split
from fsclap.evaluation.natural import QUERIES, Query, Searched, load_queries, score_queries
from fsclap.evaluation.results import GOOD, NATURAL_CHANCE, Natural
from fsclap.evaluation.run import asked
from fsclap.model.embedded import SentenceTokens
from fsclap.queries.conditions import clip_words
from fsclap.queries.reading import Reader
from fsclap.retrieval.search import Searcher

VALIDATION = Path(__file__).with_name("natural_validation.json")
BLIND = Path(__file__).with_name("natural_blind.json")


def measure(
    searcher: Searcher, queries: Sequence[Query], *, part: Part | None = None, held_out: bool = False
) -> dict[str, Natural]:
    """Score queries among the clips of an index: as they are searched for, and by the text alone.

    Args:
        searcher: The index.
        queries: What is searched for.
        part: Which clips of the model's split are searched; None: all.
        held_out: Whether to read them by the held-out wordings too, as a search does.
    """
    rows = searcher.index.rows
    chosen = np.arange(len(rows))
    if part is not None:
        ids = set(Split.load(searcher.model_folder / "split.json").ids(part))
        chosen = chosen[[id_ in ids for id_ in rows["utterance_id"].to_pylist()]]
    clips = Searched.of(rows, chosen, np.asarray(searcher.index.vectors[chosen]))
    read = Reader.of(SentenceTokens().sentences, clip_words(clips.style_keys), held_out=held_out).read

    def text(queries: Sequence[str]) -> np.ndarray:
        return searcher.model.embed_text(queries).cpu().numpy()

    return {
        "asked": score_queries(
            clips, asked(searcher.model, searcher.model_folder, read), read, seed=0, queries=queries
        ),
        "text": score_queries(clips, text, None, seed=0, queries=queries),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.natural", __doc__)
    parser.add_argument("--index", type=report.absolute_path, default=report.absolute_path("data/corpus-index"))
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--validation", action="store_true", help="the queries that settings are chosen by")
    which.add_argument("--blind", action="store_true", help="queries by someone who had not seen the wordings")
    parser.add_argument("--part", choices=get_args(Part), help="search only this part of the model's split")
    options = parser.parse_args(arguments)
    queries = load_queries(VALIDATION if options.validation else BLIND if options.blind else QUERIES)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    both = measure(Searcher.open(options.index), queries, part=options.part, held_out=options.blind)
    found = both["asked"]
    if found.left_out:
        raise SystemExit(found.left_out)
    figures: dict[str, Any] = {"clips": found.clips, "queries": len(found.queries), "chance": NATURAL_CHANCE}
    for name, ranking in [*found.rankings.items(), ("model, by the text alone", both["text"].rankings["model"])]:
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
