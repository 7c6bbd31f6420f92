"""Expected figures in pools, and systems compared query by query."""

import itertools

import numpy as np
import pytest

from fsclap.comparison.scores import best_possible, by_direction, differences, holm, in_pools, random_order
from fsclap.evaluation.metrics import Ranks, paper_metrics, ranks
from fsclap.evaluation.results import METRICS
from tests.fsclap.evaluation import examples


def test_the_expectation_is_the_mean_over_all_pools() -> None:
    audio, text = examples.pairs(7, dim=3, noise=2.0)
    text[3] = text[1] = text[0]  # ties
    total, times = {name: np.zeros(7) for name in METRICS}, np.zeros(7)
    for pool in itertools.combinations(range(7), 4):
        rows = np.array(pool)
        found = paper_metrics(audio[rows], text[rows])
        for name in METRICS:
            total[name][rows] += found[name]
        times[rows] += 1
    exact = in_pools(ranks(audio, text), 4)
    for name in METRICS:
        assert exact[name] == pytest.approx(total[name] / times)


def test_the_pool_of_all_clips_is_that_of_the_protocol() -> None:
    audio, text = examples.pairs(60, dim=5, noise=2.0)
    text[9] = text[8]
    found = by_direction(audio, text, 60)
    for side, expected in zip(found.values(), (paper_metrics(audio, text), paper_metrics(text, audio)), strict=True):
        for name in METRICS:
            assert side[name] == pytest.approx(expected[name])


def test_chance_and_the_best_order_bound_it() -> None:
    worst = in_pools(Ranks(better=np.arange(30), tied=np.zeros(30, dtype=int)), 30)
    for name, value in random_order(30).items():
        assert worst[name].mean() == pytest.approx(value)  # every rank once is a random order
    assert random_order(5)["R@10"] == 1
    assert best_possible(np.arange(20), 8) == pytest.approx(dict.fromkeys(METRICS, 1.0))
    assert best_possible(np.zeros(8, dtype=int), 8) == pytest.approx(random_order(8))


@pytest.mark.parametrize("pool", [1, 31])
def test_a_pool_that_cant_be_drawn_is_refused(pool: int) -> None:
    with pytest.raises(ValueError, match="can't be drawn"):
        in_pools(Ranks(better=np.arange(30), tied=np.zeros(30, dtype=int)), pool)


def test_a_difference_is_paired_and_corrected() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(300)  # a query that is hard for one system is hard for all
    values = np.stack([hard + 0.05 + 0.02 * rng.normal(size=300), hard, hard + 0.02 * rng.normal(size=300)], axis=1)
    found = {(one.first, one.second): one for one in differences(["a", "b", "c"], values, resamples=2000, seed=0)}
    assert set(found) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert found["a", "b"].significant
    assert found["a", "b"].difference.low > 0.04
    assert not found["b", "c"].significant
    assert found["b", "c"].difference.low < 0 < found["b", "c"].difference.high
    assert all(one.corrected >= one.p for one in found.values())
    (same,) = differences(["a", "a2"], values[:, [0, 0]], resamples=500, seed=0)
    assert (same.difference.value, same.p, same.significant) == (0, 1, False)


def test_the_p_value_is_right_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    trials = [differences(["a", "b"], rng.normal(size=(60, 2)), resamples=400, seed=s)[0].p for s in range(100)]
    assert 0.01 < np.mean(np.array(trials) < 0.05) < 0.12  # there is no difference


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
