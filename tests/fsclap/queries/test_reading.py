"""What queries ask for, with the vectors that come with the package."""

import numpy as np
import pytest

from fsclap.model.embedded import SentenceTokens
from fsclap.queries.conditions import clip_words, vocabulary
from fsclap.queries.reading import MODEL_SHARE, VECTORS, Heard, Reader, Reading, combined, words
from fsclap.queries.wordings import held_out_wordings, load_wordings


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(SentenceTokens().sentences)


def share(reading: Reading, attribute: str, *among: str) -> float:
    """The weight of some words of an attribute; of all its words if none are named."""
    return sum(
        float(weight)
        for (name, word), weight in zip(words(), reading.weights, strict=True)
        if name == attribute and (not among or word in among)
    )


def test_the_vectors_are_those_of_the_wordings() -> None:
    wordings = load_wordings() + held_out_wordings()
    stored = np.load(VECTORS)
    assert stored.shape == (len(wordings), SentenceTokens.dim)
    some = np.arange(0, len(wordings), 390)
    fresh = SentenceTokens().sentences([wordings[at].phrase for at in some])
    assert np.allclose(stored[some], fresh, atol=2e-3), "make them again: python -m bench.wordings"


@pytest.mark.parametrize(
    ("query", "attribute", "asked"),
    [
        ("a voice like a bear", "pitch", ("low", "very low")),
        ("a pitch like a bear", "pitch", ("low", "very low")),
        ("a sad voice", "emotion", ("sad",)),
        ("an angry man", "emotion", ("angry",)),
        ("a mouse on helium", "pitch", ("high", "very high")),
        ("someone in a great hurry", "speaking_rate", ("fast", "very fast")),
        ("barely audible", "energy", ("soft", "hushed")),
        ("like a robot, on one note", "pitch_range", ("monotone", "narrow")),
        ("never stops for breath", "pauses", ("none",)),
        ("on the verge of tears", "emotion", ("sad",)),
    ],
)
def test_everyday_words_are_understood(reader: Reader, query: str, attribute: str, asked: tuple[str, ...]) -> None:
    assert share(reader.read(query), attribute, *asked) > 0.5


@pytest.mark.parametrize(
    "query", ["not high", "not a high voice", "not at all high", "isn't high", "anything but high", "never high"]
)
def test_a_negation_asks_for_the_other_side(reader: Reader, query: str) -> None:
    reading = reader.read(query)
    assert share(reading, "pitch", "low", "very low") > 0.5
    assert share(reading, "pitch", "high", "very high") < 0
    assert reading.asked()["pitch", "high"] < 0, "what is refused counts, too"


def test_a_wording_that_is_a_negation_is_no_refusal(reader: Reader) -> None:
    assert share(reader.read("without a single pause"), "pauses", "none") > 0.8


def test_each_part_is_read(reader: Reader) -> None:
    reading = reader.read("a squeaky voice, in no hurry, but loud")
    assert share(reading, "pitch", "high", "very high") > 0.1
    assert share(reading, "speaking_rate", "slow", "very slow") > 0.1
    assert share(reading, "energy", "loud", "very loud") > 0.1
    negated = reader.read("a loud voice but not fast")
    assert share(negated, "energy", "loud", "very loud") > 0.1
    assert share(negated, "speaking_rate", "slow", "very slow") > 0.1
    assert share(negated, "speaking_rate", "fast", "very fast") < 0


@pytest.mark.parametrize(
    ("query", "attribute", "asked"),
    [
        ("whispering so the baby doesn't wake up", "energy", ("soft", "hushed")),
        ("yelling as if the others couldn't hear him", "energy", ("loud", "very loud")),
        ("racing along because there is no time", "speaking_rate", ("fast", "very fast")),
        ("someone who doesn't shout", "energy", ("soft", "hushed", "medium")),
    ],
)
def test_a_reason_is_no_refusal(reader: Reader, query: str, attribute: str, asked: tuple[str, ...]) -> None:
    calm = Reader(SentenceTokens().sentences, without=[("voice_quality", "whispered")])
    reading = calm.read(query)
    assert share(reading, attribute, *asked) > 0.5
    others = {name for name, weight in reading.asked().items() if abs(weight) > 0.2} - {(attribute, a) for a in asked}
    assert {name for name, _ in others} <= {attribute}


def test_a_part_that_is_understood_is_not_lost_in_the_whole(reader: Reader) -> None:
    reading = reader.read("monotone but loud")
    assert share(reading, "energy", "loud", "very loud") > 0.4
    assert share(reading, "pitch_range", "monotone", "narrow") > 0.4


def test_each_word_of_a_part_is_read(reader: Reader) -> None:
    reading = reader.read("booming ogre")
    assert share(reading, "pitch", "low", "very low") > 0.2
    assert share(reading, "energy", "loud", "very loud") > 0.1


@pytest.mark.parametrize(
    ("query", "attribute", "change"),
    [
        ("hushed to begin with, then thunderous", "dynamics", "contrasted"),
        ("squeaky one moment and deep the next", "pitch_range", "sweeping"),
    ],
)
def test_both_ends_of_a_scale_ask_for_a_change(reader: Reader, query: str, attribute: str, change: str) -> None:
    assert share(reader.read(query), attribute, change) > 0.4


@pytest.mark.parametrize(
    ("query", "attribute"),
    [("not loud, but not quiet either", "dynamics"), ("deep voice, a twenty-year-old girl", "pitch_range")],
)
def test_both_ends_that_do_not_follow_each_other_ask_for_no_change(reader: Reader, query: str, attribute: str) -> None:
    assert share(reader.read(query), attribute) < 0.1


@pytest.mark.parametrize("query", ["neither gruff nor shrill", "warm rather than shrill", "warm instead of shrill"])
def test_what_is_refused_in_other_words_is_refused(reader: Reader, query: str) -> None:
    assert share(reader.read(query), "pitch", "high", "very high") <= 0


def test_an_evaluation_does_not_read_by_the_held_out_wordings() -> None:
    held_out = max(held_out_wordings(), key=lambda wording: len(wording.phrase)).phrase
    assert Reader(SentenceTokens().sentences).nearness(held_out) > 0.99
    assert Reader(SentenceTokens().sentences, held_out=False).nearness(held_out) < 0.98


def test_what_no_clip_has_is_not_read(reader: Reader) -> None:
    tags = [(name, word) for name in ("emotion", "events") for word in vocabulary()[name]]
    acoustic = Reader(SentenceTokens().sentences, without=[*tags, ("voice_quality", "whispered")])
    query = "sad, and high"
    assert share(reader.read(query), "emotion") > 0.2
    assert share(acoustic.read(query), "emotion") == 0
    assert share(acoustic.read(query), "pitch") > share(reader.read(query), "pitch")
    secret = "someone whispering a secret"
    assert share(reader.read(secret), "voice_quality", "whispered") > 0.5
    assert share(acoustic.read(secret), "energy", "hushed", "soft") > 0.5


def reading_of(**asked: str) -> Reading:
    return Reading(np.array([float(asked.get(attribute) == word) for attribute, word in words()]))


def test_clips_meet_a_word_by_their_distance_on_the_scale() -> None:
    styles = ["pitch=very high", "pitch=high", "pitch=medium", "pitch=low", "pitch=very low"]
    level = {"pitch": np.full(5, 0.5)}
    scores = Heard(clip_words(styles), level).scores(reading_of(pitch="high"))
    assert scores[0] == scores[1] > scores[2] > scores[3] == scores[4], "beyond the word counts in full"
    assert Heard(clip_words(styles), level).scores(reading_of(pitch="medium")).argmax() == 2
    higher = {"pitch": np.array([0.1, 0.2, 0.5, 0.5, 0.5])}
    assert Heard(clip_words(styles), higher).scores(reading_of(pitch="high")).argmax() == 1


def test_a_tag_is_met_by_those_that_have_it() -> None:
    styles = ["emotion=sad;events=breath+laughter", "emotion=happy", "pitch=low", ""]
    heard = Heard(clip_words(styles), {})
    assert heard.scores(reading_of(emotion="sad")).tolist() == [1, 0, 0, 0]
    assert heard.scores(reading_of(events="laughter")).tolist() == [1, 0, 0, 0]


def test_the_order_of_the_words_is_that_of_the_vocabulary() -> None:
    assert [attribute for attribute, _ in words()] == [name for name, known in vocabulary().items() for _ in known]


def test_scores_that_are_equal_say_nothing() -> None:
    equal, empty = np.full(3, 0.3, np.float32), np.zeros(0, np.float32)
    scores = np.array([1, 3, 2], np.float32)
    assert combined(equal, equal).tolist() == [0, 0, 0]
    assert combined(empty, empty).tolist() == []
    np.testing.assert_allclose(combined(equal, scores), MODEL_SHARE * combined(scores, equal), rtol=1e-6)
    assert combined(scores, equal).tolist() == pytest.approx([-(1.5**0.5), 1.5**0.5, 0])
