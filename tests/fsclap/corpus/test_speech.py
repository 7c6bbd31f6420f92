from itertools import pairwise

import numpy as np
import pytest

from fsclap.corpus import speech
from fsclap.corpus.speech import (
    PROBABILITY_STEP,
    RATE,
    Detection,
    Span,
    find_speech_in_blocks,
    speech_probability,
)

DETECTION = Detection(onset=0.4, offset=0.02, pad=0.06, shortest=0.4, longest=15.0, silence=0.2)


@pytest.fixture(scope="module")
def wave(dry_mono: np.ndarray) -> np.ndarray:
    return dry_mono[: 30 * RATE].copy()


def find_speech(wave: np.ndarray, detection: Detection) -> list[Span]:
    return find_speech_in_blocks([wave], detection)


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


def test_probabilities_are_high_where_speech_is_found(wave: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    silence = np.zeros(5 * RATE, dtype=np.float32)
    known = speech_probability(np.concatenate([silence, wave]))
    assert len(known) == -(-(len(silence) + len(wave)) // PROBABILITY_STEP)
    assert known[: len(silence) // PROBABILITY_STEP - 1].max() < 0.5
    mask = covered(find_speech(wave, DETECTION), len(wave))[: -(len(wave) % PROBABILITY_STEP) or None]
    inside = mask.reshape(-1, PROBABILITY_STEP).mean(axis=1) > 0.5
    spoken = known[-(-len(silence) // PROBABILITY_STEP) :][: len(inside)]
    assert spoken[inside].mean() > spoken[~inside].mean() + 0.3
    monkeypatch.setattr(speech, "BLOCK", 437 * PROBABILITY_STEP)
    blocks = speech_probability(np.concatenate([silence, wave]))
    assert len(blocks) == len(known)
    assert np.abs(blocks - known).mean() < 0.03
    assert len(speech_probability(np.zeros(0, dtype=np.float32))) == 0


def test_a_lower_onset_finds_more(wave: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, len(wave)).astype(np.float32)
    strict, loose = (
        find_speech(wave + noise, Detection(onset, 0.01, pad=0.0, shortest=0.05, longest=15.0, silence=0.1))
        for onset in (0.9, 0.02)
    )
    assert covered(loose, len(wave)).sum() > covered(strict, len(wave)).sum()


def test_no_sound_has_no_speech() -> None:
    assert find_speech_in_blocks([], DETECTION) == []
    assert find_speech(np.zeros(0, dtype=np.float32), DETECTION) == []
    assert find_speech(np.zeros(RATE, dtype=np.float32), DETECTION) == []
