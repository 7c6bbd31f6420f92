from pathlib import Path

import numpy as np
import pytest

from fsclap.corpus.captioning.attributes import track
from fsclap.model.embedded import FRAME, ProsodicFrames, ProsodicWhisper, SentenceTokens
from fsclap.model.prosody import DIM, MELS, SCALES, measurements, prosodic_frames

RATE = 16_000
VOICED, PITCH, RELATIVE_PITCH, LEVEL, RELATIVE_LEVEL, NUCLEI, PAUSE, INSIDE = (
    list(SCALES).index(name)
    for name in ("voiced", "pitch", "relative pitch", "level", "relative level", "nuclei", "pause", "inside")
)


def vowel(hertz: float, seconds: float = 1.0, level: float = 0.1) -> np.ndarray:
    """A steady buzz of the harmonics of a pitch."""
    times = np.arange(int(seconds * RATE)) / RATE
    partials = [np.sin(2 * np.pi * hertz * k * times) / k for k in range(1, 15)]
    return (level * np.sum(partials, axis=0)).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 100, FRAME, FRAME + 1, 5 * RATE + 3, 31 * RATE])
@pytest.mark.parametrize("encoder_type", [ProsodicFrames, ProsodicWhisper])
def test_a_frame_every_80_ms(encoder_type: type[ProsodicFrames], samples: int) -> None:
    encoder = encoder_type()
    wave = np.random.default_rng(0).normal(0, 0.05, samples).astype(np.float32)
    features = encoder.features(wave)
    assert features.shape == (samples // FRAME + 1, encoder.dim)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_speech_tokens_stand_beside_the_prosodic_frames() -> None:
    wave = vowel(150)
    np.testing.assert_array_equal(ProsodicWhisper().features(wave)[:, 384:], ProsodicFrames().features(wave))


def test_silence_has_finite_features() -> None:
    assert np.isfinite(ProsodicWhisper().features(np.zeros(RATE, dtype=np.float32))).all()


@pytest.mark.parametrize(
    "wave", [np.zeros(0, np.float32), np.zeros((2, 9), np.float32), np.full(99, np.nan, np.float32)]
)
def test_what_is_no_wave_is_refused(wave: np.ndarray) -> None:
    with pytest.raises(ValueError, match="wave"):
        ProsodicWhisper().features(wave)


def frames(wave: np.ndarray) -> np.ndarray:
    return prosodic_frames(track(wave, RATE))


def test_prosodic_frames_hear_pitch_voicing_and_level() -> None:
    low, high = frames(vowel(120)), frames(vowel(240))
    assert low.shape[1] == DIM == 3 * 16 + 2 * MELS
    np.testing.assert_allclose(high[2:-2, PITCH] - low[2:-2, PITCH], 1.0, atol=0.03)
    np.testing.assert_allclose(low[2:-2, RELATIVE_PITCH], 0.0, atol=0.1)
    assert (low[2:-2, VOICED] == 1).all()
    assert frames(np.random.default_rng(0).normal(0, 0.1, RATE))[:, VOICED].mean() < 0.3
    louder = frames(vowel(120, level=0.2))
    np.testing.assert_allclose(louder[2:-2, LEVEL] - low[2:-2, LEVEL], 20 * np.log10(2) / 20, atol=0.02)
    np.testing.assert_allclose(louder[2:-2, RELATIVE_LEVEL], low[2:-2, RELATIVE_LEVEL], atol=0.02)


def test_prosodic_frames_hear_syllables_and_pauses() -> None:
    word, silence = vowel(150, seconds=0.16), np.zeros(int(0.32 * RATE), dtype=np.float32)
    found = measurements(track(np.concatenate([silence, word, silence, word, word[:0], silence]), RATE))
    assert found[:, NUCLEI].sum() == pytest.approx(2)  # one per word: 8 times a mean over 8 frames
    assert 0.2 < found[:, PAUSE].sum() * FRAME / RATE < 0.32  # the silence between them, not those outside
    assert 0.5 < found[:, INSIDE].sum() * FRAME / RATE < 0.7


def test_each_frame_has_the_statistics_of_its_clip() -> None:
    found = frames(vowel(200))
    mean, spread = np.split(found[0, 16 + 2 * MELS :], 2)
    assert (found[:, 16 + 2 * MELS :] == found[0, 16 + 2 * MELS :]).all()
    for column, (name, scale) in enumerate(SCALES.items()):
        for value, function, (usual, deviation) in ((mean, np.mean, scale[:2]), (spread, np.std, scale[2:])):
            expected = np.clip((function(found[:, column]) - usual) / deviation, -6, 6)
            assert value[column] == pytest.approx(expected, abs=1e-4), name


def test_features_of_real_speech_are_about_standardised(speech: np.ndarray) -> None:
    features = ProsodicWhisper().features(speech)[:, 384 : -2 * len(SCALES)]
    assert np.abs(features.mean(axis=0)).max() < 3
    assert 0.1 < np.median(features.std(axis=0)) < 3


@pytest.fixture
def speech(tmp_path: Path) -> np.ndarray:
    from fsclap.media import DecodeSettings, decode

    sample = Path(__file__).parents[3] / "samples/crossed-lines/e03.mp4"
    wave = decode(sample, tmp_path / "wave.f32", sample_rate=RATE, settings=DecodeSettings())
    return np.array(wave).reshape(-1, wave.shape[-1]).mean(axis=0)[: 20 * RATE]


def test_captions_become_a_state_a_word_piece_whatever_they_are_batched_with() -> None:
    encoder = SentenceTokens()
    captions = ["a low voice", "someone speaks very slowly, in a monotone", ""]
    together = encoder.features(captions)
    assert [len(states) for states in together] == [5, 11, 2]
    for caption, states in zip(captions, together, strict=True):
        np.testing.assert_allclose(encoder.features([caption])[0], states, atol=1e-4)


def test_a_caption_of_ten_thousand_words_loses_its_end() -> None:
    encoder = SentenceTokens()
    assert len(encoder.features(["slow " * 10_000])[0]) == encoder.max_tokens
