"""FunASR's sentences: every case seen in its source, and how they become turns."""

import logging
from itertools import pairwise
from typing import Any

import pytest

from fsclap.corpus.diarization.base import DiarizationSettings
from fsclap.corpus.diarization.sentences import Sentence, Stretch, clean, join, parse_sentences
from fsclap.corpus.diarization.sentences import stretches as divided
from fsclap.corpus.turns import NOISE


def stretches(given: list[Sentence], options: DiarizationSettings) -> list[Stretch]:
    return divided(given, options)[0]


def item(start: int | None, end: int | None, text: Any = "你好。", **more: Any) -> dict[str, Any]:
    return {"text": text, "start": start, "end": end, "spk": 0, "timestamp": [], **more}


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("你 好 ， 世 界 。", "你好 ， 世界 。"),
        ("  hello   world. ", "hello world."),
        (" me 说子。", "me 说子。"),
        ("<|zh|><|NEUTRAL|>你 好", "你好"),
        ("<|nospeech|>", ""),
        ("ひ ら がな", "ひらがな"),
        (["你", "好", "hello"], "你好 hello"),
        ([], ""),
        (None, ""),
        ("", ""),
    ],
)
def test_text_is_cleaned(raw: object, text: str) -> None:
    assert clean(raw) == text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(
            item(500, 1210, "国和，", timestamp=[[500, 730], [730, 1210]]),
            Sentence(0.5, 1.21, 0, "国和，", ((0.5, 0.73), (0.73, 1.21))),
            id="as-usual",
        ),
        pytest.param(item(0, 800), Sentence(0.0, 0.8, 0, "你好。"), id="empty-timestamp"),
        pytest.param(
            {"text": "你好。", "start": 0, "end": 800, "spk": 1}, Sentence(0.0, 0.8, 1, "你好。"), id="no-timestamp"
        ),
        pytest.param(item(0, 800, timestamp=None), Sentence(0.0, 0.8, 0, "你好。"), id="timestamp-none"),
        pytest.param(
            item(0, 800, timestamp=[[0, 400], None]), Sentence(0.0, 0.8, 0, "你好。"), id="word-without-timestamp"
        ),
        pytest.param(item(0, 800, timestamp=[[0, 400]]), Sentence(0.0, 0.8, 0, "你好。"), id="fewer-timestamps"),
        pytest.param(
            item(None, 800, timestamp=[[100, 400], [400, 800]]),
            Sentence(0.1, 0.8, 0, "你好。", ((0.1, 0.4), (0.4, 0.8))),
            id="start-from-words",
        ),
        pytest.param(
            item(0, 900, ["你", "好", "me"], timestamp=[[0, 300], [300, 600], [600, 900]]),
            Sentence(0.0, 0.9, 0, "你好 me", ((0.0, 0.3), (0.3, 0.6), (0.6, 0.9))),
            id="text-is-a-list",
        ),
        pytest.param(item(0, 800, spk=-1), Sentence(0.0, 0.8, NOISE, "你好。"), id="speaker-minus-1"),
        pytest.param(item(0, 800, spk=None), Sentence(0.0, 0.8, NOISE, "你好。"), id="speaker-none"),
        pytest.param({"text": "你好", "start": 0, "end": 800}, Sentence(0.0, 0.8, NOISE, "你好"), id="speaker-missing"),
        pytest.param(item(0, 800, spk=3), Sentence(0.0, 0.8, NOISE, "你好。"), id="noise-of-hdbscan"),
        pytest.param(item(9500, 12000), Sentence(9.5, 10.0, 0, "你好。"), id="past-the-end"),
        pytest.param(item(-100, 500), Sentence(0.0, 0.5, 0, "你好。"), id="before-the-beginning"),
        pytest.param(item(0, 800, ""), "without words", id="empty-text"),
        pytest.param(item(0, 800, " 。"), "without words", id="only-punctuation"),
        pytest.param(item(0, 800, "<|nospeech|>"), "without words", id="only-a-tag"),
        pytest.param(item(None, None), "without a position", id="no-position"),
        pytest.param(item(800, 500), "end before they start", id="end-before-start"),
        pytest.param(item(500, 500), "end before they start", id="no-length"),
        pytest.param(item(10_000, 12_000), "behind the end of the recording", id="behind-the-end"),
    ],
)
def test_a_sentence_is_what_it_can_be_believed_to_be(
    given: dict[str, Any], expected: Sentence | str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        found = parse_sentences([given], duration=10.0, noise=3)
    if isinstance(expected, Sentence):
        assert found == [expected]
        assert not caplog.messages
    else:
        assert found == []
        assert len(caplog.messages) == 1
        assert f"1 {expected}" in caplog.text or f"1 that {expected}" in caplog.text


def test_a_result_without_sentences_has_none() -> None:
    assert parse_sentences(None, duration=10.0) == []
    assert parse_sentences([], duration=10.0) == []


def test_sentences_come_in_order_and_the_dropped_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    given = [item(3000, 4000), item(0, 5000), item(100, 50), item(0, 900), item(200, 100)]
    with caplog.at_level(logging.INFO):
        found = parse_sentences(given, duration=10.0)
    assert [(s.start, s.end) for s in found] == [(0.0, 0.9), (0.0, 5.0), (3.0, 4.0)]
    assert "2 that end before they start" in caplog.text


def said(start: float, end: float, speaker: int = 0, text: str = "好。") -> Sentence:
    return Sentence(start, end, speaker, text)


def settings(**changed: float) -> DiarizationSettings:
    return DiarizationSettings(**{"min_turn": 0.4, "max_turn": 15.0, "merge_gap": 0.5, **changed})  # type: ignore[arg-type]


def spans(found: list[Stretch]) -> list[tuple[float, float, int]]:
    return [(round(s.start, 3), round(s.end, 3), s.speaker) for s in found]


def test_sentences_of_one_speaker_join_over_short_pauses() -> None:
    given = [said(0, 1, text="你好，"), said(1.5, 2, text="世界。"), said(2.6, 4, text="再见。")]
    assert stretches(given, settings()) == [Stretch(0, 2, 0, "你好，世界。"), Stretch(2.6, 4, 0, "再见。")]


def test_another_speaker_ends_a_turn() -> None:
    given = [said(0, 1, 4), said(1, 2, 2), said(2, 3, 4), said(3, 4, NOISE)]
    assert spans(stretches(given, settings())) == [(0, 1, 0), (1, 2, 1), (2, 3, 0), (3, 4, NOISE)]


def test_a_long_turn_is_cut_at_its_longest_pause() -> None:
    given = [said(0, 3), said(3.2, 6), said(6.1, 9), said(9.4, 12)]
    assert spans(stretches(given, settings(max_turn=9))) == [(0, 9, 0), (9.4, 12, 0)]
    assert spans(stretches(given, settings(max_turn=6))) == [(0, 3, 0), (3.2, 9, 0), (9.4, 12, 0)]


def test_of_equal_pauses_the_one_in_the_middle_is_the_best() -> None:
    given = [said(at, at + 1) for at in range(8)]
    assert spans(stretches(given, settings(max_turn=5))) == [(0, 4, 0), (4, 8, 0)]


def test_a_cut_leaves_no_piece_too_short_where_another_cut_does() -> None:
    given = [said(0, 0.2), said(0.4, 3), said(3.1, 6)]
    assert spans(stretches(given, settings(max_turn=4))) == [(0, 3, 0), (3.1, 6, 0)]


def test_a_long_sentence_is_cut_between_words_and_keeps_all_of_them() -> None:
    words = ((0.0, 1.0), (1.0, 2.0), (2.4, 3.0), (3.0, 4.0))
    given = [Sentence(0.0, 4.0, 1, "你好 me 呀。", words)]
    assert stretches(given, settings(max_turn=3)) == [Stretch(0.0, 2.0, 0, "你好"), Stretch(2.4, 4.0, 0, "me 呀。")]
    pieces = stretches(given, settings(max_turn=2, min_turn=0.1))
    assert "".join(piece.text for piece in pieces) == "你好me 呀。"


def test_what_can_not_be_cut_is_dropped_with_its_times() -> None:
    kept, dropped = divided([said(0, 20), said(20, 21)], settings())
    assert kept == [Stretch(20, 21, 0, "好。")]
    assert [(one.start, one.end, one.reason) for one in dropped] == [(0, 20, "too_long")]
    assert "20.00 s are more than diarization.max_turn = " in dropped[0].detail


def test_what_is_short_is_dropped_with_its_times() -> None:
    kept, dropped = divided([said(0, 0.3, 0), said(0.3, 1, 1)], settings())
    assert spans(kept) == [(0.3, 1, 0)]
    assert [(one.start, one.end, one.reason) for one in dropped] == [(0, 0.3, "too_short")]
    assert dropped[0].detail == "0.30 s are less than the shortest turn, 0.4 s"


def test_overlapping_turns_share_the_overlap_and_know_it() -> None:
    first, second = stretches([said(0, 5, 0), said(4, 8, 1)], settings())
    assert (first.end, second.start) == (4.5, 4.5)
    assert first.overlap == pytest.approx(0.5 / 4.5)
    assert second.overlap == pytest.approx(0.5 / 3.5)


def test_a_turn_inside_another_is_dropped_and_its_share_known() -> None:
    kept, dropped = divided([said(0, 10, 0), said(4, 6, 1)], settings())
    assert kept == [Stretch(0, 10, 0, "好。", 0.2)]
    assert [(one.start, one.end, one.reason) for one in dropped] == [(4, 6, "inside_another")]


def test_what_two_others_cover_is_counted_once() -> None:
    (only,) = stretches([said(0, 10, 0), said(2, 6, 1), said(4, 8, 2)], settings())
    assert only.overlap == pytest.approx(0.6)


def test_overlap_with_the_same_speaker_is_none() -> None:
    given = [said(0, 10), said(9, 18)]
    found = stretches(given, settings(max_turn=12))
    assert spans(found) == [(0, 9.5, 0), (9.5, 18, 0)]
    assert [piece.overlap for piece in found] == [0.0, 0.0]


def test_turns_never_overlap() -> None:
    given = [said(at / 7, at / 7 + 1 + at % 5, at % 3) for at in range(80)]
    found = stretches(given, settings(max_turn=6))
    assert len(found) > 5
    assert all(before.end <= after.start for before, after in pairwise(found))
    assert all(0 <= piece.overlap <= 1 for piece in found)


def test_no_sentences_no_turns() -> None:
    assert divided([], settings()) == ([], [])


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        (["你好，", "世界。"], "你好，世界。"),
        (["hello.", "world."], "hello. world."),
        (["hello，", "world"], "hello，world"),
        (["Au café.", "Était-ce lui ?"], "Au café. Était-ce lui ?"),
        (["Да.", "Конечно."], "Да. Конечно."),
        (["你好", "世界"], "你好世界"),
        (["そう", "ですか"], "そうですか"),
        (["你好", "hello", "世界"], "你好 hello 世界"),
        (["네.", "좋아요."], "네. 좋아요."),
        (["", "a", "", "b"], "a b"),
        ([], ""),
    ],
)
def test_texts_join_as_their_script_is_written(texts: list[str], joined: str) -> None:
    assert join(texts) == joined
