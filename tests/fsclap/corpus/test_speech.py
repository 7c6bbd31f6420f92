from itertools import pairwise

import numpy as np
import pytest

from fsclap.corpus import speech
from fsclap.corpus.speech import RATE, Detection, Span, find_speech, find_speech_in_blocks

DETECTION = Detection(onset=0.4, offset=0.02, pad=0.06, shortest=0.4, longest=15.0, silence=0.2)


@pytest.fixture(scope="module")
def wave(dry_mono: np.ndarray) -> np.ndarray:
    return dry_mono[: 30 * RATE].copy()


def covered(spans: list[Span], samples: int) -> np.ndarray:
    mask = np.zeros(samples, dtype=bool)
    for span in spans:
        mask[span.start : span.end] = True
    return mask


def test_speech_is_found_in_order_and_silence_is_not(wave: np.ndarray) -> None:
    silence = np.zeros(5 * RATE, dtype=np.float32)
    found = find_speech(np.concatenate([silence, wave, silence]), DETECTION)
    assert found
    assert all(before.end <= after.start for before, after in pairwise(found))
    assert found[0].start > 4.5 * RATE
    assert found[-1].end < len(wave) + 5.5 * RATE
    assert all(0.4 * RATE <= span.length <= 15 * RATE for span in found)


def test_blocks_find_what_the_whole_does(wave: np.ndarray) -> None:
    whole = covered(find_speech(wave, DETECTION), len(wave))
    blocks = (wave[at : at + 7 * RATE] for at in range(0, len(wave), 7 * RATE))
    parts = covered(find_speech_in_blocks(blocks, DETECTION), len(wave))
    assert (whole ^ parts).mean() < 0.06


def test_a_long_wave_is_taken_a_block_at_a_time(wave: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "BLOCK", 7 * RATE)
    blocks = (wave[at : at + 7 * RATE] for at in range(0, len(wave), 7 * RATE))
    assert find_speech(wave, DETECTION) == find_speech_in_blocks(blocks, DETECTION)


def test_a_lower_onset_finds_more(wave: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, len(wave)).astype(np.float32)
    strict, loose = (
        find_speech(wave + noise, Detection(onset, 0.01, pad=0.0, shortest=0.05, longest=15.0, silence=0.1))
        for onset in (0.9, 0.02)
    )
    assert covered(loose, len(wave)).sum() > covered(strict, len(wave)).sum()


def test_no_sound_has_no_speech() -> None:
    assert find_speech(np.zeros(0, dtype=np.float32), DETECTION) == []
    assert find_speech(np.zeros(RATE, dtype=np.float32), DETECTION) == []
