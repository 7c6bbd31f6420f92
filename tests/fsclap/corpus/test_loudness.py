import math
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from fsclap.audio import DecodeSettings, decode, ffmpeg_binary
from fsclap.corpus.loudness import Loudness, LoudnessSettings, gain, measure

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
    assert measure(tone(*levels, rate=rate), rate).integrated == pytest.approx(expected, abs=0.1)


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


def test_agrees_with_ffmpeg_on_speech(episode: Path, tmp_path: Path) -> None:
    wave = decode(episode, tmp_path / "wave.f32", sample_rate=44_100, settings=DecodeSettings())
    raw = ["-f", "f32le", "-ar", "44100", "-ac", "2", "-i", str(tmp_path / "wave.f32")]
    command = [ffmpeg_binary(), "-hide_banner", "-nostats", *raw, "-af", "ebur128=peak=true", "-f", "null", "-"]
    report = subprocess.run(command, capture_output=True, check=True, text=True).stderr.rpartition("Summary:")[2]
    integrated, peak = (float(re.search(rf"{name}: +(\S+) ", report)[1]) for name in ("I", "Peak"))  # type: ignore[index]
    found = measure(wave, 44_100)
    assert found.integrated == pytest.approx(integrated, abs=0.06)
    assert found.true_peak == pytest.approx(peak, abs=0.16)


def test_channels_add_up() -> None:
    left, both = tone((-20, 3))[:1], tone((-20, 3))
    mono, stereo = measure(left, RATE), measure(both, RATE)
    assert mono == measure(left[0], RATE)
    assert mono.integrated is not None
    assert stereo.integrated == pytest.approx(mono.integrated + 10 * math.log10(2))
    assert stereo.true_peak == mono.true_peak


def test_pieces_leave_no_seam() -> None:
    """A wave of three pieces and a bit against the filter run over it as a whole."""
    from scipy.signal import sosfilt

    from fsclap.corpus.loudness import _k_weighting

    # On a constant, which a filter that starts anew hears as a step
    wave = np.random.default_rng(0).normal(0.5, 0.1, size=11_025 * 31 + 777).astype(np.float32)
    power = np.square(sosfilt(_k_weighting(11_025), wave))
    hops = np.floor(np.arange(311) * 1102.5 + 0.5).astype(int)
    blocks = np.array([power[hops[n] : hops[n + 4]].mean() for n in range(len(hops) - 4)])
    assert measure(wave, 11_025).integrated == pytest.approx(-0.691 + 10 * math.log10(blocks.mean()), abs=1e-3)


def test_a_peak_between_two_pieces_is_seen() -> None:
    wave = np.full(4_000, 1e-3, np.float32)
    wave[1599:1601] = 0.5  # 0.1 s at 16 kHz ends between the two
    assert measure(wave, 16_000).true_peak == pytest.approx(20 * math.log10(0.5 * 4 / math.pi), abs=0.3)


@pytest.mark.parametrize("wave", [np.zeros(RATE, np.float32), tone((-80, 2)), tone((-20, 0.39))])
def test_what_has_no_loudness_keeps_its_level(wave: np.ndarray) -> None:
    found = measure(wave, RATE)
    assert found.integrated is None
    assert gain(found, LoudnessSettings(target_lufs=-23)) == 1.0


def test_gain_brings_to_the_target_and_stops_at_the_peak() -> None:
    quiet, settings = tone((-40, 5)), LoudnessSettings(target_lufs=-23)
    louder = quiet * np.float32(gain(measure(quiet, RATE), settings))
    assert measure(louder, RATE).integrated == pytest.approx(-23, abs=0.01)
    spiky = quiet.copy()
    spiky[:, RATE] = 0.7
    limited = measure(spiky * np.float32(gain(measure(spiky, RATE), settings)), RATE)
    assert limited.true_peak == pytest.approx(-1, abs=0.01)
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
