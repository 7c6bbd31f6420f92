"""How an utterance is spoken, in ten numbers: pitch, level, rate, pauses and voice quality.

Everything is measured on frames of 25 ms every 10 ms at 16 kHz. F0 comes from WORLD's DIO refined
by StoneMask (Morise et al. 2009, 2016): Harvest agrees with it to about a semitone on most voiced
frames of acted speech and costs twenty times as much. Syllables follow de Jong & Wempe (2009):
voiced peaks of the band-limited intensity.
"""

from dataclasses import dataclass

import numpy as np
import scipy  # its parts load when they are used: they take seconds, and every flow imports this module
import soxr
from numpy.lib.stride_tricks import sliding_window_view

from fsclap import Hertz
from fsclap.pitch import HOP, RATE, pitch_track

WINDOW = 400
FFT = 512
TAPER = np.hanning(WINDOW) / np.sqrt(np.mean(np.square(np.hanning(WINDOW))))
"""A Hann window of unit power. Without it the level of a steady voice wavers by 1 dB, as more or
fewer periods are in a frame."""

SPEECH_FLOOR_DBFS = -65.0
"""No frame below this is speech, whatever the rest of the clip is."""
SPEECH_DEPTH_DB = 25.0
"""Speech lies within this of the loud frames (95th percentile) of its clip."""
MIN_PAUSE = 15
"""Frames: a shorter silence is the closure of a plosive."""
MIN_VOICED = 5
"""Voiced frames below which there is no pitch to speak of."""

SYLLABLE_BAND = (300.0, 3000.0)
SMOOTHING = 1.5
"""Frames: standard deviation of the Gaussian that smooths the intensity."""
SYLLABLE_DIP_DB = 2.0
SYLLABLE_DEPTH_DB = 25.0
NEAR = 2
"""Frames: the peak of a syllable may lie this far from the nearest frame the tracker calls
voiced."""
MIN_SYLLABLE = 8
"""Frames between two nuclei: nobody says more than twelve syllables a second."""
MIN_RATED = 30
"""Frames of speech, first to last, below which a rate in syllables a second means nothing."""

NOISE_BANDS = ((100.0, 1000.0), (1000.0, 2000.0), (2000.0, 3000.0))


@dataclass(frozen=True, slots=True)
class Attributes:
    """Acoustic attributes of an utterance. None: not measurable; never NaN or infinite.

    The *span* is from the first to the last speech frame, so that silence left at the edges by the
    diarization counts neither as a pause nor as slowness.

    Attributes:
        pitch_hz: Median F0 of the voiced frames.
        pitch_range_st: 5th to 95th percentile of F0, in semitones.
        pitch_slope_st: Least-squares slope of F0 over the voiced frames, in semitones a second.
        energy_db: RMS level over the speech frames, dBFS. Relative to its recording: only
            differences count.
        energy_range_db: 10th to 95th percentile of the level of the speech frames.
        speaking_rate: Syllable nuclei a second of the span, pauses included.
        pause_ratio: Share of the span that lies in silences of 150 ms or more, 0 to 1.
        voiced_ratio: Share of the speech frames that are voiced, 0 to 1.
        spectral_tilt_db: Level below 1 kHz less level in 1-5 kHz over the voiced frames (the alpha
            ratio, with its sign turned). A raised or tense voice is low, a soft one high; so is the
            recording's own colour, hence it is compared within a corpus.
        aperiodicity: Share of noise in the voiced frames, 0 clear to 1 noise, mean of three bands
            to 3 kHz.
    """

    pitch_hz: float | None = None
    pitch_range_st: float | None = None
    pitch_slope_st: float | None = None
    energy_db: float | None = None
    energy_range_db: float | None = None
    speaking_rate: float | None = None
    pause_ratio: float | None = None
    voiced_ratio: float | None = None
    spectral_tilt_db: float | None = None
    aperiodicity: float | None = None


@dataclass(frozen=True, slots=True)
class Track:
    """A clip, frame by frame; frame i is centred on sample i HOP.

    Attributes:
        level: (frames,) dBFS.
        power: (frames, FFT // 2 + 1) power spectrum under a window of unit power.
        speech: (frames,) bool; a frame of speech.
        f0: (frames,) Hz, 0 where there is no speech or no voice.
        nuclei: (frames,) bool; the nucleus of a syllable.
        noise: (frames,) share of noise, 0 clear to 1 noise; 0 where unvoiced.
    """

    level: np.ndarray
    power: np.ndarray
    speech: np.ndarray
    f0: np.ndarray
    nuclei: np.ndarray
    noise: np.ndarray

    @property
    def voiced(self) -> np.ndarray:
        """(frames,) bool."""
        return self.f0 > 0

    @property
    def span(self) -> slice:
        """Frames from the first to the last one of speech; empty without speech."""
        frames = np.flatnonzero(self.speech)
        return slice(int(frames[0]), int(frames[-1]) + 1) if len(frames) else slice(0, 0)


def track(clip: np.ndarray, sample_rate: Hertz) -> Track:
    """Measure each frame of an utterance.

    Args:
        clip: (samples,) floating point, mono, full scale at +-1.
        sample_rate: Of the clip, in Hz.

    Raises:
        ValueError: The clip is not a mono floating-point signal, is empty, or holds NaN or
            infinity.
    """
    wave = _prepared(clip, sample_rate)
    frames = sliding_window_view(np.pad(wave, WINDOW // 2), WINDOW)[::HOP]
    tapered = frames * TAPER
    level = _decibels(np.mean(np.square(tapered), axis=1))
    speech = _speech_frames(level)
    f0 = np.where(speech, pitch_track(wave, len(level)), 0.0) if speech.any() else np.zeros(len(level))
    power = np.abs(np.fft.rfft(tapered, FFT)) ** 2
    silent = np.zeros(len(level), dtype=bool)
    found = Track(level, power, speech, f0, nuclei=silent, noise=np.zeros(len(level)))
    span, voiced = found.span, found.voiced
    found.nuclei[span] = _nuclei(power[span], voiced[span])
    found.noise[voiced] = _noise(wave, f0)
    return found


def measure(clip: np.ndarray, sample_rate: Hertz) -> Attributes:
    """Measure one utterance: the attributes of its `track`; arguments and errors as there.

    Returns:
        The attributes; all None when no frame reaches -65 dBFS.
    """
    return attributes_of(track(clip, sample_rate))


def attributes_of(found: Track) -> Attributes:
    """Sum up a clip's frames; all None when none is speech."""
    speech, voiced, level = found.speech, found.voiced, found.level
    if not speech.any():
        return Attributes()
    pitch, pitch_range, pitch_slope = _pitch(found.f0)
    enough = voiced.sum() >= MIN_VOICED
    return Attributes(
        pitch_hz=pitch,
        pitch_range_st=pitch_range,
        pitch_slope_st=pitch_slope,
        energy_db=float(_decibels(np.mean(10 ** (level[speech] / 10)))),
        energy_range_db=float(np.subtract(*np.percentile(level[speech], [95, 10]))),
        speaking_rate=_speaking_rate(found.nuclei[found.span]),
        pause_ratio=float(pauses(speech).sum() / (found.span.stop - found.span.start)),
        voiced_ratio=float(voiced.sum() / speech.sum()),
        spectral_tilt_db=_spectral_tilt(found.power[voiced]) if enough else None,
        aperiodicity=float(found.noise[voiced].mean()) if enough else None,
    )


def _prepared(clip: np.ndarray, sample_rate: Hertz) -> np.ndarray:
    """Return the clip as (samples,) float64 at RATE, without its DC offset."""
    if clip.ndim != 1 or clip.size == 0 or not np.issubdtype(clip.dtype, np.floating):
        raise ValueError(f"expected a mono clip (samples,) of floats, got shape {clip.shape} of {clip.dtype}")
    if not np.isfinite(clip).all():
        raise ValueError(f"the clip holds {int((~np.isfinite(clip)).sum())} samples that are NaN or infinite")
    wave = clip.astype(np.float64)
    if sample_rate != RATE:
        wave = soxr.resample(wave, sample_rate, RATE)
    return np.ascontiguousarray(wave - wave.mean()) if wave.size else np.zeros(1)


def _decibels(power: np.ndarray) -> np.ndarray:
    return 10 * np.log10(np.maximum(power, 1e-12))


def _speech_frames(level: np.ndarray) -> np.ndarray:
    return level > max(SPEECH_FLOOR_DBFS, float(np.percentile(level, 95)) - SPEECH_DEPTH_DB)


def _pitch(f0: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """Median in Hz, range in semitones, slope in semitones a second."""
    times = np.flatnonzero(f0) * HOP / RATE
    if len(times) < MIN_VOICED:
        return None, None, None
    semitones = 12 * np.log2(f0[f0 > 0])
    # De Looze & Hirst (2008): the quartiles are safe from octave errors, and bound what a voice
    # does.
    low, middle, high = np.percentile(semitones, [25, 50, 75])
    plausible = (semitones > low - 9) & (semitones < high + 12)
    semitones, times = semitones[plausible], times[plausible]
    slope = np.polyfit(times, semitones, 1)[0] if np.ptp(times) > 0 else 0.0
    return float(2 ** (middle / 12)), float(np.subtract(*np.percentile(semitones, [95, 5]))), float(slope)


def _band(power: np.ndarray, low: float, high: float) -> np.ndarray:
    """(frames,) power between two frequencies."""
    first, last = round(low * FFT / RATE), round(high * FFT / RATE)
    return power[:, first:last].sum(axis=1)


def _nuclei(power: np.ndarray, voiced: np.ndarray) -> np.ndarray:
    """Find syllable nuclei, voiced peaks of the intensity with a dip of 2 dB between two: (frames,) bool."""
    nuclei = np.zeros(len(power), dtype=bool)
    if not len(power):
        return nuclei
    envelope = scipy.ndimage.gaussian_filter1d(_decibels(_band(power, *SYLLABLE_BAND)), sigma=SMOOTHING)
    floor = np.percentile(envelope, 99) - SYLLABLE_DEPTH_DB
    padded = np.pad(np.maximum(envelope, floor), 1, constant_values=floor)  # a peak may touch the edge
    peaks = scipy.signal.find_peaks(padded, prominence=SYLLABLE_DIP_DB, distance=MIN_SYLLABLE)[0] - 1
    nuclei[peaks] = scipy.ndimage.binary_dilation(voiced, iterations=NEAR)[peaks]
    return nuclei


def _speaking_rate(nuclei: np.ndarray) -> float | None:
    """Syllable nuclei per second."""
    return float(nuclei.sum() * RATE / (HOP * len(nuclei))) if len(nuclei) >= MIN_RATED else None


def pauses(speech: np.ndarray) -> np.ndarray:
    """Mark the silences of MIN_PAUSE frames or more between frames of speech: (frames,) bool -> (frames,) bool."""
    marked = np.zeros(len(speech), dtype=bool)
    spoken = np.flatnonzero(speech)
    for at in np.flatnonzero(np.diff(spoken) > MIN_PAUSE):
        marked[spoken[at] + 1 : spoken[at + 1]] = True
    return marked


def _spectral_tilt(power: np.ndarray) -> float:
    below, above = _band(power, 50.0, 1000.0).mean(), _band(power, 1000.0, 5000.0).mean()
    return float(_decibels(below) - _decibels(above))


def _noise(wave: np.ndarray, f0: np.ndarray) -> np.ndarray:
    """(voiced frames,) mean over bands of 1 - r; r: normalised correlation one period on.

    For a periodic signal in noise r is the signal's share of the power (Boersma 1993). WORLD's own
    D4C has a single band at this rate, at 3 kHz, where most speech is already all noise.
    """
    centres = np.flatnonzero(f0)
    if not len(centres):
        return np.zeros(0)
    spectrum = np.fft.rfft(wave)
    frequency = np.fft.rfftfreq(len(wave), 1 / RATE)
    noise = []
    for low, high in NOISE_BANDS:
        band = np.fft.irfft(spectrum * ((frequency >= low) & (frequency < high)), len(wave))
        noise.append(1 - _periodicity(band, centres * HOP, RATE / f0[centres]))
    return np.asarray(np.mean(noise, axis=0))


def _periodicity(band: np.ndarray, centres: np.ndarray, periods: np.ndarray) -> np.ndarray:
    """(frames,) correlation of the two periods' worth around each centre, 0 to 1, at the best lag.

    A whole lag misses the period by half a sample: the peak is found by a parabola through three.
    """
    pad = 2 * WINDOW
    padded = np.pad(band, pad)
    lags = np.round(periods).astype(int)[:, None]
    starts = pad + centres[:, None] - lags // 2 - WINDOW // 2
    reach = np.arange(WINDOW)
    here = padded[starts + reach]
    r = np.stack([_correlation(here, padded[starts + lags + step + reach]) for step in (-1, 0, 1)])
    slope, curvature = (r[2] - r[0]) / 2, r[0] - 2 * r[1] + r[2]
    inside = np.abs(slope) < -curvature  # the vertex lies between the outer lags
    vertex = r[1] - np.square(slope) / (2 * np.where(inside, curvature, -1.0))
    return np.clip(np.where(inside, vertex, r.max(axis=0)), 0.0, 1.0)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(frames,) normalised correlation of the rows of two (frames, samples) arrays."""
    norm = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    return np.einsum("ij,ij->i", a, b) / np.maximum(norm, 1e-12)
