"""Arithmetic on stretches of sound, against what a mask of samples or frames says."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import soxr
from hypothesis import example, given
from hypothesis import strategies as st

from fsclap.corpus.diarization.base import DiarizationSettings
from fsclap.corpus.diarization.segmentation import FRAME_LENGTH, FRAME_STEP
from fsclap.corpus.diarization.whisper_campplus import (
    MOST_WINDOWS,
    PAUSE,
    SHORTEST,
    Frames,
    Part,
    audible,
    pieces,
    scraps,
    turn_parts,
    windows,
)
from fsclap.corpus.diarization.whisper_campplus import WINDOW as CLUSTERED
from fsclap.corpus.filtering.selection import SelectionSettings, overlaps, select
from fsclap.corpus.separation.base import MAYBE_SPEECH, maybe_speech
from fsclap.corpus.separation.demucs import OverlapAdd as DemucsOverlapAdd
from fsclap.corpus.separation.spleeter import HOP, OVERLAP, PAD, WINDOW
from fsclap.corpus.separation.spleeter import OverlapAdd as SpleeterOverlapAdd
from fsclap.corpus.speech import RATE, Detection, Span, find_speech_in_blocks
from fsclap.corpus.turns import Turn, read_turns, write_turns
from tests.properties import fewer, usual

finite = st.floats(-1e3, 1e3, width=32)


# Turns


@st.composite
def some_turns(draw: st.DrawFn) -> list[Turn]:
    found = []
    for _ in range(draw(st.integers(0, 7))):
        start, length = draw(st.integers(0, 5000)), draw(st.integers(1, 3000))
        found.append(
            Turn(
                start=start / 1000,
                end=(start + length) / 1000,
                speaker=draw(st.integers(-1, 2)),
                text=draw(st.text(max_size=5)),
                language=draw(st.one_of(st.none(), st.sampled_from(["en", "zh"]))),
                embedding=draw(
                    st.one_of(
                        st.none(), st.lists(finite, min_size=1, max_size=3).map(lambda v: np.array(v, np.float32))
                    )
                ),
                overlap=draw(st.sampled_from([0.0, 0.25, 1.0])),
            )
        )
    return found


@usual
@given(lengths=st.lists(st.integers(1, 8 * RATE), max_size=20), repeated=st.sampled_from([1, 1, 1, 200]))
def test_windows_cover_each_piece_and_stand_for_all_its_seconds(lengths: list[int], repeated: int) -> None:
    ends = np.cumsum([100 + length for length in lengths * repeated]).tolist()
    spans = [Span(end - length, end) for end, length in zip(ends, lengths * repeated, strict=True)]
    found = windows(spans)
    assert len(found) <= MOST_WINDOWS
    assert sum(seconds for _, seconds in found) == pytest.approx(sum(span.length for span in spans) / RATE, rel=0.1)
    assert all(any(p.start <= w.start < w.end <= p.end for p in spans) for w, _ in found[:50])
    if len(found) < MOST_WINDOWS:
        for piece in spans:
            own = [window for window, _ in found if piece.start <= window.start < piece.end]
            assert {window.length for window in own} == {min(piece.length, CLUSTERED)}
            assert (own[0].start, own[-1].end) == (piece.start, piece.end)
            assert all(later.start <= earlier.end for earlier, later in itertools.pairwise(own))


@usual
@given(turns=some_turns())
def test_overlap_is_the_share_of_milliseconds_that_others_cover(turns: list[Turn]) -> None:
    found = overlaps(turns)
    for one, share in zip(turns, found, strict=True):
        covered = np.zeros(9000, dtype=bool)
        for other in turns:
            if other.speaker != one.speaker:
                covered[round(1000 * other.start) : round(1000 * other.end)] = True
        own = covered[round(1000 * one.start) : round(1000 * one.end)]
        assert share == pytest.approx(max(one.overlap, own.mean()), abs=1e-6)
        assert 0 <= share <= 1


@usual
@given(turns=some_turns(), shortest=st.sampled_from([None, 0.5, 1.0]), longest=st.sampled_from([None, 1.0, 2.0]))
def test_lengths_that_go_on_lie_within_the_limits(
    turns: list[Turn], shortest: float | None, longest: float | None
) -> None:
    limits = SelectionSettings(min_duration=shortest, max_duration=longest)
    unknown = [None] * len(turns)
    for one, exclusion in zip(turns, select(turns, languages=unknown, qualities=unknown, settings=limits), strict=True):
        fits = (shortest is None or one.duration >= shortest) and (longest is None or one.duration <= longest)
        assert (exclusion is None) == fits
        assert exclusion is None or exclusion.reason in ("too_short", "too_long")


@usual
@given(turns=some_turns())
def test_turns_come_back_as_they_were_written(turns: list[Turn], tmp_path_factory: pytest.TempPathFactory) -> None:
    path: Path = tmp_path_factory.mktemp("turns") / "turns.parquet"
    write_turns(path, turns)
    for before, after in zip(turns, read_turns(path), strict=True):
        for name in ("start", "end", "speaker", "text", "language", "overlap"):
            assert getattr(after, name) == getattr(before, name)
        assert (after.embedding is None) == (before.embedding is None)
        if before.embedding is not None and after.embedding is not None:
            assert after.embedding.dtype == np.float32
            np.testing.assert_array_equal(after.embedding, before.embedding)


# Parts of a speaker's speech, joined and cut


@usual
@given(
    lengths=st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 60_000), st.integers(0, 2)), max_size=8),
    gap=st.sampled_from([0.0, 0.5, 5.0]),
    longest=st.sampled_from([2.0, 5.0]),
)
def test_parts_become_turns_that_lose_nothing(lengths: list[tuple[int, int, int]], gap: float, longest: float) -> None:
    parts, at = [], 0
    for number, (pause, length, speaker) in enumerate(lengths):
        at += pause
        parts.append(Part(Span(at, at + length), speaker, np.eye(len(lengths))[number]))
        at += length
    options = DiarizationSettings(min_turn=1e-6, merge_gap=gap, max_turn=longest)
    found, dropped = turn_parts(parts, np.ones(at + RATE, dtype=np.float32), options)
    assert not dropped
    members = [np.flatnonzero(part.vector).tolist() for part in found]
    assert [*itertools.chain(*members)] == list(range(len(parts))), "each part in one turn"
    assert all(before.span.end <= after.span.start for before, after in itertools.pairwise(found))
    for one, numbers in zip(found, members, strict=True):
        inside = [parts[number] for number in numbers]
        assert one.span == Span(inside[0].span.start, inside[-1].span.end)
        assert {part.speaker for part in inside} == {one.speaker}
        assert len(inside) == 1 or one.span.length <= longest * RATE
        assert all(b.span.start - a.span.end <= gap * RATE for a, b in itertools.pairwise(inside))


def sounding(*passages: tuple[float, float]) -> np.ndarray:
    """Noise: (seconds, level in dB) one after the other."""
    rng = np.random.default_rng(0)
    return np.concatenate(
        [rng.normal(0, 10 ** (level / 20), round(length * RATE)) for length, level in passages]
    ).astype(np.float32)


@pytest.mark.parametrize(
    ("wave", "turn", "end", "expected"),
    [
        pytest.param(sounding((1, -80), (2, 0), (2, -80)), (0.6, 3.7), 5, (1, 3), id="cut at both ends"),
        pytest.param(sounding((1, -80), (2, 0), (2, -30)), (0.6, 3.7), 5, (1, 3.7), id="noise is not cut"),
        pytest.param(sounding((1, 0), (0.3, -30), (2, -80)), (0, 1), 3, (0, 1.3), id="followed until it fades"),
        pytest.param(sounding((1, 0), (0.9, -30), (2, -80)), (0, 1), 3, (0, 1), id="what does not fade is noise"),
        pytest.param(sounding((1, 0), (0.3, -30), (2, -80)), (0, 1), 1.2, (0, 1), id="not into the next turn"),
        pytest.param(sounding((1, -80), (0.1, 0), (2, -80)), (0.9, 1.5), 3, (1, 1.5), id="long enough to embed"),
        pytest.param(np.zeros(3 * RATE, dtype=np.float32), (1, 2), 3, (1, 2), id="silence"),
        pytest.param(sounding((1, 0), (0.2, -30)), (0, 1.2), 1.2, (0, 1.2), id="the end of the recording"),
    ],
)
def test_a_turn_begins_and_ends_where_its_sound_does(
    wave: np.ndarray, turn: tuple[float, float], end: float, expected: tuple[float, float]
) -> None:
    found = audible(Span(round(turn[0] * RATE), round(turn[1] * RATE)), wave, round(end * RATE))
    assert (found.start / RATE, found.end / RATE) == pytest.approx(expected, abs=0.021)


@usual
@given(data=st.data())
def test_edges_stay_apart_within_the_recording_and_keep_what_is_loud(data: st.DataObject) -> None:
    levels = data.draw(st.lists(st.tuples(st.integers(1, 60), st.sampled_from([0, -20, -60, -200])), min_size=1))
    wave = sounding(*((hundredths / 100, level) for hundredths, level in levels))
    start = data.draw(st.integers(0, len(wave) - 1))
    span = Span(start, data.draw(st.integers(start + 1, len(wave))))
    end = data.draw(st.integers(span.end, len(wave)))
    found = audible(span, wave, end)
    assert span.start <= found.start < found.end <= max(end, span.end)
    assert found.length >= min(span.length, RATE // 2)
    assert span.start + int(np.argmax(np.abs(wave[span.start : span.end]))) in range(found.start, found.end)


@usual
@given(data=st.data())
def test_pieces_are_short_apart_and_hold_all_sure_speech(data: st.DataObject) -> None:
    """Speech from one detected change or pause to the next; the shortest bits apart."""
    runs = data.draw(st.lists(st.tuples(st.integers(1, 900), st.booleans()), min_size=1, max_size=8))
    speech = np.concatenate([np.full(length, 0.9 if spoken else 0.0) for length, spoken in runs])
    change = np.zeros(len(speech))
    for at in data.draw(st.lists(st.integers(0, len(speech) - 1), max_size=5)):
        change[at] = 1.0
    samples = len(speech) * FRAME_STEP + FRAME_LENGTH
    wave = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    settings = DiarizationSettings()
    frames = Frames(speech, speech * 0, change)
    found, short = list(pieces(frames, wave, settings)), scraps(frames, wave, settings)
    assert all(piece.start >= 0 and piece.end <= samples for piece in found)
    assert all(before.end <= after.start for before, after in itertools.pairwise(found))
    longest = settings.whisper_campplus.window
    assert all(SHORTEST * RATE <= piece.length <= longest * RATE for piece in found)
    assert all(scrap.length < SHORTEST * RATE for scrap in short)
    covered = np.zeros(samples, dtype=bool)
    for piece in [*found, *short]:
        assert not covered[piece.start : piece.end].any()
        covered[piece.start : piece.end] = True
    at = (FRAME_LENGTH - FRAME_STEP) // 2
    for length, spoken in runs:
        here = covered[at : (at := at + length * FRAME_STEP)]
        if spoken:
            assert here.all()
        if not spoken and length * FRAME_STEP > PAUSE * RATE:
            assert not here.any()


# Speech


@pytest.fixture(scope="module")
def voice(dry_mono: np.ndarray) -> np.ndarray:
    """(samples,) at 16 kHz of people who speak."""
    return dry_mono[: 20 * RATE].copy()


@st.composite
def passages(draw: st.DrawFn) -> list[tuple[int, int, bool]]:
    """Where passages of a recording begin, how many samples they have, and whether they are silent."""
    length = st.integers(1, 3 * RATE)
    return draw(st.lists(st.tuples(st.integers(0, 15 * RATE), length, st.booleans()), min_size=1, max_size=4))


APART = [(0, 3 * RATE, False), (0, RATE, True), (0, 3 * RATE, False), (0, RATE // 2, True), (3 * RATE, 3 * RATE, False)]
"""Speech with a second, and half a second, of silence between."""


def assembled(voice: np.ndarray, pieces: list[tuple[int, int, bool]]) -> np.ndarray:
    return np.concatenate([voice[at : at + length] * np.float32(not silent) for at, length, silent in pieces])


@fewer(5)
@given(pieces=passages(), longest=st.sampled_from([1.0, 15.0]), pad=st.sampled_from([0.0, 0.06]))
def test_speech_lies_in_the_recording_in_order_and_no_longer_than_asked(
    voice: np.ndarray, pieces: list[tuple[int, int, bool]], longest: float, pad: float
) -> None:
    wave = assembled(voice, pieces)
    found = find_speech_in_blocks(
        [wave], Detection(onset=0.4, offset=0.02, pad=pad, shortest=0.4, longest=longest, silence=0.2)
    )
    check_spans(found, len(wave))
    assert all(span.length <= (longest + 2 * pad) * RATE for span in found)


@fewer(5)
@given(pieces=passages(), rate=st.sampled_from([16_000, 44_100]), margin=st.sampled_from([0.0, 0.3, 30.0]))
@example(pieces=APART, rate=44_100, margin=0.3)
@example(pieces=APART, rate=16_000, margin=0.6)
def test_what_may_be_speech_is_the_union_of_what_is_heard_and_its_margins(
    voice: np.ndarray, pieces: list[tuple[int, int, bool]], rate: int, margin: float
) -> None:
    mixture = np.tile(assembled(voice, pieces), (2, 1))
    found = maybe_speech(mixture, rate, margin=margin)
    check_spans(found, mixture.shape[1])
    assert all(before.end < after.start for before, after in itertools.pairwise(found)), "none touches the next"
    at_detector = soxr.resample(mixture[0], rate, RATE)
    wanted = np.zeros(mixture.shape[1], dtype=bool)
    for span in find_speech_in_blocks([at_detector], MAYBE_SPEECH):
        first, last = (
            round((at + sign * margin * RATE) * rate / RATE) for at, sign in ((span.start, -1), (span.end, 1))
        )
        wanted[max(first, 0) : max(last, 0)] = True
    np.testing.assert_array_equal(masked(found, mixture.shape[1]), wanted)


def check_spans(found: list[Span], samples: int) -> None:
    assert all(0 <= span.start < span.end <= samples for span in found)
    assert all(before.end <= after.start for before, after in itertools.pairwise(found))


def masked(spans: list[Span], samples: int) -> np.ndarray:
    mask = np.zeros(samples, dtype=bool)
    for span in spans:
        mask[span.start : span.end] = True
    return mask


# Overlap-add


@usual
@given(samples=st.integers(1, 400), segment=st.integers(2, 90), share=st.floats(0, 0.9), seed=st.integers(0, 99))
def test_demucs_segments_add_up_to_their_weighted_mean(samples: int, segment: int, share: float, seed: int) -> None:
    stride = max(1, int((1 - share) * segment))
    output = np.zeros(samples, dtype=np.float32)
    adder = DemucsOverlapAdd(output, segment=segment, stride=stride)
    noise = np.random.default_rng(seed)
    total, weights = np.zeros(samples), np.zeros(samples)
    triangle = np.minimum(np.arange(1, segment + 1), np.arange(segment, 0, -1)).astype(float)
    for start in range(0, samples, stride):
        part = noise.normal(size=min(segment, samples - start)).astype(np.float32)
        adder.add(part)
        total[start : start + len(part)] += triangle[: len(part)] * part
        weights[start : start + len(part)] += triangle[: len(part)]
    np.testing.assert_allclose(output, total / weights, atol=2e-5)


@usual
@given(samples=st.integers(1, 12 * HOP), counts=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_spleeter_frames_add_up_whatever_blocks_they_come_in(samples: int, counts: list[int]) -> None:
    hops = -(-samples // HOP) + PAD
    frames = np.random.default_rng(samples).normal(size=(max(hops, sum(counts)), WINDOW)).astype(np.float32)
    wanted = np.zeros((len(frames) + OVERLAP) * HOP)
    for number, frame in enumerate(frames):
        wanted[number * HOP : number * HOP + WINDOW] += frame
    wave = np.zeros(samples, dtype=np.float32)
    adder = SpleeterOverlapAdd(wave)
    for block in np.split(frames, np.cumsum(counts)):
        adder.add(block)
    np.testing.assert_allclose(wave, wanted[PAD * HOP :][:samples], atol=1e-5)
