"""Whether the page's percentages are true, and which queries it calls a guess.

    python -m bench.calibration [--index data/corpus-index] [--json FILE]

Calibrated on every second query of the held-out ones, and compared with what was measured for the
others: clips of a score that means "60 %" should have 60 % of what those queries ask for. Then the
cosine to the nearest wording, of queries about voices and of others: below `UNDERSTOOD` a query is a
guess.
"""

import itertools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench import report
from bench.natural import BLIND, VALIDATION
from fsclap.evaluation.natural import QUERIES, answerable, load_queries
from fsclap.model.embedded import SentenceTokens
from fsclap.queries.reading import Reader
from fsclap.retrieval.calibration import fit, met
from fsclap.retrieval.search import Searcher
from fsclap.retrieval.words import UNDERSTOOD

BANDS = (0.0, 0.35, 0.5, 0.65, 0.8, 1.001)
OTHERS = (
    "xqzvk blorp", "3.14159", "the weather in Paris tomorrow", "invoice number 4711", "how do I install python",
    "SELECT * FROM clips", "stock prices of tech companies", "a recipe for apple pie", "red car",
    "quarterly revenue report", "the capital of France", "lorem ipsum dolor sit amet", "photosynthesis in plants",
    "where is my luggage", "kubernetes deployment yaml", "two plus two", "football results",
    "mortgage interest rates", "window seat", "garden furniture", "install the driver", "tax return",
    "the president signed the bill", "mountain bike",
)  # fmt: skip
"""Queries that say nothing of a voice."""


def reliability(searcher: Searcher) -> dict[str, Any]:
    """Compare promised with measured shares, by band of the promise, for queries that were not fitted."""
    styles = searcher._styles
    queries = answerable(styles.measured)
    scores = [styles.heard.scores(styles.read(query.query)) for query in queries]
    truth = [met(query.directions, styles.heard.order) for query in queries]
    found = fit(np.concatenate(scores[::2]), np.concatenate(truth[::2]))
    promised = np.interp(np.concatenate(scores[1::2]), found.scores, found.shares)
    measured = np.concatenate(truth[1::2])
    bands = []
    for low, high in itertools.pairwise(BANDS):
        inside = (promised >= low) & (promised < high)
        if inside.any():
            shares = {"promised": float(promised[inside].mean()), "measured": float(measured[inside].mean())}
            bands.append({"pairs": int(inside.sum())} | shares)
    return {"queries": len(queries), "clips": len(searcher.index.rows), "chance": found.chance, "bands": bands}


def nearness() -> dict[str, Any]:
    """Compute the share of queries below UNDERSTOOD: about voices, and others."""
    reader = Reader(SentenceTokens().sentences)
    voices = [query.query for file in (QUERIES, VALIDATION, BLIND) for query in load_queries(file)]
    below = {
        name: float(np.mean([reader.nearness(query) < UNDERSTOOD for query in queries]))
        for name, queries in (("voices", voices), ("others", OTHERS))
    }
    return {"limit": UNDERSTOOD, "queries": {"voices": len(voices), "others": len(OTHERS)}, "below": below}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = report.parser("bench.calibration", __doc__)
    parser.add_argument("--index", type=report.absolute_path, default=report.absolute_path("data/corpus-index"))
    options = parser.parse_args(arguments)
    found = {"reliability": reliability(Searcher.open(options.index)), "nearness": nearness()}
    told, near = found["reliability"], found["nearness"]
    print(f"{told['queries']} queries, {told['clips']} clips, a clip at random has {100 * told['chance']:.0f} %")
    for band in told["bands"]:
        print(
            f"promised {100 * band['promised']:.0f} %, measured {100 * band['measured']:.0f} % "
            f"({band['pairs']:,} pairs)"
        )
    for name, share in near["below"].items():
        print(f"a guess: {100 * share:.0f} % of {near['queries'][name]} queries, {name}")
    report.write(options.json, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
