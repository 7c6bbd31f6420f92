"""The matcher that uses no model: what it counts, and that it is measured as a model is."""

import json
from pathlib import Path

import numpy as np
import pytest

from fsclap.evaluation.match import match_attributes, word_rows
from fsclap.evaluation.protocol import evaluate_embeddings
from fsclap.evaluation.results import ALL_WORDS, AUDIBLE, Evaluation, RetrievalFigures
from fsclap.evaluation.words import match_meaning, meaning
from tests.fsclap.evaluation import examples
from tests.fsclap.evaluation.test_report import words, write

KEYS = [
    "pitch=low;energy=soft",
    "pitch=low",
    "pitch=high;energy=soft",
    "",
    "pitch=low;energy=loud;relative_rate=faster",
]


def figure(found: list[RetrievalFigures], stage: str, *, mode: str = "paper") -> float:
    """mAP@10 in the largest pool, mean of both directions."""
    rows = [row for row in found if (row.stage, row.mode, row.direction) == (stage, mode, "mean")]
    return max(rows, key=lambda row: row.pool).metrics["mAP@10"].value


def test_agreements_are_counted_with_silence_as_a_word() -> None:
    rows = word_rows(KEYS)
    agree = (rows @ rows.T - 1).astype(int)
    assert agree.tolist() == [
        [3, 2, 2, 1, 1],
        [2, 3, 1, 2, 1],
        [2, 1, 3, 1, 0],
        [1, 2, 1, 3, 0],
        [1, 1, 0, 0, 3],
    ]
    alone = word_rows(KEYS, without=("energy", "relative_rate"))
    assert (alone @ alone.T - 1)[0].tolist() == [1, 1, 0, 0, 1]
    assert word_rows(["", ""]).shape == (2, 1)


def test_words_that_compare_with_the_speaker_count_only_with_all_words() -> None:
    keys = [f"pitch=low;energy={level}" for level in ("hushed", "soft", "loud", "very loud")]
    found = match_attributes([f"caption {key}" for key in keys], keys, resamples=10)
    # One clip of four is right, and with the audible words all tie: (1 + 1/2 + 1/3 + 1/4) / 4.
    assert figure(found, AUDIBLE) == pytest.approx(25 / 48)
    assert figure(found, ALL_WORDS) == 1


@pytest.fixture
def clips() -> tuple[list[str], list[str]]:
    """Captions and styles of 300 clips, some of them equal."""
    rng = np.random.default_rng(0)
    pitches, rates = rng.integers(5, size=300), rng.integers(4, size=300)
    keys = [f"pitch=p{pitch};speaking_rate=r{rate}" for pitch, rate in zip(pitches, rates, strict=True)]
    return [f"a {key} voice, {row % 3}" for row, key in enumerate(keys)], keys


def test_it_has_the_pools_chance_ceiling_and_order_of_a_model(clips: tuple[list[str], list[str]]) -> None:
    captions, keys = clips
    matched = match_attributes(captions, keys, seed=3, resamples=20, draws=2)
    vectors = np.random.default_rng(0).normal(size=(300, 4))
    text = vectors[np.unique(captions, return_index=True)[1]][np.unique(captions, return_inverse=True)[1]]
    model = evaluate_embeddings(vectors, text, captions, keys, seed=3, resamples=20, draws=2)
    for stage in (AUDIBLE, ALL_WORDS):
        rows = [row for row in matched if row.stage == stage]
        assert [row.model_copy(update={"stage": "embeddings", "metrics": {}}) for row in rows] == [
            row.model_copy(update={"metrics": {}}) for row in model
        ]
        for row in rows:
            assert all(row.metrics[name].value <= row.ceiling[name] + 1e-9 for name in row.metrics)


def test_whoever_hears_every_word_finds_every_clip_of_the_style(clips: tuple[list[str], list[str]]) -> None:
    found = match_attributes(*clips, resamples=20)
    assert figure(found, ALL_WORDS, mode="grouped") == pytest.approx(1)
    assert figure(found, ALL_WORDS) < 1  # which of them is the right one, no word says


def test_a_caption_of_two_styles_is_read_as_the_first(clips: tuple[list[str], list[str]]) -> None:
    found = match_attributes(["same", "Same", "other"], ["pitch=low", "pitch=high", "pitch=low"], resamples=10)
    assert 0 < figure(found, ALL_WORDS) < 1


# On the page and in words


def with_match(audible: float, every: float) -> Evaluation:
    evaluation = examples.evaluation()
    return evaluation.model_copy(update={"matched": examples.matched(evaluation, audible=audible, every=every)})


def test_the_report_shows_it_next_to_chance_and_ceiling(tmp_path: Path) -> None:
    evaluation = with_match(0.4321, 0.6543)
    said = words(write(tmp_path, evaluation))
    assert "43.2 % mAP@10, attribute match" in said
    # One per metric in each row, re-ranked ones included.
    assert said.count("attribute match 43.2 with all words 65.4") == 4 * len(evaluation.retrieval)
    assert match_meaning(evaluation) in said
    assert "65.4 % with those too that compare a clip with its speaker's others" in said


def test_a_model_far_below_it_is_told_so() -> None:
    reached = with_match(1, 1).figure("mAP@10", mode="paper").value
    below = with_match(10.5 * reached, 0.9)
    assert "below a tenth" in meaning(below)
    assert "below a tenth" not in meaning(with_match(9.5 * reached, 0.9))
    assert "attribute match" not in meaning(examples.evaluation()).lower()


def test_results_from_before_there_was_a_match_still_load(tmp_path: Path) -> None:
    old = examples.evaluation().model_dump(mode="json")
    del old["matched"], old["natural"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert Evaluation.load(tmp_path / "old.json") == examples.evaluation()
    said = words(write(tmp_path, Evaluation.load(tmp_path / "old.json")))
    assert "attribute match" not in said
    assert "Queries as people type them" not in said
    new = with_match(0.3, 0.5)
    new.save(tmp_path / "new.json")
    assert Evaluation.load(tmp_path / "new.json") == new
