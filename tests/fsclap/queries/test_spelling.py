import pytest

from fsclap.evaluation.natural import load_queries
from fsclap.model.embedded import SentenceTokens
from fsclap.queries.spelling import corrected, slips


@pytest.fixture(scope="module")
def known() -> frozenset[str]:
    return SentenceTokens().words()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("squekay", "squeaky"),
        ("a tierd man", "a tired man"),
        ("a whispry voice", "a whispery voice"),
        ("Monotnous and sloow", "monotonous and slow"),
        ("unhuried", "unhurried"),
        ("reads at ditcation pace", "reads at dictation pace"),
    ],
)
def test_a_letter_too_many_too_few_wrong_or_misplaced_is_a_slip(typed: str, meant: str, known: frozenset[str]) -> None:
    assert corrected(typed, slips(typed, known)) == meant


@pytest.mark.parametrize(
    "query", ["he thunders", "never dozes off", "jet", "xqzvk blorp", "naïve café señorita", "Barry White"]
)
def test_words_that_exist_and_words_that_are_like_none_are_left_alone(query: str, known: frozenset[str]) -> None:
    assert slips(query, known) == {}


def test_words_that_are_written_well_are_hardly_ever_taken_for_slips(known: frozenset[str]) -> None:
    words = [word for query in load_queries() for word in query.query.split()]
    assert sum(len(slips(word, known)) for word in words) < 0.01 * len(words)
