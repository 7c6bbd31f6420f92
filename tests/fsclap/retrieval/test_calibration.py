from pathlib import Path

import numpy as np
import pytest

from fsclap.data.splits import Split, SplitSettings
from fsclap.queries.conditions import clip_words
from fsclap.retrieval.calibration import by_queries, by_sounds, fit, unheard_rows
from fsclap.retrieval.search import Searcher

RNG = np.random.default_rng(0)


def test_a_share_is_what_was_found_true_of_such_scores() -> None:
    scores = RNG.uniform(0, 1, 20_000)
    truth = (RNG.uniform(0, 1, 20_000) < scores**2).astype(float)
    found = fit(scores, truth)
    assert found.chance == pytest.approx(1 / 3, abs=0.02)
    for score in (0.2, 0.5, 0.8):
        assert found.share(score) == pytest.approx(score**2, abs=0.04)
    assert found.share(-9) <= found.share(9)
    assert (np.diff(found.shares) >= 0).all()


def test_scores_without_meaning_are_worth_no_more_than_chance() -> None:
    found = fit(RNG.normal(size=6000), RNG.integers(0, 2, 6000).astype(float))
    assert found.share(3) == pytest.approx(found.chance, abs=0.1)


def test_a_ranking_by_what_was_measured_has_all_that_is_asked_for() -> None:
    pitch = np.arange(100, 200).astype(float)
    ranks = {"pitch": (np.arange(100) + 0.5) / 100}
    high = {"high": True}

    def score(query: str) -> np.ndarray:
        high["high"] = not high["high"]
        return RNG.normal(size=100)

    assert by_queries({"pitch": pitch[:10]}, ranks, score) is None
    found = by_queries({"pitch": pitch}, ranks, score)
    assert found is not None
    assert found.chance == pytest.approx(1 / 3, abs=0.02)


def test_two_sounds_share_the_words_of_their_styles() -> None:
    words = clip_words(["pitch=low;speaking_rate=slow", "pitch=high;speaking_rate=fast"] * 20)
    vectors = np.array([[1.0, 0.0], [0.0, 1.0]] * 20, dtype=np.float32)
    found = by_sounds(words, vectors, ())
    assert found is not None
    assert (found.share(1.0), found.share(0.0)) == (1.0, 0.0)
    assert by_sounds(words[:10], vectors[:10], ()) is None
    assert by_sounds(clip_words([""] * 40), vectors, ()) is None


def test_clips_of_the_training_are_left_out_where_others_are_enough(tmp_path: Path) -> None:
    ids = [f"clip-{number}" for number in range(50)]
    for trained, kept in ((30, 20), (40, 50)):
        parts = {"train": ids[:trained], "validation": [], "test": ids[trained:]}
        Split(settings=SplitSettings(), **parts, removed={}, voices=[], nearest={}).save(tmp_path / "split.json")
        assert len(unheard_rows(ids, tmp_path / "split.json")) == kept
    assert len(unheard_rows(ids, tmp_path / "gone.json")) == 50


def test_every_ranking_of_an_index_is_calibrated(searcher: Searcher) -> None:
    for by in ("words", "both", "sound"):
        found = searcher.calibration(by)  # type: ignore[arg-type]
        assert found is not None
        assert found.share(found.scores[-1]) > found.chance
    hits = searcher.search("a high voice", top=40)
    words = searcher.calibration("words")
    assert words is not None
    assert words.share(hits[0].score) > words.share(hits[-1].score)
