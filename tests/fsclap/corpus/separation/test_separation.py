"""What holds for every engine: where a recording is separated, and what that does at the seams."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from fsclap.corpus import speech as detector
from fsclap.corpus.separation.base import (
    FADE,
    SeparationSettings,
    check,
    maybe_speech,
    release,
    separate,
)
from harness.separation import in_memory

RATE = 44_100
SPEECH_ONLY = SeparationSettings(speech_only=True)


class Mono:
    """An engine that takes everything for vocals, and remembers what it was given."""

    name, revision, sample_rate = "mono", "1", RATE

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def separate(self, mixtures: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        for mixture, output in zip(mixtures, outputs, strict=True):
            self.lengths.append(len(output))
            output[:] = mixture.mean(axis=0)
            yield output


@pytest.fixture(scope="module")
def voice(dry_stereo: np.ndarray) -> np.ndarray:
    """(2, samples): four seconds of somebody speaking."""
    (first, *_) = maybe_speech(dry_stereo, RATE, margin=0)
    return np.array(dry_stereo[:, first.start : first.start + 4 * RATE])


def hum(duration: float) -> np.ndarray:
    """(2, samples): a tone, which nobody takes for speech."""
    time = np.arange(round(duration * RATE)) / RATE
    return np.tile(0.05 * np.sin(2 * np.pi * 1000 * time), (2, 1)).astype(np.float32)


def zeros(*mixtures: np.ndarray) -> list[np.ndarray]:
    return [np.zeros(mixture.shape[1], dtype=np.float32) for mixture in mixtures]


def run(*mixtures: np.ndarray, settings: SeparationSettings = SPEECH_ONLY) -> list[np.ndarray]:
    return list(separate(Mono(), mixtures, zeros(*mixtures), settings))


def test_everything_is_separated_unless_speech_alone_is_asked_for(voice: np.ndarray) -> None:
    mixture = np.concatenate([hum(5), voice], axis=1)
    (whole,) = run(mixture, settings=SeparationSettings())
    np.testing.assert_array_equal(whole, mixture.mean(axis=0))


def test_with_speech_only_speech_is_kept_and_the_rest_is_silent(voice: np.ndarray) -> None:
    mixture = np.concatenate([hum(8), voice + hum(4), hum(8)], axis=1)
    (found,) = run(mixture)
    mono = mixture.mean(axis=0)
    spoken = slice(8 * RATE, 12 * RATE)
    np.testing.assert_array_equal(found[spoken], mono[spoken])
    assert not found[: 6 * RATE].any()
    assert not found[15 * RATE :].any()


def test_the_seams_fade(voice: np.ndarray) -> None:
    mixture = np.concatenate([hum(4), voice, hum(4)], axis=1)
    (found,) = run(mixture)
    first, last = np.flatnonzero(found)[[0, -1]]
    assert RATE < first < 4 * RATE
    assert 8 * RATE < last < 11 * RATE
    fade = round(FADE * RATE)
    for edge in (found[first : first + fade], found[last - fade + 1 : last + 1][::-1]):
        early, late = np.abs(edge[: fade // 8]).max(), np.abs(edge[-fade // 8 :]).max()
        assert early < late / 4


def test_a_recording_that_begins_and_ends_with_speech_does_not_fade(voice: np.ndarray) -> None:
    (found,) = run(voice)
    np.testing.assert_array_equal(found, voice.mean(axis=0))


def test_stretches_that_meet_are_one(voice: np.ndarray) -> None:
    mixture = np.concatenate([voice, hum(3), voice], axis=1)
    assert len(maybe_speech(mixture, RATE, margin=0.2)) > 1
    (one,) = maybe_speech(mixture, RATE, margin=2.0)
    assert (one.start, one.end) == (0, mixture.shape[1])


def test_files_stay_apart_and_in_order_whether_or_not_somebody_speaks(voice: np.ndarray) -> None:
    mixtures = [hum(3), np.concatenate([voice, hum(4)], axis=1), hum(1), voice]
    found = run(*mixtures)
    assert [wave.any() for wave in found] == [False, True, False, True]
    assert [len(wave) for wave in found] == [mixture.shape[1] for mixture in mixtures]


def test_the_engine_is_given_the_stretches_alone(voice: np.ndarray) -> None:
    engine = Mono()
    mixture = np.concatenate([hum(30), voice], axis=1)
    list(separate(engine, [mixture], zeros(mixture), SPEECH_ONLY))
    assert 3 * RATE < sum(engine.lengths) < 7 * RATE


def test_speech_across_the_detectors_blocks_is_one_stretch(voice: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = maybe_speech(voice, RATE, margin=0.5)
    monkeypatch.setattr("fsclap.corpus.separation.base.BLOCK", detector.RATE * 2)
    assert maybe_speech(voice, RATE, margin=0.5) == whole


@pytest.mark.parametrize("shape", [(RATE,), (3, RATE), (RATE, 2), (2, 0)])
def test_a_mixture_of_another_shape_is_an_error(shape: tuple[int, ...]) -> None:
    mixture = np.zeros(shape, dtype=np.float32)
    with pytest.raises(ValueError, match=r"mixture 0 has the shape .*, not \(1 or 2, samples\)"):
        check([mixture], [np.zeros(shape[-1], dtype=np.float32)])


@pytest.mark.parametrize("output", [np.zeros(9, np.float32), np.zeros(10), np.zeros((1, 10), np.float32)])
def test_an_output_that_does_not_fit_is_an_error(output: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"output 0 is .* its mixture needs float32"):
        check([np.zeros((1, 10), np.float32)], [output])


def test_outputs_and_mixtures_are_as_many() -> None:
    with pytest.raises(ValueError, match="1 mixtures cannot be separated into 0 outputs"):
        next(separate(Mono(), [hum(1)], [], SeparationSettings()))


def test_in_memory_allocates_the_outputs(voice: np.ndarray) -> None:
    (found,) = in_memory(Mono(), [voice])
    np.testing.assert_array_equal(found, voice.mean(axis=0))


def test_releasing_memory_loses_nothing(tmp_path: Path) -> None:
    np.arange(10_000, dtype=np.float32).tofile(tmp_path / "wave")
    maps = [np.memmap(tmp_path / "wave", np.float32, mode) for mode in ("r+", "r", "c")]  # type: ignore[call-overload]
    maps[0][:10] = 7
    maps[2][-10:] = 8
    release(*(wave[100:200] for wave in maps), np.zeros(3))
    assert (maps[0][:10] == 7).all()
    assert (maps[1][:10] == 7).all()
    assert (maps[2][-10:] == 8).all()
