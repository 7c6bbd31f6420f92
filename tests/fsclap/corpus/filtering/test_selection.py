from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from fsclap.corpus.filtering.selection import Exclusion, SelectionSettings, overlaps, select
from fsclap.corpus.turns import NOISE, Turn


def turn(start: float, end: float, speaker: int = 0, overlap: float | None = 0.0) -> Turn:
    return Turn(start, end, speaker, text="", language=None, embedding=None, overlap=overlap)


def reasons(turns: list[Turn], settings: SelectionSettings, **known: list) -> list[str | None]:
    nothing: list[None] = [None] * len(turns)
    found = select(turns, **{"languages": nothing, "qualities": nothing, "settings": settings} | known)
    return [exclusion and exclusion.reason for exclusion in found]


def test_nothing_is_left_out_by_default() -> None:
    turns = [turn(0, 0.1), turn(0, 99, 1, overlap=1.0), turn(1, 2, NOISE)]
    assert select(turns, languages=[None] * 3, qualities=[None] * 3, settings=SelectionSettings()) == [None] * 3
    assert select([], languages=[], qualities=[], settings=SelectionSettings()) == []


def test_limits_of_length_themselves_go_on() -> None:
    turns = [turn(0, 0.9), turn(1, 2), turn(2, 7), turn(7, 12.1)]
    assert reasons(turns, SelectionSettings(min_duration=1, max_duration=5)) == ["too_short", None, None, "too_long"]
    assert reasons(turns, SelectionSettings(max_duration=1)) == [None, None, "too_long", "too_long"]


def test_a_language_that_is_not_told_is_not_taken_for_the_wanted_one() -> None:
    turns = [turn(0, 1)] * 4
    found = reasons(turns, SelectionSettings(languages=("zh", "en")), languages=["en", "ja", None, "zh"])
    assert found == [None, "other_language", "unknown_language", None]


def test_low_quality() -> None:
    turns = [turn(0, 1)] * 3
    assert reasons(turns, SelectionSettings(min_quality=2.5), qualities=[2.49, 2.5, 4.0]) == ["low_quality", None, None]
    with pytest.raises(ValueError, match=r"not rated: set quality\.engine to dnsmos"):
        reasons(turns, SelectionSettings(min_quality=2.5), qualities=[3.0, None, 3.0])


def test_overlap_is_the_engines_or_what_turns_of_others_cover() -> None:
    turns = [
        turn(0, 10, 0),
        turn(2, 4, 1),
        turn(3, 5, 2),  # with speaker 1 together: 2 to 5
        turn(6, 8, 0),  # the same speaker
        turn(9, 12, NOISE),
        turn(20, 22, 1, overlap=0.25),
    ]
    assert overlaps(turns) == pytest.approx([0.4, 1.0, 1.0, 0.0, 1 / 3, 0.25])
    assert overlaps([turn(0, 1), turn(1, 2, 1)]) == [0.0, 0.0]
    found = reasons(turns, SelectionSettings(max_overlap=0.34))
    assert found == ["overlapping_speech"] * 3 + [None, None, None]


def test_an_overlap_that_nothing_measures_is_none() -> None:
    turns = [turn(0, 2, 0, overlap=None), turn(5, 7, 1, overlap=None), turn(6, 8, 0, overlap=None)]
    assert overlaps(turns) == [None, 0.5, 0.5], "turns that cover each other are measured by that"
    assert reasons(turns[:1], SelectionSettings(max_overlap=0.0)) == [None]


def test_overlap_by_counting_instants() -> None:
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 300, size=40) / 10
    turns = [turn(s, s + rng.integers(1, 60) / 10, int(rng.integers(4))) for s in starts]
    instants = np.arange(0, 40, 0.1) + 0.05
    heard = {who: np.zeros(len(instants), bool) for who in range(4)}
    for t in turns:
        heard[t.speaker] |= (instants > t.start) & (instants < t.end)
    for t, found in zip(turns, overlaps(turns), strict=True):
        inside = (instants > t.start) & (instants < t.end)
        others = np.any([heard[who] for who in range(4) if who != t.speaker], axis=0)
        assert found == pytest.approx(others[inside].mean())


def test_one_reason_a_turn_in_a_sentence() -> None:
    settings = SelectionSettings(min_duration=2, max_overlap=0.1, languages=("zh",), min_quality=3)
    turns = [turn(0, 1, overlap=0.5), turn(5, 9, overlap=0.5), turn(10, 15), turn(20, 25)]
    languages: list[str | None] = ["en", "en", "en", "zh"]
    assert select(turns, languages=languages, qualities=[1.0] * 4, settings=settings) == [
        Exclusion("too_short", "1.00 s are less than selection.min_duration = 2 s"),
        Exclusion("overlapping_speech", "another speaker speaks in 50% of it, more than selection.max_overlap = 0.1"),
        Exclusion("other_language", "it is in en, and selection.languages asks for zh"),
        Exclusion("low_quality", "quality 1.00 is below selection.min_quality = 3"),
    ]


def test_settings_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"min_duration 3 is above max_duration 2"):
        SelectionSettings(min_duration=3, max_duration=2)
    with pytest.raises(ValidationError):
        SelectionSettings(languages=())


def test_an_event_has_no_language() -> None:
    cry = replace(turn(0, 1), kind="event")
    settings = SelectionSettings(languages=["en"])
    assert reasons([cry, turn(2, 3)], settings) == [None, "unknown_language"]
    assert reasons([cry], SelectionSettings(min_duration=2.0)) == ["too_short"]
