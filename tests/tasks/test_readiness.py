"""The ceiling that equal captions put on retrieval, against a simulation of ties broken at random."""

import numpy as np
import pytest

from tasks.readiness import recall_ceiling


@pytest.mark.parametrize("sizes", [[1, 1, 1], [2, 1], [5], [3, 3, 2, 1]])
def test_the_ceiling_is_what_a_perfect_model_reaches(sizes: list[int]) -> None:
    captions = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(0)
    hits = 0
    rounds = 4000
    for _ in range(rounds):
        clip = rng.integers(len(captions))
        alike = np.flatnonzero(captions == captions[clip])
        hits += rng.choice(alike) == clip
    assert recall_ceiling(np.array(sizes)) == pytest.approx(hits / rounds, abs=0.04)
