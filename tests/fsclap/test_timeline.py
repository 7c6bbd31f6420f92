"""The player's seconds, from timestamps as a decoder reports them."""

import numpy as np
import pytest

from fsclap import Seconds
from fsclap.timeline import HOLE, SILENCE, Clock, Timeline, whole

RATE = 1000
FRAME = 20
"""Samples of a frame: 20 ms."""


def clock(stamps: list[Seconds], *, origin: Seconds = 0.0, back: Seconds = 1.0, ahead: Seconds = 1e5) -> Clock:
    heard = Clock(RATE, origin=origin, back=back, ahead=ahead)
    for stamp in stamps:
        heard.add(stamp, FRAME)
    return heard


def frames(start: Seconds, count: int) -> list[Seconds]:
    return [start + number * FRAME / RATE for number in range(count)]


def timeline(stamps: list[Seconds], **options: Seconds) -> Timeline:
    return clock(stamps, **options).timeline(len(stamps) * FRAME)


def test_sound_that_begins_late_has_later_seconds() -> None:
    found = timeline(frames(5.487, 100), origin=1.4)
    assert found.rows() == [[0.0, 4.087, 2.0]]
    assert found.player(0.5) == pytest.approx(4.587)
    assert found.holes == []


def test_a_hole_of_any_length_is_a_second_of_silence() -> None:
    for length in (0.15, 20.0, 7200.0):
        found = timeline([*frames(0, 100), *frames(2 + length, 50)])
        assert found.rows() == [[0.0, 0.0, 2.0], [2.0 + SILENCE, 2.0 + length, 1.0]]
        assert found.holes == [pytest.approx((2.0, length))]
        assert found.sound == 3.0
        assert found.player(3.5) == pytest.approx(2 + length + 0.5)


def test_lost_frames_add_up_to_holes_and_the_clock_does_not_drift() -> None:
    stamps = [stamp for number, stamp in enumerate(frames(0, 3000)) if number % 47]
    found = timeline(stamps)
    assert len(found.sections) == pytest.approx(60 / (5 * 47 * 0.02), abs=2)
    before = np.arange(len(stamps)) * FRAME
    inserted = np.searchsorted(clock(stamps).cuts(), before, side="right") * SILENCE
    errors = [found.player(at) - stamp for at, stamp in zip(before / RATE + inserted, stamps, strict=True)]
    assert np.abs(errors).max() <= HOLE + 1e-6
    assert found.sound == pytest.approx(len(stamps) * FRAME / RATE)


def test_a_clock_that_starts_anew_goes_on() -> None:
    halves = frames(0, 100)
    assert timeline([*halves, *frames(0, 100)]).rows() == [[0.0, 0.0, 4.0]]
    assert timeline([*halves, *frames(5000, 100)], back=HOLE, ahead=10).rows() == [[0.0, 0.0, 4.0]]
    assert timeline([*halves, *frames(7, 100)], back=HOLE, ahead=10).holes == [pytest.approx((2.0, 5.0))]


def test_timestamps_that_jitter_cut_nothing_and_do_not_add_up() -> None:
    jitter = np.random.default_rng(0).uniform(-0.04, 0.04, 3000)
    found = timeline((np.array(frames(1, 3000)) + jitter).tolist())
    assert len(found.sections) == 1
    slow = timeline([1.002 * stamp for stamp in frames(0, 3000)])  # a recorder whose samples are 0.2 % too few
    assert slow.player(slow.sections[-1].end) == pytest.approx(60.12, abs=HOLE + 0.01)
    fast = timeline([0.998 * stamp for stamp in frames(0, 3000)])
    assert fast.player(fast.sections[-1].end) == pytest.approx(59.88, abs=HOLE + 0.01)
    assert fast.holes == [], "nothing is missing, so nothing is cut"


def test_turns_end_where_the_sound_does() -> None:
    found = timeline([*frames(0, 100), *frames(30, 100)])
    assert found.trimmed(1.0, 2.4) == (1.0, 2.0)
    assert found.trimmed(2.7, 4.0) == (3.0, 4.0)
    assert not found.spans_hole(1.0, 2.4)
    assert not found.spans_hole(2.7, 4.0)
    assert found.spans_hole(1.9, 3.1)
    assert not timeline(frames(0, 100)).spans_hole(0.0, 2.0)


def test_a_timeline_can_be_stored() -> None:
    found = timeline([*frames(0.25, 100), *frames(9, 100)])
    assert Timeline.of(found.rows()) == found
    assert whole(3.0).player(1.25) == 1.25


def test_a_decoder_that_tells_no_times_begins_at_zero() -> None:
    assert clock([]).timeline(1500).rows() == [[0.0, 0.0, 1.5]]
