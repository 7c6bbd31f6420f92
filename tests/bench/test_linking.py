from pathlib import Path

import numpy as np
import pytest

from bench.corpus_quality import Recording
from bench.linking import cast, score, seconds_to_link, sweep
from fsclap.corpus.turns import Turn
from samples.timeline import TrueTurn


def test_score_of_right_joined_and_parted_persons() -> None:
    actors = {"1/S0": "ann", "2/S0": "ann", "1/S1": "bob", "2/S1": "bob"}
    assert score(actors, actors) == (1.0, 1.0, 1.0, 0.0)
    assert score(dict.fromkeys(actors, "all"), actors) == pytest.approx((0.5, 1.0, 1.0, 8 / 12))
    assert score({name: name for name in actors}, actors) == (1.0, 0.5, 0.5, 0.0)


def test_actor_recall_counts_a_minor_role_as_much_as_a_lead() -> None:
    actors = dict.fromkeys(["1", "2", "3", "4"], "lead") | dict.fromkeys(["5", "6"], "minor")
    persons = dict.fromkeys(["1", "2", "3", "4"], "a") | {"5": "b", "6": "c"}
    assert score(persons, actors) == pytest.approx((1.0, 5 / 6, 0.75, 0.0))


def voice(actor: str, seed: int) -> np.ndarray:
    own = np.random.default_rng(len(actor)).normal(size=32)
    vector = own + 0.2 * np.random.default_rng(seed).normal(size=32)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def test_a_cast_is_scored_by_the_actor_who_speaks_most(tmp_path: Path) -> None:
    recordings, found = [], []
    for number in range(3):
        truth, turns = [], []
        for line in range(8):
            actor = ("a", "bb")[(line + number) % 2]
            truth.append(TrueTurn(3.0 * line, 3.0 * line + 2.5, actor, None, "en", line))
            embedding = voice(actor, 10 * number + line)
            turns.append(Turn(3.0 * line, 3.0 * line + 2.6, line % 2, "", None, embedding))
        recordings.append(Recording(f"e{number}", tmp_path, tuple(truth)))
        found.append(turns)
    series = cast("dev", "clean", recordings, found)
    assert series.actors["dev/e1/S00"] == "bb"
    assert len(series.speakers) == 6
    best = max(sweep(series), key=lambda row: (row.precision + row.recall, row.constraint))
    assert (best.persons, best.precision, best.recall) == (2, 1.0, 1.0)


def test_time_is_measured() -> None:
    assert seconds_to_link(2, 3, 2, dim=8) > 0
