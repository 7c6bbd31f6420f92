import math
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from fsclap.corpus.separation import loudness
from fsclap.corpus.separation.loudness import Loudness, LoudnessSettings, gain, measure
from fsclap.media import DecodeSettings, decode

RATE = 48_000


def tone(*levels: tuple[float, float], rate: int = RATE) -> np.ndarray:
    """(2, samples): a 1 kHz sine on both channels at each (dBFS, seconds) in turn."""
    amplitude = np.concatenate([np.full(round(rate * seconds), 10 ** (level / 20)) for level, seconds in levels])
    sine = amplitude * np.sin(2 * np.pi * 1000 * np.arange(len(amplitude)) / rate)
    return np.tile(sine.astype(np.float32), (2, 1))


@pytest.mark.parametrize("rate", [48_000, 44_100, 22_050, 16_000])
@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        pytest.param([(-23, 20)], -23, id="case 1"),
        pytest.param([(-33, 20)], -33, id="case 2"),
        pytest.param([(-36, 10), (-23, 60), (-36, 10)], -23, id="case 3: relative gate"),
        pytest.param([(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)], -23, id="case 4: both gates"),
        pytest.param([(-26, 20), (-20, 20.1), (-26, 20)], -23, id="case 5"),
    ],
)
def test_the_cases_of_ebu_tech_3341(levels: list[tuple[float, float]], expected: float, rate: int) -> None:
    assert measure(tone(*levels, rate=rate), rate).integrated == pytest.approx(expected, abs=0.1001)


@pytest.mark.parametrize(
    ("period", "degrees", "amplitude", "expected"),
    [(4, 0, 0.5, -6.0), (4, 45, 0.5, -6.0), (6, 60, 0.5, -6.0), (8, 67.5, 0.5, -6.0), (4, 45, 1.41, 3.0)],
)
def test_true_peaks_of_ebu_tech_3341(period: int, degrees: float, amplitude: float, expected: float) -> None:
    """Cases 15 to 19; in all but the first no sample is at the peak. Tolerance: +0.2, -0.4 dB."""
    time = np.arange(RATE)
    sine = amplitude * np.sin(2 * np.pi * time / period + np.radians(degrees)) * np.sin(np.pi * time / RATE)
    found = measure(sine.astype(np.float32), RATE).true_peak
    assert expected - 0.4 <= found <= expected + 0.2


def test_channels_add_up() -> None:
    left, both = tone((-20, 3))[:1], tone((-20, 3))
    mono, stereo = measure(left, RATE), measure(both, RATE)
    assert mono == measure(left[0], RATE)
    assert mono.integrated is not None
    assert stereo.integrated == pytest.approx(mono.integrated + 10 * math.log10(2), abs=0.11)
    assert stereo.true_peak == mono.true_peak


def test_pieces_are_one_recording(episode: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wave = decode(episode, tmp_path / "wave.f32", sample_rate=44_100, settings=DecodeSettings())
    whole = measure(wave, 44_100)
    monkeypatch.setattr(loudness, "BLOCK", 0.37)
    assert measure(wave, 44_100) == whole
    assert whole.integrated is not None
    assert -40 < whole.integrated < -10
    assert measure(wave * np.float32(0.5), 44_100).integrated == pytest.approx(whole.integrated - 6.02, abs=0.11)


@pytest.mark.parametrize("wave", [np.zeros(RATE, np.float32), tone((-80, 2)), tone((-20, 0.39))])
def test_what_has_no_loudness_keeps_its_level(wave: np.ndarray) -> None:
    found = measure(wave, RATE)
    assert found.integrated is None
    assert gain(found, LoudnessSettings(target_lufs=-23)) == 1.0


def test_gain_brings_to_the_target_and_stops_at_the_peak() -> None:
    quiet, settings = tone((-40, 5)), LoudnessSettings(target_lufs=-23)
    louder = quiet * np.float32(gain(measure(quiet, RATE), settings))
    assert measure(louder, RATE).integrated == pytest.approx(-23, abs=0.11)
    spiky = quiet.copy()
    spiky[:, RATE] = 0.7
    limited = measure(spiky * np.float32(gain(measure(spiky, RATE), settings)), RATE)
    assert limited.true_peak == pytest.approx(-1, abs=0.11)
    assert limited.integrated is not None
    assert limited.integrated < -30


def test_gain_turns_down_too_and_is_off_by_default() -> None:
    assert gain(Loudness(-10.0, 2.0), LoudnessSettings(target_lufs=-23)) == pytest.approx(10 ** (-13 / 20))
    assert gain(Loudness(-10.0, 2.0), LoudnessSettings()) == 1.0


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.zeros((3, 100), np.float32), r"\(3, 100\)"),
        (np.zeros(0, np.float32), r"\(0,\)"),
        (np.array([0.0, np.nan], np.float32), "NaN or infinite"),
    ],
)
def test_what_cannot_be_measured(wave: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(wave, RATE)


def test_settings_are_levels_below_full_scale() -> None:
    with pytest.raises(ValidationError):
        LoudnessSettings(target_lufs=3)
    with pytest.raises(ValidationError):
        LoudnessSettings(peak_dbfs=0.5)
