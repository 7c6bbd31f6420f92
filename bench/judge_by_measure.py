"""An oracle on the judging path, in place of people: `python -m bench.judge_by_measure --index FOLDER`.

NOT PEOPLE. The verdicts come from what was measured of the clips, under the judge name "measure".
They try the whole path from the pool of a query to nDCG@10, and say how a model's order agrees with
the measures; they say nothing of what a person hears.

The queries are those as people type them, with the directions that they ask for, and the first
captions that the judging view gives to judges, with the directions of the words of their styles. A
clip that lies above 0.8 in the directions of a query, as a percentile among all clips of the index,
fits; above 0.5 it fits partly. Verdicts are kept in the file format of people's, but in a folder of
their own: beside the corpus, an evaluation would take them for people's. A second run adds nothing.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bench import report
from fsclap.data.captions import caption_key
from fsclap.data.measured import clip_measures, percentiles
from fsclap.evaluation.judged import Graded, judged_figure
from fsclap.evaluation.natural import answerable, directed
from fsclap.evaluation.results import Judged
from fsclap.evaluation.words import interval, percent, points
from fsclap.queries.conditions import scale_words
from fsclap.retrieval.judging import Fit, Judging, NewJudgement
from fsclap.retrieval.search import Searcher
from storage.judgements import Judgements

JUDGE = "measure"
ORACLE = 'oracle: every verdict is computed from measured attributes (judge "measure"); no person judged anything'
FITS, PARTLY = 0.8, 0.5
"""Directed percentile above which a clip fits, and fits partly."""

Directions = Mapping[str, int]
"""Attribute -> 1 where high values are asked for, -1 where low ones are."""


def verdict(percentile: float) -> Fit:
    """Judge a clip by where it lies in the directions of a query, 0 to 1."""
    return "fits" if percentile > FITS else "partly" if percentile > PARTLY else "no"


def directions_of(style_key: str) -> dict[str, int]:
    """Return where the words of a style lie on their scales; those in the middle ask for nothing."""
    found = {}
    for name, _, word in (part.partition("=") for part in style_key.split(";")):
        names = scale_words(name)
        if word in names and (place := names.index(word) - len(names) // 2):
            found[name] = 1 if place > 0 else -1
    return found


def queries_of(searcher: Searcher, judging: Judging, captions: int) -> dict[str, Directions]:
    """Return each query with its directions; captions that ask for nothing measurable are left out."""
    rows = searcher.index.rows
    measured = clip_measures(rows)
    queries: dict[str, Directions] = {query.query: query.directions for query in answerable(measured)}
    styles = {
        caption_key(caption): key or ""
        for caption, key in zip(rows["caption"].to_pylist(), rows["style_key"].to_pylist(), strict=True)
    }
    for caption in judging.queries[:captions]:
        found = {name: sign for name, sign in directions_of(styles[caption_key(caption)]).items() if name in measured}
        queries |= {caption: found} if found else {}
    return queries


def judge(searcher: Searcher, store: Judgements, *, captions: int) -> None:
    """Judge every clip that the judging view offers for each query and that has no verdict yet."""
    judging = Judging(searcher, store)
    ids = searcher.index.rows["utterance_id"].to_pylist()
    ranks = percentiles(clip_measures(searcher.index.rows))
    for query, directions in queries_of(searcher, judging, captions).items():
        place = dict(zip(ids, directed(directions, ranks).tolist(), strict=True))
        for id_ in judging.next(JUDGE, query, 0)["clips"]:
            judging.add(NewJudgement(query=query, utterance_id=id_, verdict=verdict(place[id_]), judge=JUDGE))


def agreement(searcher: Searcher, store: Judgements) -> Judged:
    """Compute the nDCG@10 of the index's model on the oracle's verdicts."""
    rows = searcher.index.rows
    ids = rows["utterance_id"].to_pylist()
    graded = store.graded(dict(zip(ids, rows["recipe"].to_pylist(), strict=True)))
    ours = [Graded(**row) for row in graded if row["judges"] == (JUDGE,)]
    return judged_figure(ours, ids, np.asarray(searcher.index.vectors), searcher.asked, seed=0)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.judge_by_measure", __doc__)
    parser.add_argument("--index", type=report.absolute_path, default=report.absolute_path("data/corpus-index"))
    parser.add_argument(
        "--store",
        type=report.absolute_path,
        default=report.absolute_path("data/judged-by-measure"),
        help="folder of the oracle's verdicts; one per corpus",
    )
    parser.add_argument(
        "--captions", type=int, default=30, help="captions to judge, besides queries as people type them"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    store = _store(options.store)
    searcher = Searcher.open(options.index)
    judge(searcher, store, captions=options.captions)
    found = agreement(searcher, store)
    figures: dict[str, object] = {"verdicts by": ORACLE, "queries": found.queries, "verdicts": found.judgements}
    if found.ndcg is not None and found.chance is not None and found.above_chance is not None:
        figures |= {
            "nDCG@10 by the oracle": interval(found.ndcg),
            "chance": percent(found.chance),
            "above chance": points(found.above_chance),
        }
    print("\n".join(report.name_values(figures)))
    report.write(options.json, {"oracle": ORACLE, "judge": JUDGE, "judged": found.model_dump()})


def _store(folder: Path) -> Judgements:
    folder.mkdir(parents=True, exist_ok=True)
    return Judgements(folder)


if __name__ == "__main__":
    main()
