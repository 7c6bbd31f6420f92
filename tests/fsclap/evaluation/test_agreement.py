import numpy as np
import pytest

from fsclap.evaluation.agreement import ordinal_alpha
from fsclap.evaluation.results import Judged
from fsclap.evaluation.words import agreement

# Krippendorff (2011), example C: four observers, twelve units; a dot: no value.
EXAMPLE = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""


def test_the_example_of_the_paper() -> None:
    rows = [line.split() for line in EXAMPLE.strip().splitlines()]
    units = [[float(row[unit]) for row in rows if row[unit] != "."] for unit in range(12)]
    assert ordinal_alpha(units) == pytest.approx(0.815, abs=5e-4)


def test_agreement_and_chance() -> None:
    assert ordinal_alpha([(0, 0), (1, 1), (2, 2, 2)]) == 1
    assert ordinal_alpha([(0, 2), (2, 0)]) < 0  # type: ignore[operator]
    drawn = np.random.default_rng(0).integers(0, 3, (3000, 2))
    assert ordinal_alpha(drawn.tolist()) == pytest.approx(0, abs=0.05)
    near, far = [(0, 1), (1, 2), (2, 2), (0, 0)] * 5, [(0, 2), (1, 2), (2, 2), (0, 0)] * 5
    assert ordinal_alpha(near) > ordinal_alpha(far)  # type: ignore[operator]


@pytest.mark.parametrize("units", [[], [(1,)], [(1, 1), (1, 1)]])
def test_without_pairs_or_differences_there_is_no_figure(units: list[tuple[float, ...]]) -> None:
    assert ordinal_alpha(units) is None


@pytest.mark.parametrize(
    ("twice", "alpha", "said"),
    [(0, None, ""), (3, None, "too few or too alike"), (9, 0.2, "hear different things"), (9, 0.7, "tentative"),
     (9, 0.9, "the judges agree")],
)  # fmt: skip
def test_agreement_is_told_in_words(twice: int, alpha: float | None, said: str) -> None:
    judged = Judged(
        ndcg=None, chance=None, above_chance=None, queries=0, left_out=1, judgements=0, elsewhere=0, clips=0, judges=2,
        alpha=alpha, judged_twice=twice,
    )  # fmt: skip
    assert said in agreement(judged)
    assert bool(agreement(judged)) == bool(said)
