import numpy as np
import pytest

from fsclap.corpus.captioning.attributes import track
from fsclap.model import functionals as f
from fsclap.model.embedded import ProsodicFrames
from fsclap.pitch import RATE
from tests.fsclap.model.test_embedded import vowel

PITCH, LEVEL = 0, 3


def test_a_clip_is_measured_once_for_all_its_frames() -> None:
    wave = vowel(120)
    plain, clip, speaker = (ProsodicFrames(choice).features(wave) for choice in ("none", "clip", "speaker"))
    np.testing.assert_array_equal(speaker[:, : plain.shape[1]], plain)
    np.testing.assert_array_equal(speaker[:, : clip.shape[1]], clip)
    assert clip.shape[1] == plain.shape[1] + f.DIM == ProsodicFrames("clip").dim
    assert speaker.shape[1] == clip.shape[1] + f.CONTEXT_DIM == ProsodicFrames("speaker").dim
    assert (clip[:, plain.shape[1] :] == clip[0, plain.shape[1] :]).all()


def test_functionals_hear_pitch_and_level() -> None:
    low, high, louder = (f.functionals(track(wave, RATE)) for wave in (vowel(120), vowel(240), vowel(120, level=0.2)))
    octave = 1 / f.SCALES["pitch_hz"][1]
    assert high[PITCH] - low[PITCH] == pytest.approx(octave, abs=0.1)
    assert louder[LEVEL] > low[LEVEL]
    assert not low[f.DIM // 2 + PITCH]


def test_what_cannot_be_measured_is_flagged_not_guessed() -> None:
    silence = f.functionals(track(np.zeros(RATE), RATE))
    assert (silence[: f.DIM // 2] == 0).all()
    assert silence[f.DIM // 2 :].all()
    noise = f.functionals(track(np.random.default_rng(0).normal(0, 0.1, RATE), RATE))
    assert noise[f.DIM // 2 + PITCH]
    assert np.isfinite(noise).all()


def test_the_context_is_unknown_until_it_is_filled_in() -> None:
    features = ProsodicFrames("speaker").features(vowel(120))
    assert features[:, -3:].all()
    filled = f.with_context(features, np.array([1.7, np.nan, -100.0]))
    np.testing.assert_allclose(filled[0, -6:], [1, 0, -6, 0, 1, 0], atol=1e-6)
    assert features[:, -3:].all()  # not changed in place
    np.testing.assert_array_equal(filled[:, :-6], features[:, :-6])


def test_each_choice_has_a_cache_of_its_own() -> None:
    assert len({ProsodicFrames(choice).revision for choice in ("none", "clip", "speaker")}) == 3
