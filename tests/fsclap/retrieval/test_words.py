"""Search by the words of styles, why a clip was found, and what of a query could not be used."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fsclap.model.embedded import SentenceTokens
from fsclap.queries.reading import MODEL_SHARE
from fsclap.retrieval import By
from fsclap.retrieval.filters import Condition
from fsclap.retrieval.index import SearchError
from fsclap.retrieval.readable import Readable
from fsclap.retrieval.search import Searcher
from fsclap.retrieval.words import Styles

STYLES = (
    "pitch=very low;speaking_rate=slow",
    "pitch=low;speaking_rate=very fast",
    "pitch=very high;energy=loud",
    "pitch=medium;pauses=many",
    "pitch=high;energy=hushed;speaking_rate=fast",
    "",
)


def with_styles(searcher: Searcher, styles: tuple[str, ...] = STYLES, **columns: Any) -> Searcher:
    """The first clips of the index with other styles, all with the same measures."""
    rows = searcher.index.rows.slice(0, len(styles)).drop(["style_key", "attributes"])
    rows = rows.append_column("style_key", pa.array(styles, pa.string()))
    for name, values in columns.items():
        rows = rows.append_column(name, values)
    index = dataclasses.replace(searcher.index, rows=rows, vectors=searcher.index.vectors[: len(styles)])
    return Searcher(index, searcher.model)


@pytest.fixture(scope="module")
def styled(searcher: Searcher) -> Searcher:
    return with_styles(searcher)


def order(searcher: Searcher, query: str, by: By = "words", top: int = 10) -> list[int]:
    ids = searcher.index.rows["utterance_id"].to_pylist()
    return [ids.index(hit.utterance_id) for hit in searcher.search(query, by=by, top=top)]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("a voice like a bear", [0, 1]),
        ("a mouse on helium", [2, 4]),
        ("someone who is in a great hurry", [1, 4]),
        ("with long gaps between the words", [3]),
        ("barely audible", [4]),
        ("a deep voice in no rush", [0]),
        ("anything but low, and not quiet", [2]),
    ],
)
def test_words_find_the_style_that_was_asked_for(styled: Searcher, query: str, first: list[int]) -> None:
    assert order(styled, query, top=len(first)) == first


def test_the_measured_value_decides_among_clips_with_the_same_word(searcher: Searcher) -> None:
    pitched = searcher.index.rows["attributes"].slice(0, 6)  # higher from clip to clip
    same = with_styles(searcher, ("pitch=high;timbre=dark",) * 6, attributes=pitched)
    assert order(same, "a squeaky voice") == [5, 4, 3, 2, 1, 0]
    assert order(same, "a voice that is not high") == [0, 1, 2, 3, 4, 5]


def test_both_is_the_weighted_sum_of_the_two_in_standard_deviations(styled: Searcher) -> None:
    query = "a voice like a bear"
    scores = {
        by: {hit.utterance_id: hit.score for hit in styled.search(query, by=by)} for by in ("model", "words", "both")
    }
    ids = styled.index.rows["utterance_id"].to_pylist()
    model, words, both = (np.array([scores[by][id_] for id_ in ids]) for by in ("model", "words", "both"))
    expected = MODEL_SHARE * (model - model.mean()) / model.std() + (words - words.mean()) / words.std()
    assert both == pytest.approx(expected, abs=1e-3)
    assert order(styled, query, "both") == np.argsort(-expected).tolist()


def test_without_a_style_the_model_decides(searcher: Searcher) -> None:
    bare = with_styles(searcher, ("",) * 6)
    assert order(bare, "a low voice", "both") == order(bare, "a low voice", "model")
    assert bare.notes("a sad voice") == []
    assert all(hit.why == () for hit in bare.search("a low voice"))
    with pytest.raises(SearchError, match="no styles"):
        bare.search("a low voice", by="words")
    unstyled = dataclasses.replace(bare.index, rows=bare.index.rows.drop(["style_key"]))
    assert order(Searcher(unstyled, bare.model), "a low voice", "both") == order(bare, "a low voice", "model")


def test_conditions_narrow_a_search_by_words(styled: Searcher) -> None:
    where = [Condition.parse("style_key~slow")]
    assert [hit.row["style_key"] for hit in styled.search("a squeaky voice", by="words", where=where)] == [STYLES[0]]


@pytest.mark.parametrize("by", ["model", "words", "both"])
def test_a_hit_says_what_it_has_of_what_was_asked(styled: Searcher, by: By) -> None:
    hits = styled.search("a deep voice, speaking slowly", by=by)
    why = {hit.row["style_key"]: set(hit.why) for hit in hits}
    assert why == {
        "pitch=very low;speaking_rate=slow": {"very low pitch", "slow"},
        "pitch=low;speaking_rate=very fast": {"low pitch"},
        "pitch=very high;energy=loud": set(),
        "pitch=medium;pauses=many": set(),
        "pitch=high;energy=hushed;speaking_rate=fast": set(),
        "": set(),
    }
    refused = styled.search("not slow", by=by)
    assert {hit.row["style_key"] for hit in refused if hit.why} == {STYLES[1], STYLES[4]}


def test_a_silent_attribute_is_a_reason_only_where_silence_has_a_word(styled: Searcher) -> None:
    hits = styled.search("no pauses at all", by="words")
    assert {hit.row["style_key"] for hit in hits if hit.why == ("no pauses",)} == {*STYLES[:3], STYLES[4]}


def test_an_attribute_that_no_clip_has_is_not_searched_by(styled: Searcher, searcher: Searcher) -> None:
    (note,) = styled.notes("a sad voice")
    assert str(note) == "No clip of this corpus has an emotion, so 'sad' was not used."
    assert "a sound event, so 'laughter'" in " ".join(map(str, styled.notes("laughing out loud")))
    assert styled.notes("a deep voice, speaking slowly") == []
    feeling = with_styles(searcher, (*STYLES, "emotion=sad;pitch=low"))
    assert feeling.notes("a sad voice") == []
    assert order(feeling, "a sad voice", top=1) == [6]
    assert feeling.search("a sad voice", top=1, by="words")[0].why == ("sad",)


@pytest.mark.parametrize("query", ["😀😀", "低沉的声音", "грустный голос", "صوت حزين", "한국어", "?!"])
def test_a_query_that_can_not_be_read_is_refused(styled: Searcher, query: str) -> None:
    for ask in (styled.search, styled.notes):
        with pytest.raises(SearchError, match="can't be read: describe the speech in English"):
            ask(query)


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ("a deep voice 😀", "😀"),
        ("a deep voice😀", "😀"),
        ("a deep 悲しい 声 voice", "悲しい 声"),
        ("deep, голос", "голос"),
    ],
)
def test_the_part_that_can_not_be_read_is_named(styled: Searcher, query: str, part: str) -> None:
    (note,) = styled.notes(query)
    assert str(note).startswith(f"{part!r} can't be read")
    rest = " ".join(query.replace(part, "").split())
    assert styled.search(query) == styled.search(rest), "the rest is searched for"


def test_accents_quotes_and_digits_can_be_read(styled: Searcher) -> None:
    assert styled.notes("a naïve, “deep” voice – café, 20 years old") == []


def test_a_slip_is_read_as_what_was_meant_and_told(styled: Searcher) -> None:
    (note,) = styled.notes("a deep voise")
    assert str(note) == "'voise' is read as 'voice'."
    assert styled.search("a depe voise") == styled.search("a deep voice")


def test_the_end_of_a_long_query_is_named(styled: Searcher) -> None:
    long = "a deep voice " * 42  # 126 word pieces, and two marks
    assert styled.notes(long) == []
    (note,) = styled.notes(long + "speaking slowly all the time")
    assert str(note) == "The query is too long: the model did not read its end, 'speaking slowly all the ...'."


def test_of_an_encoder_without_a_tokenizer_only_the_script_is_known() -> None:
    class Bare:
        max_tokens = 5

    assert Readable(Bare()).notes("a deep voice " * 100) == []
    assert Readable(Bare()).unread("a deep голос") == ["голос"]


def test_styles_that_are_damaged_or_missing_could_be_anything() -> None:
    rows = pa.table({"style_key": pa.array([None, "pitch=low", "pitch=purple"], pa.string())})
    styles = Styles(rows, SentenceTokens().sentences)
    told = styles.matches(styles.read("a low voice"), np.arange(3), ["A low voice.", "Slow, but low.", "A voice."])
    assert [match.has for match in told] == [(), ("low pitch",), ()]
    assert [match.lacks for match in told] == [("low pitch", "very low pitch"), (), ("low pitch", "very low pitch")]
    assert [match.marked for match in told] == [(), ("low",), ()]
