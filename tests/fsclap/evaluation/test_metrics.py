import subprocess
import sys
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, top_k_accuracy_score

from fsclap.evaluation import metrics
from fsclap.evaluation.metrics import (
    clip_map10,
    grouped_metrics,
    mean_map10,
    one_vector_a_caption,
    paper_metrics,
    random_metrics,
    ranks,
    same_group,
    scored_metrics,
    top_items,
)
from fsclap.evaluation.results import METRICS


def unit(rows: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(rows, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def tied(rows: int, distinct: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    """Rows of which many are equal."""
    return unit(distinct, dim, seed)[np.random.default_rng(seed).integers(distinct, size=rows)]


def laion(queries: np.ndarray, items: np.ndarray) -> dict[str, float]:
    """LAION CLAP's `get_metrics`, restated: the place of the diagonal in a descending argsort."""
    ranking = np.argsort(-(queries @ items.T), axis=1)
    place = np.argmax(ranking == np.arange(len(queries))[:, None], axis=1)
    found = {f"R@{k}": float(np.mean(place < k)) for k in (1, 5, 10)}
    return found | {"mAP@10": float(np.mean(np.where(place < 10, 1 / (place + 1), 0.0)))}


def of_order(relevant: list[bool], total: int) -> dict[str, float]:
    """Metrics of one query whose items are in a fixed order, by naive loops."""
    hits, precision = 0, 0.0
    for place, hit in enumerate(relevant[:10], start=1):
        if hit:
            hits += 1
            precision += hits / place
    found = {f"R@{k}": float(any(relevant[:k])) for k in (1, 5, 10)}
    return found | {"mAP@10": precision / min(total, 10)}


def by_permutations(scores: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    """The mean over every order that the scores allow: all permutations before a stable sort."""
    found = []
    for order in permutations(range(len(scores))):
        ranking = sorted(order, key=lambda item: -scores[item])
        found.append(of_order([bool(relevant[item]) for item in ranking], int(relevant.sum())))
    return {name: float(np.mean([one[name] for one in found])) for name in METRICS}


def by_chance(scores: np.ndarray, relevant: np.ndarray, draws: int = 20_000) -> dict[str, float]:
    """The mean over ties broken at random, drawn again and again."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        order = np.lexsort((rng.random(len(scores)), -scores))
        found.append(of_order(relevant[order].tolist(), int(relevant.sum())))
    return {name: float(np.mean([one[name] for one in found])) for name in METRICS}


@pytest.fixture(params=[2**24, 50], ids=["whole", "blocks"])
def any_block_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "AT_A_TIME", request.param)


@pytest.mark.usefixtures("any_block_size")
@pytest.mark.parametrize("size", [1, 3, 40, 150])
def test_without_ties_the_paper_mode_is_that_of_laion(size: int) -> None:
    audio, text = unit(size, seed=1), unit(size, seed=2) + unit(size, seed=1)
    found = paper_metrics(audio, text)
    assert {name: float(values.mean()) for name, values in found.items()} == pytest.approx(laion(audio, text))


def test_without_ties_recall_is_scikit_learns_top_k_accuracy() -> None:
    audio, text = unit(120, seed=1), unit(120, seed=2) + unit(120, seed=1)
    found = paper_metrics(audio, text)
    for k in (1, 5, 10):
        expected = top_k_accuracy_score(np.arange(120), audio @ text.T, k=k, labels=np.arange(120))
        assert found[f"R@{k}"].mean() == pytest.approx(expected)


def test_average_precision_is_scikit_learns_where_nothing_is_cut() -> None:
    """On ten items nothing lies beyond the tenth place, and without ties both definitions are the same."""
    rng = np.random.default_rng(0)
    scores, relevant = rng.normal(size=(200, 10)), rng.random((200, 10)) < 0.4
    relevant[:, 0] = True
    found = scored_metrics(scores, relevant, relevant.sum(axis=1))["mAP@10"]
    expected = [average_precision_score(*row) for row in zip(relevant, scores, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.usefixtures("any_block_size")
def test_ties_count_by_expectation_in_paper_mode() -> None:
    queries, items = unit(60, seed=1), tied(60, 12, seed=2)
    found, scores = paper_metrics(queries, items), queries.astype(np.float64) @ items.T.astype(np.float64)
    for query in (0, 17, 59):
        exact = by_chance(scores[query].round(6), np.arange(60) == query, draws=4_000)
        for name in METRICS:
            assert found[name][query] == pytest.approx(exact[name], abs=0.04)


def test_the_expected_rank_is_the_middle_of_the_ties() -> None:
    items = np.eye(4, dtype=np.float32)[[0, 1, 1, 1, 2, 3]]
    queries = np.tile(np.array([[0.9, 0.5, 0.1, 0.0]], dtype=np.float32), (6, 1))
    found = ranks(queries, items)
    assert found.better.tolist() == [0, 1, 1, 1, 4, 5]
    assert found.tied.tolist() == [0, 2, 2, 2, 0, 0]
    assert found.expected.tolist() == [1, 3, 3, 3, 5, 6]
    assert paper_metrics(queries, items)["mAP@10"].tolist() == pytest.approx(
        [1] + 3 * [(1 / 2 + 1 / 3 + 1 / 4) / 3] + [1 / 5, 1 / 6]
    )
    assert paper_metrics(queries, items)["R@5"].tolist() == [1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("seed", range(12))
def test_grouped_metrics_are_the_mean_over_all_orders_of_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, relevant = rng.integers(1 + seed % 4, size=7).astype(float), rng.random(7) < 0.5
    relevant[rng.integers(7)] = True
    found = scored_metrics(scores[None], relevant[None], relevant.sum()[None])
    assert {name: float(value[0]) for name, value in found.items()} == pytest.approx(by_permutations(scores, relevant))


@pytest.mark.parametrize("seed", range(4))
def test_ties_across_the_tenth_place_count_by_expectation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, relevant = rng.integers(4, size=40).astype(float), rng.random(40) < (0.03, 0.1, 0.3, 0.6)[seed]
    relevant[0] = True
    found = scored_metrics(scores[None], relevant[None], relevant.sum()[None])
    expected = by_chance(scores, relevant)
    for name in METRICS:
        assert found[name][0] == pytest.approx(expected[name], abs=0.015)


@pytest.mark.usefixtures("any_block_size")
def test_grouped_metrics_without_ties_are_those_of_naive_loops() -> None:
    queries, items = unit(30, seed=3), unit(90, seed=4)
    groups = np.random.default_rng(0).integers(6, size=90)
    found = grouped_metrics(queries, items, same_group(np.arange(30) % 6, groups))
    for query in range(30):
        relevant = groups == query % 6
        order = np.argsort(-(items @ queries[query]))
        expected = of_order(relevant[order].tolist(), int(relevant.sum()))
        assert {name: float(found[name][query]) for name in METRICS} == pytest.approx(expected)


@pytest.mark.usefixtures("any_block_size")
@pytest.mark.parametrize("items", [unit(50, seed=6), tied(50, 9, seed=6)], ids=["distinct", "tied"])
def test_one_relevant_item_is_the_paper_mode(items: np.ndarray) -> None:
    queries = unit(50, seed=5)
    grouped = grouped_metrics(queries, items, same_group(np.arange(50), np.arange(50)))
    for name, values in paper_metrics(queries, items).items():
        np.testing.assert_allclose(grouped[name], values, atol=1e-12)


def test_fewer_items_than_ten() -> None:
    queries, items = unit(3, seed=1), unit(4, seed=2)
    found = grouped_metrics(queries, items, same_group(np.zeros(3), np.zeros(4)))
    assert all((values == 1).all() for values in found.values())
    assert paper_metrics(items, items)["R@10"].tolist() == [1, 1, 1, 1]


@pytest.mark.usefixtures("any_block_size")
def test_equal_items_tie_wherever_they_are() -> None:
    """A plain matrix product rounds equal columns differently at its edges for some shapes."""
    for count in (33, 67, 129):
        for dim in (37, 255):
            queries, items = unit(count, dim, seed=1), np.repeat(unit(1, dim, seed=2), count, axis=0)
            assert (ranks(queries, items).tied == count - 1).all()


def test_a_collapsed_model_is_at_chance() -> None:
    same = np.repeat(unit(1), 60, axis=0)
    found = paper_metrics(same, same)
    assert found["R@1"].mean() == pytest.approx(1 / 60)
    assert found["R@10"].mean() == pytest.approx(10 / 60)
    assert found["mAP@10"].mean() == pytest.approx(sum(1 / r for r in range(1, 11)) / 60)


@pytest.mark.parametrize(("items", "total"), [(6, 2), (30, 1), (30, 4), (30, 25), (12, 12)])
def test_chance_is_the_mean_of_random_orders(items: int, total: int) -> None:
    relevant = np.arange(items) < total
    expected = by_chance(np.zeros(items), relevant, draws=8_000)
    found = random_metrics(items, np.array([total]))
    for name in METRICS:
        assert found[name][0] == pytest.approx(expected[name], abs=0.015)


def test_chance_with_one_relevant_item_has_a_closed_form() -> None:
    found = random_metrics(199, np.array([1]))
    assert found["R@5"][0] == pytest.approx(5 / 199)
    assert found["mAP@10"][0] == pytest.approx(sum(1 / r for r in range(1, 11)) / 199)


@pytest.mark.usefixtures("any_block_size")
def test_top_items_are_the_best_and_ties_fall_at_random() -> None:
    queries, items = unit(20, seed=1), unit(70, seed=2)
    expected = np.argsort(-(queries @ items.T), axis=1)
    for count in (1, 12, 70, 100):
        np.testing.assert_array_equal(top_items(queries, items, count, seed=0), expected[:, :count])
    same = np.repeat(unit(1), 40, axis=0)
    taken = np.concatenate([top_items(same[:1], same, 10, seed=seed)[0] for seed in range(400)])
    assert np.bincount(taken, minlength=40).min() > 60
    assert np.bincount(taken, minlength=40).max() < 140


def test_candidates_of_a_second_stage_are_scored_alone() -> None:
    scores = np.array([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]])
    relevant = np.array([[True, False, False], [False, False, False]])
    found = scored_metrics(scores, relevant, np.array([1, 1]))
    assert found["mAP@10"].tolist() == pytest.approx([1 / 3, 0])
    assert found["R@1"].tolist() == [0, 0]
    assert found["R@10"].tolist() == [1, 0]


def test_the_selection_figure_is_the_mean_of_both_directions() -> None:
    audio, text = unit(40, seed=1), unit(40, seed=2) + unit(40, seed=1)
    expected = (laion(audio, text)["mAP@10"] + laion(text, audio)["mAP@10"]) / 2
    assert mean_map10(audio, text) == pytest.approx(expected)
    assert clip_map10(audio, text).shape == (40,)


def test_one_caption_has_one_vector() -> None:
    text = np.repeat(unit(3), [2, 1, 3], axis=0)
    noisy = text + np.random.default_rng(0).normal(scale=1e-6, size=text.shape).astype(np.float32)
    captions = ["low", "low", "fast", "high", "high", "high"]
    assert len(np.unique(one_vector_a_caption(noisy, captions), axis=0)) == 3
    np.testing.assert_allclose(one_vector_a_caption(noisy, captions), text, atol=1e-5)
    with pytest.raises(ValueError, match="'high' has embeddings"):
        one_vector_a_caption(np.concatenate([text[:5], text[:1]]), captions)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paper_metrics(unit(3), unit(4)), "one item per query"),
        (lambda: paper_metrics(unit(0), unit(0)), "n >= 1"),
        (lambda: paper_metrics(unit(3) * np.nan, unit(3)), "NaN"),
        (lambda: grouped_metrics(unit(3, 4), unit(5, 6), same_group(np.zeros(3), np.zeros(5))), "expected"),
        (lambda: grouped_metrics(unit(3), unit(3), same_group(np.zeros(3), np.ones(3))), "no relevant item"),
    ],
)
def test_refuses_what_cannot_be_scored(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


LARGE = """
import numpy as np
from fsclap.evaluation.metrics import grouped_metrics, mean_map10, same_group

def peak():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0]) / 2**20  # ru_maxrss would count the process that this one was forked from

def unit(seed):
    x = np.random.default_rng(seed).normal(size=(20_000, 64)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)

audio, text = unit(0), unit(1)
before = peak()
found = mean_map10(audio, text)
groups = np.arange(20_000) % 500
grouped = grouped_metrics(audio, text, same_group(groups, groups))
assert abs(found * 20_000 - 2.93) < 0.5 and abs(grouped["R@1"].mean() - 40 / 20_000) < 0.002
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc")
def test_twenty_thousand_pairs_fit_in_four_gibibytes() -> None:
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    assert 0.05 < float(done.stdout) < 2.0
