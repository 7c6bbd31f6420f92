"""Queries as a model is asked for them, with the bank of the package and embeddings made up."""

from pathlib import Path

import numpy as np
import pytest

from fsclap.queries.bank import draw_bank
from fsclap.queries.conditions import ANY, vocabulary
from fsclap.queries.prompts import TEXT, Asked, Prompts
from fsclap.queries.reading import Reading, words

BANK = draw_bank(2000)
LOW, HIGH = words().index(("pitch", "low")), words().index(("pitch", "high"))


def reading_of(**asked: float) -> Reading:
    return Reading(np.array([asked.get(word, 0.0) if attribute == "pitch" else 0.0 for attribute, word in words()]))


@pytest.fixture
def prompts() -> Prompts:
    return Prompts(np.eye(len(words()), dtype=np.float32))


def test_a_word_is_the_mean_of_the_queries_that_ask_for_it_alone() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(BANK), 8)).astype(np.float32)
    found = Prompts.of(BANK, lambda numbers: vectors[np.asarray(numbers, dtype=int)]).vectors
    column = list(vocabulary()).index("pitch")
    others = np.delete(BANK.allowed, column, axis=1)
    alone = (BANK.allowed[:, column] == vocabulary()["pitch"]["low"]) & (others == ANY).all(axis=1)
    assert 2 < alone.sum() < 100
    np.testing.assert_allclose(found[LOW], vectors[alone].mean(axis=0), rtol=1e-5)


def test_a_word_without_a_query_is_nothing() -> None:
    few = draw_bank(3)
    found = Prompts.of(few, lambda numbers: np.ones((len(numbers), 4), dtype=np.float32)).vectors
    assert found.shape == (len(words()), 4)
    assert (found == 0).all(axis=1).sum() >= len(words()) - 3


def test_a_query_is_its_text_and_its_words(prompts: Prompts) -> None:
    text = np.eye(len(words()), dtype=np.float32)[[HIGH]]
    vector = prompts.mixed(text, [reading_of(low=0.7)])[0]
    assert vector[LOW] == pytest.approx(1 / np.hypot(1, TEXT), rel=1e-5)
    assert vector[HIGH] == pytest.approx(TEXT / np.hypot(1, TEXT), rel=1e-5)
    refused = prompts.mixed(text, [reading_of(low=1.0, high=-1.0)])[0]
    assert refused[HIGH] < 0 < refused[LOW]


def test_a_query_that_asks_for_nothing_is_its_text(prompts: Prompts) -> None:
    text = np.eye(len(words()), dtype=np.float32)[[3]]
    np.testing.assert_allclose(prompts.mixed(text, [reading_of()]), text)


def test_they_are_kept_beside_a_model(tmp_path: Path, prompts: Prompts) -> None:
    assert Prompts.load(tmp_path) is None
    prompts.save(tmp_path)
    loaded = Prompts.load(tmp_path)
    assert loaded is not None
    np.testing.assert_array_equal(loaded.vectors, prompts.vectors)


def test_without_words_a_text_is_embedded_as_it_is(prompts: Prompts) -> None:
    text = np.eye(len(words()), dtype=np.float32)[:2]
    for read, known in ((None, prompts), (lambda _: reading_of(low=1.0), None)):
        np.testing.assert_array_equal(Asked(lambda _: text, read, known)(["a", "b"]), text)
