"""Waves to FLAC and back, stretches of files, memory maps and sample rates."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from fsclap import audio
from fsclap.media import DecodeSettings, decode

RATE = 44_100


@pytest.fixture(scope="module")
def wave(episode: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """(samples,) float32 mono at RATE: eight seconds of a real episode."""
    raw = tmp_path_factory.mktemp("wave") / "episode.f32"
    stereo = decode(episode, raw, sample_rate=RATE, settings=DecodeSettings())
    return np.array(stereo[:, : 8 * RATE].mean(axis=0))


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 0), (0.5 / 24_000, 1), (1.5 / 24_000, 2), (2.4 / 24_000, 2)])
def test_halves_of_a_sample_go_up(seconds: float, expected: int) -> None:
    assert audio.sample_index(seconds, 24_000) == expected


def test_flac_keeps_a_wave_to_half_a_step(wave: np.ndarray) -> None:
    decoded, rate = audio.decode_flac(audio.encode_flac(wave, RATE))
    assert rate == RATE
    np.testing.assert_allclose(decoded, wave, atol=1.1 / 2**15)


def test_flac_attenuates_what_passes_full_scale(wave: np.ndarray) -> None:
    loud = wave * (3 / np.abs(wave).max())
    decoded, _ = audio.decode_flac(audio.encode_flac(loud, RATE))
    np.testing.assert_allclose(decoded, loud / 3, atol=1.1 / 2**15)


def test_flac_refuses_what_is_not_mono_audio() -> None:
    with pytest.raises(ValueError, match="samples"):
        audio.encode_flac(np.zeros((2, 100), dtype=np.float32), RATE)
    with pytest.raises(ValueError, match="samples"):
        audio.encode_flac(np.zeros(0, dtype=np.float32), RATE)
    with pytest.raises(ValueError, match="not a readable FLAC"):
        audio.decode_flac(b"<html>")


def test_write_flac_applies_a_gain_before_it_looks_for_the_peak(wave: np.ndarray, tmp_path: Path) -> None:
    half = wave / np.abs(wave).max() / 2
    audio.write_flac(tmp_path / "a.flac", half, sample_rate=RATE, to_rate=RATE, gain=1.5)
    read, _ = audio.read_wave(tmp_path / "a.flac")
    assert read == pytest.approx(1.5 * half, abs=1e-4)
    audio.write_flac(tmp_path / "b.flac", half, sample_rate=RATE, to_rate=RATE, gain=10)
    read, _ = audio.read_wave(tmp_path / "b.flac")
    assert read == pytest.approx(2 * half, abs=1e-4)


def test_a_mapped_wave_equals_one_that_is_read(
    wave: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio, "BLOCK", 0.3)
    audio.write_flac(tmp_path / "a.flac", wave / np.abs(wave).max(), sample_rate=RATE, to_rate=RATE)
    for rate in (RATE, 16_000):
        mapped = audio.map_wave(tmp_path / "a.flac", tmp_path / f"{rate}.f32", sample_rate=rate)
        read, _ = audio.read_wave(tmp_path / "a.flac", sample_rate=rate)
        assert isinstance(mapped, np.memmap)
        assert not mapped.flags.writeable
        assert len(mapped) == pytest.approx(len(read), abs=1)
        shorter = min(len(mapped), len(read))
        assert mapped[:shorter] == pytest.approx(read[:shorter], abs=1e-5)


def test_write_flac_in_blocks_equals_at_once(wave: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "BLOCK", 0.7)
    audio.write_flac(tmp_path / "a.flac", 2 * wave / np.abs(wave).max(), sample_rate=RATE, to_rate=24_000)
    written, rate = audio.read_wave(tmp_path / "a.flac")
    expected = audio.resample(wave / np.abs(wave).max(), RATE, 24_000)
    assert rate == 24_000
    assert abs(len(written) - len(wave) * 24_000 / RATE) <= 1
    np.testing.assert_allclose(written, expected[: len(written)].clip(-1, 1), atol=1e-4)


def test_read_wave_reads_a_stretch(wave: np.ndarray, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([wave, 0 * wave], axis=1), RATE, subtype="FLOAT")
    part, rate = audio.read_wave(tmp_path / "a.wav", start=1.25, end=3.5)
    np.testing.assert_allclose(part, wave[int(1.25 * RATE) : int(3.5 * RATE)] / 2, atol=1e-6)
    assert rate == RATE
    resampled, rate = audio.read_wave(tmp_path / "a.wav", sample_rate=16_000, start=1.0, end=3.0)
    assert (len(resampled), rate) == (32_000, 16_000)
    assert len(audio.read_wave(tmp_path / "a.wav", start=1.0, end=1e6)[0]) == len(wave) - RATE
    with pytest.raises(ValueError, match="no sound from"):
        audio.read_wave(tmp_path / "a.wav", start=1e6)
