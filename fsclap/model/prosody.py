"""Prosodic frames: what a speech recogniser's encoder throws away, one row every 80 ms.

Pitch, voicing, level, spectral tilt and a mel spectrum are measured every 10 ms and pooled by
eight: mean and standard deviation. All are fixed functions of the wave; the constants only bring
them to about zero mean and unit spread.
"""

import librosa
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fsclap.pitch import F0_CEILING, F0_FLOOR, HOP, RATE, pitch_track

WINDOW, FFT = 400, 512
POOL = 8
"""Measurements of HOP samples that one frame pools."""
MELS = 40
DIM = 10 + 2 * MELS
"""Features of a frame."""
REVISION = "prosody-1"

_TAPER = np.hanning(WINDOW).astype(np.float32)
_MEL = librosa.filters.mel(sr=RATE, n_fft=FFT, n_mels=MELS, fmin=50, fmax=7600).astype(np.float32)
_LOW = slice(round(50 * FFT / RATE), round(1000 * FFT / RATE))
_HIGH = slice(round(1000 * FFT / RATE), round(5000 * FFT / RATE))


def prosodic_frames(wave: np.ndarray) -> np.ndarray:
    """Measure a wave.

    Args:
        wave: (samples,) floating point at 16 kHz, at least one sample.

    Returns:
        (samples // (POOL HOP) + 1, DIM) float32. Measurements are centred at 0, 10, 20 ms and so
        on; each frame pools eight. Columns: voiced share; pitch, in octaves from 150 Hz; pitch
        relative to the median of the clip, its spread within the frame, and its change from the
        frame before; level, in units of 20 dB; level relative to the loud parts of the clip; its
        spread; spectral tilt in units of 20 dB; change of the level from the frame before; 40 mel
        levels and their spreads.
    """
    power = _power(wave)
    frames = len(power)
    level = _decibels(power.mean(axis=1))
    octaves, voiced = _pitch(wave, frames)
    tilt = _decibels(power[:, _LOW].sum(axis=1)) - _decibels(power[:, _HIGH].sum(axis=1))
    mel = _decibels(power @ _MEL.T) / 20 + 3.3
    relative = octaves - (np.median(octaves[voiced]) if voiced.any() else 0.0)
    loud = np.percentile(level, 95)

    share, pitch, pitch_spread = _pooled_where(octaves, voiced)
    _, relative_pitch, _ = _pooled_where(relative, voiced)
    level_mean, level_spread = _pooled(level / 20 + 2.2)
    mel_mean, mel_spread = _pooled(mel)
    columns = [
        share,
        pitch,
        4 * relative_pitch,
        10 * pitch_spread,
        4 * np.diff(relative_pitch, prepend=relative_pitch[:1]),
        level_mean,
        _pooled((level - loud) / 20)[0],
        4 * level_spread,
        _pooled(tilt / 20)[0],
        2 * np.diff(level_mean, prepend=level_mean[:1]),
    ]
    return np.concatenate([np.stack(columns, axis=1), mel_mean, 4 * mel_spread], axis=1).astype(np.float32)


def _power(wave: np.ndarray) -> np.ndarray:
    """(frames, FFT / 2 + 1) power spectrum, frame i centred on sample i HOP."""
    padded = np.pad(wave.astype(np.float32), WINDOW // 2)
    frames = sliding_window_view(padded, WINDOW)[::HOP]
    return np.square(np.abs(np.fft.rfft(frames * _TAPER, FFT))).astype(np.float32) / WINDOW


def _decibels(power: np.ndarray) -> np.ndarray:
    return 10 * np.log10(np.maximum(power, 1e-10))


def _pitch(wave: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Octaves from 150 Hz (0 where unvoiced), and a mask of the voiced frames; (frames,) each."""
    f0 = pitch_track(wave.astype(np.float64), frames)
    voiced = (f0 >= F0_FLOOR) & (f0 <= F0_CEILING)
    return np.where(voiced, np.log2(np.maximum(f0, F0_FLOOR) / 150), 0.0), voiced


def _groups(values: np.ndarray) -> np.ndarray:
    """(frames, ...) -> (ceil(frames / POOL), POOL, ...), the last frame repeated."""
    short = -len(values) % POOL
    padded = np.concatenate([values, np.repeat(values[-1:], short, axis=0)])
    return padded.reshape(-1, POOL, *values.shape[1:])


def _pooled(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each group of POOL frames."""
    groups = _groups(values)
    return groups.mean(axis=1), groups.std(axis=1)


def _pooled_where(values: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of valid frames, and mean and standard deviation over them (0 if none is)."""
    groups, mask = _groups(values), _groups(valid)
    count = np.maximum(mask.sum(axis=1), 1)
    mean = np.where(mask, groups, 0).sum(axis=1) / count
    variance = np.where(mask, np.square(groups - mean[:, None]), 0).sum(axis=1) / count
    return mask.mean(axis=1), mean, np.sqrt(variance)
