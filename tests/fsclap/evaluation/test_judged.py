"""nDCG@10 on what people judged: the known figure, what does not count, and where it is shown."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from math import log2
from pathlib import Path

import numpy as np
import pytest

from fsclap.evaluation.judged import Graded, judge_model, judged_figure
from fsclap.evaluation.protocol import interval
from fsclap.evaluation.results import Evaluation, Interval, Judged
from fsclap.evaluation.run import EvaluationRun
from fsclap.evaluation.words import judged_meaning
from fsclap.model.settings import ModelSettings
from fsclap.model.systems.fs_clap import FSCLAP
from storage.corpus import Corpus
from storage.judgements import Judgements
from tasks.evaluation import judgements_of
from tests.fsclap.evaluation import examples
from tests.fsclap.evaluation.test_report import words, write
from tests.storage.conftest import rows_of

IDS = ["a", "b", "c", "d"]
AUDIO = np.eye(4, dtype=np.float32)


def towards(**vectors: Sequence[float]):
    """An embedding in which a query's cosine to clip i is its i-th number."""

    def embed(queries: Sequence[str]) -> np.ndarray:
        return np.array([vectors[query] for query in queries], dtype=np.float32)

    return embed


def graded(query: str, gains: dict[str, float], *judges: str) -> list[Graded]:
    return [Graded(query, clip, gain, judges or ("ada",)) for clip, gain in gains.items()]


def test_the_figure_is_the_one_by_hand() -> None:
    # The model's order is c, a, b: gains 0, 2, 1 at places 1, 2, 3; the best order has 2, 1, 0.
    found = judged_figure(graded("q", {"a": 2, "b": 1, "c": 0}), IDS, AUDIO, towards(q=(0.5, 0.1, 0.9, 0.0)), seed=0)
    best = 2 + 1 / log2(3)
    assert found.ndcg is not None
    assert found.ndcg.value == pytest.approx((2 / log2(3) + 1 / log2(4)) / best)
    orders = [sum(gain / log2(place + 2) for place, gain in enumerate(order)) for order in permutations((2, 1, 0))]
    assert found.chance == pytest.approx(np.mean(orders) / best)
    assert found.above_chance is not None
    assert found.above_chance.value == pytest.approx(found.ndcg.value - found.chance)
    assert (found.queries, found.judgements, found.clips, found.judges) == (1, 3, 3, 1)


def test_only_the_first_ten_count() -> None:
    ids = [str(number) for number in range(12)]
    gains = dict.fromkeys(ids, 0.0) | {"10": 2.0}
    late = judged_figure(graded("q", gains), ids, np.eye(12), towards(q=np.linspace(1, 0, 12).tolist()), seed=0)
    assert late.ndcg == Interval(value=0, low=0, high=0)


def test_a_clip_that_nobody_judged_counts_neither_way() -> None:
    said = graded("q", {"a": 2, "b": 0})
    first = judged_figure(said, IDS, AUDIO, towards(q=(0.5, 0.1, 0.0, 0.0)), seed=0)
    below = judged_figure(said, IDS, AUDIO, towards(q=(0.5, 0.1, 0.9, 0.8)), seed=0)
    assert first == below
    assert first.ndcg is not None
    assert first.ndcg.value == 1


def test_clips_of_other_parts_do_not_count() -> None:
    embed = towards(q=(0.1, 0.5, 0.0, 0.0))
    alone = judged_figure(graded("q", {"a": 2, "b": 0}), IDS, AUDIO, embed, seed=0)
    trained = judged_figure(graded("q", {"a": 2, "b": 0, "trained": 2}), IDS, AUDIO, embed, seed=0)
    assert trained == alone.model_copy(update={"elsewhere": 1})
    only = judged_figure(graded("q", {"trained": 2, "too": 0}), IDS, AUDIO, embed, seed=0)
    assert (only.ndcg, only.queries, only.left_out, only.elsewhere) == (None, 0, 1, 2)


def test_queries_that_say_nothing_are_left_out_and_counted() -> None:
    said = [
        *graded("same", {"a": 1, "b": 1}),
        *graded("single", {"a": 2}),
        *graded("q", {"a": 2, "b": 0}, "ada", "bob"),
    ]
    vectors = dict.fromkeys(("same", "single", "q"), (1.0, 0.0, 0.0, 0.0))
    found = judged_figure(said, IDS, AUDIO, towards(**vectors), seed=0)
    assert (found.queries, found.left_out, found.judgements, found.judges) == (1, 2, 4, 2)


def test_the_interval_is_over_queries() -> None:
    said = [one for number in range(8) for one in graded(f"q{number}", {"a": 2, "b": 0})]
    right, wrong = (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)
    embed = towards(**{f"q{number}": right if number % 2 else wrong for number in range(8)})
    found = judged_figure(said, IDS, AUDIO, embed, seed=3)
    assert found.ndcg is not None
    assert found.ndcg.value == pytest.approx((1 + 1 / log2(3)) / 2)
    assert found.ndcg.low < found.ndcg.value < found.ndcg.high
    assert found == judged_figure(said[::-1], IDS, AUDIO, embed, seed=3), "the order of the judgements is no matter"
    known = interval(np.array([1 / log2(3), 1] * 4), seed=3)
    assert (found.ndcg.low, found.ndcg.high) == pytest.approx((known.low, known.high))


def test_equal_scores_are_chance() -> None:
    found = judged_figure(graded("q", {"a": 2, "b": 1, "c": 0}), IDS, AUDIO, towards(q=(0, 0, 0, 0)), seed=0)
    assert found.ndcg is not None
    assert found.ndcg.value == pytest.approx(found.chance)


def test_a_model_that_leaks_gets_no_figure(tmp_path: Path) -> None:
    leaking = EvaluationRun(examples.evaluation(leak=examples.LEAKING), examples.vectors(AUDIO, AUDIO, IDS))
    assert judge_model(tmp_path, leaking, graded("q", {"a": 2, "b": 0})) is None
    passed = replace(leaking, evaluation=examples.evaluation())
    assert judge_model(tmp_path, passed, []) is None


def test_a_model_embeds_the_queries_itself(tmp_path: Path) -> None:
    captions = ["a low voice", "a high voice", "someone speaking fast", "slowly, with long pauses"]
    model = FSCLAP(ModelSettings()).eval()
    model.save_pretrained(tmp_path)
    told = model.embed_text(captions).numpy()  # clips that sound just as their captions say
    found = EvaluationRun(examples.evaluation(), examples.vectors(told, told, IDS))
    said = [
        one
        for right, caption in zip(IDS, captions, strict=True)
        for one in graded(caption, dict.fromkeys(IDS, 0.0) | {right: 2.0})
    ]
    judged = judge_model(tmp_path, found, said)
    assert judged is not None
    assert judged.ndcg == Interval(value=1, low=1, high=1)
    assert judged.queries == 4


def test_the_judgements_beside_a_corpus_reach_the_evaluation(tmp_path: Path) -> None:
    corpus = Corpus.open(tmp_path / "corpus", create=True)
    corpus.commit_source(**rows_of("e1", kept=3))
    version = corpus.version()
    assert judgements_of(corpus, version) == []
    a, b, c = corpus.utterances().to_pylist()
    said = {"model": "m", "corpus": "c", "version": version, "date": "2026-11-23T12:00:00+00:00", "query": "q"}
    for judge, clip, verdict in (("ada", a, "fits"), ("bob", a, "partly"), ("bob", b, "no")):
        heard = {"judge": judge, "utterance_id": clip["utterance_id"], "recipe": clip["recipe"], "verdict": verdict}
        Judgements(corpus.folder).add(said | heard)
    stale = {"judge": "ada", "utterance_id": c["utterance_id"], "recipe": "another", "verdict": "fits"}
    Judgements(corpus.folder).add(said | stale)
    assert judgements_of(corpus, version) == [
        Graded("q", a["utterance_id"], 1.5, ("ada", "bob"), (2, 1)),
        Graded("q", b["utterance_id"], 0, ("bob",), (0,)),
    ]


# In the results and on the page


JUDGED = Judged(
    ndcg=Interval(value=0.81, low=0.74, high=0.88),
    chance=0.62,
    above_chance=Interval(value=0.19, low=0.11, high=0.27),
    queries=23,
    left_out=4,
    judgements=310,
    elsewhere=17,
    clips=120,
    judges=3,
)


def test_results_from_before_there_were_judgements_still_load(tmp_path: Path) -> None:
    old = examples.evaluation().model_dump(mode="json")
    del old["judged"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert Evaluation.load(tmp_path / "old.json") == examples.evaluation()
    new = examples.evaluation(judged=JUDGED)
    new.save(tmp_path / "new.json")
    assert Evaluation.load(tmp_path / "new.json") == new


def test_the_report_shows_the_figure_and_what_it_stands_on(tmp_path: Path) -> None:
    said = words(write(tmp_path, examples.evaluation(judged=JUDGED)))
    assert "People's judgements" in said
    assert "81.0 % 74.0 % to 88.0 % 62.0 % 23 4 left out 310 17 more on other clips 120 3" in said
    assert "23 queries" in said
    assert judged_meaning(JUDGED) in said


def test_the_report_has_no_such_part_without_judgements_or_with_a_leak(tmp_path: Path) -> None:
    assert "People's judgements" not in words(write(tmp_path, examples.evaluation()))
    leaking = examples.evaluation(judged=JUDGED, leak=examples.LEAKING)
    assert "People's judgements" not in words(write(tmp_path, leaking))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "the interval excludes chance"),
        ({"above_chance": Interval(value=0.02, low=-0.03, high=0.07)}, "cannot tell the model from guessing"),
        ({"queries": 4}, "fewer than 5 queries it means nothing yet"),
        ({"ndcg": None, "chance": None, "above_chance": None, "queries": 0}, "None of 4 judged queries can be scored"),
    ],
)
def test_the_words_say_no_more_than_the_figures(tmp_path: Path, changes: dict, words: str) -> None:
    judged = JUDGED.model_copy(update=changes)
    assert words in judged_meaning(judged)
    if judged.ndcg is None:
        write(tmp_path, examples.evaluation(judged=judged))  # the page has a place for figures that are missing
