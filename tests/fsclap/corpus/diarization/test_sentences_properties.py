"""What holds of turns made from any sentences, however little FunASR's result can be believed."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fsclap.corpus.diarization.base import DiarizationSettings
from fsclap.corpus.diarization.sentences import WORD, Sentence, Stretch, parse_sentences
from fsclap.corpus.diarization.sentences import stretches as divided
from fsclap.corpus.turns import NOISE
from tests.properties import usual

RECORDING = 40.0


def stretches(sentences: Sequence[Sentence], options: DiarizationSettings) -> list[Stretch]:
    return divided(sentences, options)[0]


milliseconds = st.integers(-2000, 45_000)
junk = st.one_of(st.none(), milliseconds)
texts = st.text("ab好，。 '<|>1", max_size=12)


@st.composite
def believable(draw: st.DrawFn, *, overlapping: bool = True) -> list[Sentence]:
    """Sentences by start with times in whole milliseconds, with or without those of their words."""
    sentences, at = [], 0
    for _ in range(draw(st.integers(0, 8))):
        start = max(0, at + draw(st.integers(-3000 if overlapping else 0, 1500)))
        lengths = draw(st.lists(st.integers(20, 2500), min_size=1, max_size=6))
        gaps = draw(st.lists(st.integers(0, 700), min_size=len(lengths), max_size=len(lengths)))
        words, at = [], start
        for number, (length, gap) in enumerate(zip(lengths, gaps, strict=True)):
            begin = at + (gap if number else 0)
            at = begin + length
            words.append((begin / 1000, at / 1000))
        text = "".join(draw(st.sampled_from("天地人大")) for _ in words)
        timed = tuple(words) if draw(st.booleans()) or not overlapping else ()
        sentences.append(Sentence(start / 1000, at / 1000, draw(st.integers(NOISE, 2)), text, timed))
    return sorted(sentences, key=lambda sentence: (sentence.start, sentence.end))


@st.composite
def limits(draw: st.DrawFn) -> DiarizationSettings:
    return DiarizationSettings(
        min_turn=draw(st.sampled_from([0.001, 0.4, 1.0, 5.0])),
        max_turn=draw(st.sampled_from([2.0, 5.0, 15.0])),
        merge_gap=draw(st.sampled_from([0.0, 0.3, 5.0])),
    )


sentence_info = st.lists(
    st.fixed_dictionaries(
        {"text": st.one_of(st.none(), texts, st.lists(texts, max_size=3))},
        optional={
            "start": junk,
            "end": junk,
            "spk": st.one_of(st.none(), st.integers(-2, 3)),
            "timestamp": st.one_of(
                st.none(),
                st.lists(st.one_of(st.none(), st.lists(junk, max_size=3)), max_size=10),
            ),
        },
    ),
    max_size=6,
)


@usual
@given(info=sentence_info, noise=st.one_of(st.none(), st.integers(0, 3)))
def test_whatever_comes_the_sentences_lie_in_the_recording(info: list[dict[str, Any]], noise: int | None) -> None:
    found = parse_sentences(info, duration=RECORDING, noise=noise)
    assert len(found) <= len(info)
    assert [(s.start, s.end) for s in found] == sorted((s.start, s.end) for s in found)
    for sentence in found:
        assert 0 <= sentence.start < sentence.end <= RECORDING
        assert sentence.speaker >= NOISE
        assert sentence.speaker != noise
        assert WORD.search(sentence.text)
        assert len(sentence.words) in (0, len(WORD.findall(sentence.text)))
        assert all(sentence.start <= a <= b <= sentence.end for a, b in sentence.words)
        assert [a for a, _ in sentence.words] == sorted(a for a, _ in sentence.words)
        assert [b for _, b in sentence.words] == sorted(b for _, b in sentence.words)


@st.composite
def disordered(draw: st.DrawFn) -> dict[str, Any]:
    """A sentence of which every word has a time, in no order."""
    words = draw(st.lists(st.lists(st.integers(0, 40_000), min_size=2, max_size=2).map(sorted), min_size=1, max_size=6))
    ends = {"start": min(a for a, _ in words), "end": max(b for _, b in words)}
    return {"text": "天" * len(words), "timestamp": words, "spk": draw(st.integers(0, 1)), **ends}


def test_a_word_without_length_that_is_cut_off_alone_is_no_turn() -> None:
    times = [[0, 100], [3000, 3000], [6000, 6100]]
    info = [{"text": "天地人", "timestamp": times, "start": 0, "end": 6100, "spk": 0}]
    options = DiarizationSettings(min_turn=0.05, max_turn=2)
    assert [turn.text for turn in stretches(parse_sentences(info, duration=RECORDING), options)] == ["天", "人"]


def test_a_sentence_whose_words_are_in_no_order_is_not_cut() -> None:
    times = [[0, 100], [9000, 9100], [3000, 3500], [6000, 6100]]
    info = [{"text": "天地人大", "timestamp": times, "start": 0, "end": 9100, "spk": 0}]
    (sentence,) = parse_sentences(info, duration=RECORDING)
    assert sentence.words == ()
    assert stretches([sentence], DiarizationSettings(max_turn=2)) == []


@usual
@given(info=st.one_of(sentence_info, st.lists(disordered(), max_size=4)), options=limits())
def test_turns_of_whatever_comes(info: list[dict[str, Any]], options: DiarizationSettings) -> None:
    check(stretches(parse_sentences(info, duration=RECORDING), options), options)


@usual
@given(sentences=believable(), options=limits())
def test_turns_are_apart_within_their_limits_and_numbered(
    sentences: list[Sentence], options: DiarizationSettings
) -> None:
    found, dropped = divided(sentences, options)
    check(found, options)
    assert all(one.start < one.end and one.detail for one in dropped)
    assert found or dropped or not sentences, "no sentence goes unsaid"
    if found:
        assert min(s.start for s in sentences) <= found[0].start
        assert found[-1].end <= max(s.end for s in sentences)


def check(found: Sequence[Stretch], options: DiarizationSettings) -> None:
    assert all(options.min_turn <= turn.duration <= options.max_turn for turn in found)
    assert all(before.start < before.end <= after.start for before, after in itertools.pairwise(found))
    assert all(0 <= turn.overlap <= 1 for turn in found)
    assert all(turn.text == turn.text.strip() != "" for turn in found)
    speaking = [turn.speaker for turn in found if turn.speaker != NOISE]
    assert list(dict.fromkeys(speaking)) == list(range(len(set(speaking))))


@usual
@given(sentences=believable(overlapping=False), gap=st.sampled_from([0.0, 0.3, 5.0]))
def test_no_word_is_lost_where_nothing_overlaps_and_no_turn_is_too_short(sentences: list[Sentence], gap: float) -> None:
    options = DiarizationSettings(min_turn=1e-6, max_turn=3, merge_gap=gap)
    found = stretches(sentences, options)
    assert "".join(turn.text for turn in found) == "".join(sentence.text for sentence in sentences)
    words = [(word, sentence.speaker) for sentence in sentences for word in sentence.words]
    for (start, end), speaker in words:
        (holder,) = [turn for turn in found if turn.start <= start and end <= turn.end]
        assert (holder.speaker == NOISE) == (speaker == NOISE)
    assert all(turn.overlap == 0 for turn in found)


@usual
@given(sentences=believable(overlapping=False))
def test_turns_made_of_turns_are_the_same(sentences: list[Sentence]) -> None:
    options = DiarizationSettings(min_turn=0.4, max_turn=29, merge_gap=0.3)
    once = stretches(sentences, options)
    again = stretches([Sentence(s.start, s.end, s.speaker, s.text) for s in once], options)
    joined = [s for s in once if s.speaker != NOISE]  # what was dropped between two of one speaker may let them join
    assume(all(a.speaker != b.speaker or b.start - a.end > 0.3 for a, b in itertools.pairwise(joined)))
    assume(len(joined) == len(once))
    assert again == once


@usual
@given(spans=st.lists(st.tuples(st.integers(0, 6000), st.integers(1, 2500), st.integers(0, 2)), min_size=1, max_size=6))
def test_overlap_is_the_share_of_milliseconds_with_another_speaker(spans: list[tuple[int, int, int]]) -> None:
    said = dict(zip("天地人大日月", spans, strict=False))
    sentences = sorted(
        (Sentence(at / 1000, (at + length) / 1000, speaker, text) for text, (at, length, speaker) in said.items()),
        key=lambda sentence: (sentence.start, sentence.end),
    )
    spoken = {speaker: np.zeros(20_000, dtype=bool) for speaker in range(3)}
    for at, length, speaker in said.values():
        spoken[speaker][2 * at : 2 * (at + length)] = True  # a cut may fall on half a millisecond
    # A gap of 0 joins only what touches or overlaps, so that turns hold nothing but speech.
    for turn in stretches(sentences, DiarizationSettings(min_turn=0.0005, max_turn=29, merge_gap=0)):
        own = said[turn.text[0]][2]
        others = np.logical_or.reduce([mask for speaker, mask in spoken.items() if speaker != own])
        assert turn.overlap == pytest.approx(others[round(2000 * turn.start) : round(2000 * turn.end)].mean(), abs=1e-6)


@usual
@given(sentences=believable(), at=st.integers(0, 20), settings=limits(), speaker=st.integers(NOISE, 3))
def test_speech_without_words_is_an_event_if_asked_for(
    sentences: list[Sentence], at: int, settings: DiarizationSettings, speaker: int
) -> None:
    wordless = [Sentence(at, at + 1.5, speaker, "")]
    turns, _ = divided(sentences, settings)
    left, lost = divided(sentences, settings, wordless=wordless)
    assert left == turns
    inside = any(at < turn.end and at + 1.5 > turn.start for turn in turns)
    assert ([one for one in lost if one.reason == "no_words"] == []) == inside
    kept, also = divided(sentences, settings.model_copy(update={"events": True}), wordless=wordless)
    events = [turn for turn in kept if turn.kind == "event"]
    assert [(turn.start, turn.end, turn.text) for turn in events] == [(at, at + 1.5, "")] * (
        not inside and speaker != NOISE
    )
    assert len(also) == len(lost) - len(events)
    assert [turn.start for turn in kept] == sorted(turn.start for turn in [*turns, *events])


def test_an_event_has_the_speaker_of_its_cluster() -> None:
    sentences = [Sentence(0, 2, 5, "天"), Sentence(3, 5, 2, "地")]
    wordless = [Sentence(6, 7, 5, ""), Sentence(8, 9, 2, ""), Sentence(10, 11, 4, "")]
    kept, _ = divided(sentences, DiarizationSettings(events=True), wordless=wordless)
    assert [turn.speaker for turn in kept] == [0, 1, 0, 1, 2]
