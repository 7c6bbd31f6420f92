"""Attributes against sound that was made to have them, and against recordings of known speakers."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest

from fsclap.corpus.captioning.attributes import Attributes, measure
from fsclap.media import DecodeSettings, decode
from fsclap.pitch import RATE
from storage.schema import ATTRIBUTES

SAMPLES = Path(__file__).parents[4] / "samples"


def voice(f0: float | np.ndarray, seconds: float = 2.0, *, rate: int = RATE, tilt: float = 1.0) -> np.ndarray:
    """(samples,) harmonics of f0 (Hz, constant or one a sample) up to 4 kHz, amplitude falling as 1 / k ** tilt."""
    samples = round(seconds * rate)
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(f0, samples)) / rate
    count = int(4000 / np.max(f0))
    return 0.1 * sum(np.cos(k * phase) / k**tilt for k in range(1, count + 1))


def glide(start: float, semitones: float, seconds: float = 2.0) -> np.ndarray:
    return start * 2 ** (np.linspace(0, semitones / 12, round(seconds * RATE)))


def pulse(rate: float, seconds: float) -> np.ndarray:
    """A gain that rises and falls by 20 dB, `rate` times a second."""
    time = np.arange(round(seconds * RATE)) / RATE
    return 10 ** (-0.5 * (1 + np.cos(2 * np.pi * rate * time)))


def syllables(rate: float, seconds: float) -> np.ndarray:
    return voice(140, seconds) * pulse(rate, seconds)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(samples)


def test_the_fields_are_those_that_a_corpus_stores() -> None:
    assert [field.name for field in fields(Attributes)] == [field.name for field in ATTRIBUTES]


@pytest.mark.parametrize("f0", [70.0, 110.0, 160.0, 220.0, 330.0, 520.0])
def test_pitch_of_a_steady_voice(f0: float) -> None:
    measured = measure(voice(f0), RATE)
    assert measured.pitch_hz == pytest.approx(f0, rel=0.005)
    assert measured.pitch_range_st == pytest.approx(0, abs=0.1)
    assert measured.pitch_slope_st == pytest.approx(0, abs=0.1)
    assert measured.voiced_ratio > 0.97


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 44_100, 48_000])
def test_the_sample_rate_does_not_matter(rate: int) -> None:
    measured = measure(voice(150.0, rate=rate).astype(np.float32), rate)
    assert measured.pitch_hz == pytest.approx(150, rel=0.005)
    assert measured.energy_db == pytest.approx(measure(voice(150.0), RATE).energy_db, abs=0.5)


@pytest.mark.parametrize("semitones", [-8.0, -3.0, 3.0, 8.0])
def test_range_and_slope_of_a_glide(semitones: float) -> None:
    measured = measure(voice(glide(160, semitones)), RATE)
    assert measured.pitch_slope_st == pytest.approx(semitones / 2, abs=0.15)  # over two seconds
    assert measured.pitch_range_st == pytest.approx(0.9 * abs(semitones), abs=0.3)  # 5th to 95th percentile


def test_a_stretch_an_octave_off_leaves_median_and_range() -> None:
    f0 = np.full(3 * RATE, 150.0)
    f0[RATE : RATE + 3 * RATE // 10] = 75  # creaks for a tenth of the time
    measured = measure(voice(f0, 3), RATE)
    assert measured.pitch_hz == pytest.approx(150, rel=0.01)
    assert measured.pitch_range_st < 1


def test_gain_moves_the_level_and_nothing_else() -> None:
    clip = syllables(4, 3) + 0.002 * noise(3 * RATE)
    loud, quiet = measure(clip, RATE), measure(clip / 4, RATE)
    assert loud.energy_db - quiet.energy_db == pytest.approx(20 * np.log10(4), abs=0.01)
    unchanged = {name: value for name, value in asdict(loud).items() if name != "energy_db"}
    assert asdict(replace(quiet, energy_db=loud.energy_db)) == pytest.approx(
        {**unchanged, "energy_db": loud.energy_db}, rel=0.01
    )


def test_level_of_a_full_scale_sine_is_3_db_down() -> None:
    sine = np.sin(2 * np.pi * 200 * np.arange(2 * RATE) / RATE)
    assert measure(sine, RATE).energy_db == pytest.approx(-3.01, abs=0.1)


def test_energy_range_grows_with_the_swell() -> None:
    swell = np.linspace(-1, 0, 3 * RATE)
    ranges = [measure(voice(150, 3) * 10 ** (depth / 20 * swell), RATE).energy_range_db for depth in (0, 6, 12, 18)]
    assert ranges[0] < 0.5
    assert ranges[1:] == pytest.approx([0.85 * depth for depth in (6, 12, 18)], abs=0.7)


@pytest.mark.parametrize("rate", [2.0, 3.0, 4.0, 5.0, 7.0])
def test_syllables_a_second(rate: float) -> None:
    assert measure(syllables(rate, 4), RATE).speaking_rate == pytest.approx(rate, rel=0.1)


def test_unvoiced_bursts_are_no_syllables() -> None:
    assert measure(0.1 * noise(3 * RATE) * pulse(4, 3), RATE).speaking_rate < 0.5


@pytest.mark.parametrize(("pause", "counted"), [(0.1, 0.0), (0.4, 0.4), (1.0, 1.0)])
def test_pauses_inside_count_and_silence_around_does_not(pause: float, counted: float) -> None:
    silence = np.zeros(round(pause * RATE))
    clip = np.concatenate([np.zeros(RATE), voice(150, 1), silence, voice(150, 1), np.zeros(RATE)])
    measured = measure(clip, RATE)
    assert measured.pause_ratio == pytest.approx(counted / (2 + pause), abs=0.02)


def test_pauses_slow_the_speech_down() -> None:
    with_pause = np.concatenate([syllables(4, 1), np.zeros(2 * RATE), syllables(4, 1)])
    assert measure(with_pause, RATE).speaking_rate == pytest.approx(2, rel=0.15)


@pytest.mark.parametrize("f0", [100.0, 150.0, 240.0])
@pytest.mark.parametrize("snr_db", [20.0, 10.0, 3.0])
def test_aperiodicity_is_the_share_of_noise(f0: float, snr_db: float) -> None:
    """Breath over 1-3 kHz, two of the three bands, that falls with frequency as the voice does."""
    clean = voice(f0, 3)
    frequency = np.fft.rfftfreq(len(clean), 1 / RATE)
    band = (frequency >= 1000) & (frequency < 3000)
    breath = np.fft.rfft(noise(len(clean))) * np.where(band, 1 / np.maximum(frequency, 1), 0)
    spectrum = np.fft.rfft(clean)
    breath *= np.linalg.norm(spectrum[band]) / np.linalg.norm(breath) * 10 ** (-snr_db / 20)
    share = 1 / (1 + 10 ** (snr_db / 10))
    measured = measure(np.fft.irfft(spectrum + breath), RATE)
    assert measured.aperiodicity == pytest.approx(2 / 3 * share, abs=0.04)


def test_aperiodicity_of_a_clean_voice_is_near_zero_at_any_pitch() -> None:
    assert max(measure(voice(f0), RATE).aperiodicity for f0 in (77.7, 123.4, 210.1, 345.6)) < 0.03


def test_tilt_falls_with_brightness() -> None:
    dark, plain, bright = (measure(voice(150, tilt=tilt), RATE).spectral_tilt_db for tilt in (1.5, 1.0, 0.5))
    assert dark > plain + 3 > bright + 6


def test_whisper_has_no_pitch_but_a_level() -> None:
    measured = measure(0.05 * noise(2 * RATE), RATE)
    assert measured.voiced_ratio < 0.05
    assert (measured.pitch_hz, measured.aperiodicity, measured.spectral_tilt_db) == (None, None, None)
    assert measured.energy_db == pytest.approx(-26, abs=0.2)


@pytest.mark.parametrize(
    "clip",
    [np.zeros(RATE), np.full(RATE, 0.3), 1e-5 * noise(RATE), np.zeros(1)],
    ids=["silence", "constant", "hiss below the floor", "one sample"],
)
def test_nothing_is_measured_where_nothing_is_heard(clip: np.ndarray) -> None:
    assert measure(clip.astype(np.float32), RATE) == Attributes()


@pytest.mark.parametrize("seconds", [0.01, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_short_clips_give_numbers_or_none(seconds: float, rate: int) -> None:
    measured = measure(voice(200, seconds, rate=rate), rate)
    values = [value for value in asdict(measured).values() if value is not None]
    assert measured.energy_db is not None
    assert np.isfinite(values).all()


def test_a_clipped_voice_keeps_its_pitch() -> None:
    clipped = np.clip(50 * voice(140), -1, 1)
    measured = measure(clipped, RATE)
    assert measured.pitch_hz == pytest.approx(140, rel=0.01)
    assert np.isfinite([value for value in asdict(measured).values() if value is not None]).all()


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (np.array([0.0, np.nan, np.inf]), "2 samples that are NaN or infinite"),
        (np.zeros((2, RATE)), r"mono clip .* shape \(2, 16000\)"),
        (np.zeros(RATE, np.int16), "of int16"),
        (np.zeros(0), r"shape \(0,\)"),
    ],
)
def test_a_clip_that_is_no_signal_is_refused(clip: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(clip, RATE)


@pytest.fixture(scope="module")
def fish(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Attributes]]:
    """The attributes of the lines of each role in the episodes of Fish Fillets, where no music plays."""
    truth = json.loads((SAMPLES / "truth.json").read_text(encoding="utf-8"))
    series = next(series for series in truth["series"] if series["slug"] == "dve-ryby")
    lines: dict[str, list[Attributes]] = {}
    for number, episode in enumerate(series["episodes"]):
        raw = tmp_path_factory.mktemp("fish") / f"{number}.f32"
        sound = decode(SAMPLES / episode["file"], raw, sample_rate=RATE, settings=DecodeSettings()).mean(axis=0)
        for turn in episode["turns"]:
            if not any(turn["start"] < music["end"] and music["start"] < turn["end"] for music in episode["music"]):
                clip = sound[round(turn["start"] * RATE) : round(turn["end"] * RATE)]
                lines.setdefault(turn["speaker"].split("/")[1], []).append(measure(clip, RATE))
    return lines


def median(lines: Sequence[Attributes], name: str) -> float:
    return float(np.median([getattr(line, name) for line in lines]))


def test_the_small_fish_speaks_higher_than_the_big_one(fish: dict[str, list[Attributes]]) -> None:
    assert median(fish["small-fish"], "pitch_hz") > 1.4 * median(fish["big-fish"], "pitch_hz")


def test_acted_speech_measures_as_speech(fish: dict[str, list[Attributes]]) -> None:
    lines = [line for speaker in fish.values() for line in speaker]
    assert len(lines) >= 8
    assert 80 < min(line.pitch_hz for line in lines) < max(line.pitch_hz for line in lines) < 400
    assert 2 < median(lines, "speaking_rate") < 7
    assert 3 < median(lines, "pitch_range_st") < 16
    assert 0.35 < median(lines, "voiced_ratio") < 0.9
    assert 0.1 < median(lines, "aperiodicity") < 0.8
