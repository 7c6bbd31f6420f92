import numpy as np

from fsclap.queries.bank import COUNTS, draw_bank, opposites
from fsclap.queries.conditions import ANY, SILENT, vocabulary
from fsclap.queries.wordings import load_wordings


def test_a_bank_has_distinct_queries_and_is_always_the_same() -> None:
    bank = draw_bank(500, seed=3)
    assert len(bank) == len(set(bank.texts)) == 500
    draw_bank.cache_clear()
    again = draw_bank(500, seed=3)
    assert bank.texts == again.texts
    np.testing.assert_array_equal(bank.allowed, again.allowed)
    assert bank.texts[:100] == draw_bank(100, seed=3).texts
    assert bank.texts != draw_bank(500, seed=4).texts
    assert len(draw_bank(0)) == 0


def test_a_query_names_one_to_three_attributes() -> None:
    named = (draw_bank(500).allowed != ANY).sum(axis=1)
    assert set(named.tolist()) == set(COUNTS)
    assert (draw_bank(500).allowed != 0).all()


def test_a_query_says_what_it_is_true_of() -> None:
    """The wordings in a query are of the words that it is true of, or negations of the others."""
    bank = draw_bank(400)
    attributes = list(vocabulary())
    phrases = {w.phrase.lower(): (w.attribute, w.word) for w in load_wordings()}
    checked = negated = 0
    for text, allowed in zip(bank.texts, bank.allowed, strict=True):
        meaning = phrases.get(text.lower().rstrip("."))
        if meaning:
            attribute, word = meaning
            expected = [ANY] * len(attributes)
            expected[attributes.index(attribute)] = vocabulary()[attribute][word]
            assert allowed.tolist() == expected, text
            checked += 1
        if text.lower().startswith("not ") and (meaning := phrases.get(text.lower().rstrip(".")[4:])):
            attribute, word = meaning
            bits = sum(vocabulary()[attribute][other] for other in opposites(attribute, word))
            assert allowed[attributes.index(attribute)] == bits, text
            negated += 1
    assert checked > 50
    assert negated


def test_what_a_negation_asks_for() -> None:
    assert opposites("pitch", "high") == ["very low", "low"]
    assert opposites("pitch", "medium") == []
    assert opposites("pauses", "many") == ["none"]
    assert opposites("pauses", "none") == ["many"]
    assert opposites("emotion", "sad") == []
    assert vocabulary()["pauses"]["none"] == SILENT
