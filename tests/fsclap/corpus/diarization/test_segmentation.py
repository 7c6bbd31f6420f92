"""Segmentation-3.0 of the package; tests/pyannote compares it with pyannote's own class."""

import numpy as np
import pytest
import torch

from fsclap.corpus.diarization.segmentation import FRAME_STEP, RATE, SETS, WINDOW, Segmentation, window_count


@pytest.fixture(scope="module")
def network() -> Segmentation:
    return Segmentation(torch.device("cpu"), setting="test")


def test_probabilities_of_speech_follow_the_voice(network: Segmentation, dry_mono: np.ndarray) -> None:
    voice = np.array(dry_mono[: 4 * RATE])
    wave = np.concatenate([np.zeros(3 * RATE), voice, np.zeros(3 * RATE)]).astype(np.float32)
    (window,) = network.probabilities(wave, step=RATE)
    assert window.shape[1] == len(SETS)
    np.testing.assert_allclose(window.sum(axis=1), 1, atol=1e-5)
    assert len(window) == pytest.approx(WINDOW / FRAME_STEP, abs=5)
    speech = 1 - window[:, 0]
    per_second = RATE / FRAME_STEP
    assert speech[: int(2.7 * per_second)].max() < 0.5
    assert speech[int(3.5 * per_second) : int(6.5 * per_second)].mean() > 0.8


@pytest.mark.parametrize(
    ("seconds", "windows"), [(0, 0), (0.1, 1), (9.9, 1), (10, 1), (10.1, 2), (11, 2), (11.5, 3), (60, 51)]
)
def test_windows_reach_the_end_of_the_recording(seconds: float, windows: int) -> None:
    assert window_count(round(seconds * RATE), RATE) == windows


def test_silence_behind_the_end_changes_nothing(network: Segmentation, dry_mono: np.ndarray) -> None:
    wave = np.array(dry_mono[: 7 * RATE])
    padded = np.concatenate([wave, np.zeros(3 * RATE, dtype=np.float32)])
    (short,), (long,) = network.probabilities(wave, step=RATE), network.probabilities(padded, step=RATE)
    np.testing.assert_array_equal(short, long)
