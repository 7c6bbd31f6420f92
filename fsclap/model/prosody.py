"""Prosodic frames: what a speech recogniser's encoder throws away, one row every 80 ms.

Sixteen measurements and a mel spectrum are taken every 10 ms (fsclap.corpus.captioning.attributes)
and pooled by eight. Beside them every row has the mean and the standard deviation of the sixteen over
the whole clip, as attentive statistics pooling gives its attention the whole utterance to look at
(Okabe et al. 2018; Desplanques et al. 2020, section 3.1): the voices and paces of two clips differ by
little next to what changes within a clip, and a mean over frames that are not brought to a common
scale takes a training of a thousand clips too long to find. All are fixed functions of the wave.
"""

import librosa
import numpy as np

from fsclap.corpus.captioning.attributes import FFT, WINDOW, Track, pauses
from fsclap.pitch import RATE

POOL = 8
"""Frames of 10 ms that one row pools."""
MELS = 40
REVISION = "prosody-2"

_MEL = librosa.filters.mel(sr=RATE, n_fft=FFT, n_mels=MELS, fmin=50, fmax=7600).astype(np.float32)
_LOW = slice(round(50 * FFT / RATE), round(1000 * FFT / RATE))
_HIGH = slice(round(1000 * FFT / RATE), round(5000 * FFT / RATE))
SCALES = {
    "voiced": (0.399, 0.13, 0.413, 0.045),
    "pitch": (0.135, 0.261, 0.285, 0.112),
    "relative pitch": (0.019, 0.253, 0.782, 0.404),
    "pitch spread": (0.351, 0.167, 0.501, 0.227),
    "pitch change": (-0.006, 0.056, 0.719, 0.391),
    "level": (0.544, 0.309, 0.874, 0.164),
    "relative level": (-1.145, 0.292, 0.874, 0.164),
    "level spread": (0.567, 0.178, 0.483, 0.136),
    "level change": (-0.1, 0.051, 0.599, 0.227),
    "tilt": (0.927, 0.294, 0.328, 0.138),
    "voiced tilt": (0.493, 0.191, 0.533, 0.13),
    "noise": (1.07, 0.312, 1.089, 0.178),
    "nuclei": (0.179, 0.064, 0.373, 0.063),
    "speech": (0.603, 0.122, 0.449, 0.056),
    "pause": (0.009, 0.029, 0.029, 0.08),
    "inside": (0.638, 0.136, 0.445, 0.074),
}
"""Mean and standard deviation over clips of a measurement's mean; then of its standard deviation. Of
the acted lines of the Debian packages (samples.sources): `python -m bench.scales`."""
DIM = 3 * len(SCALES) + 2 * MELS
"""Columns of a row."""
_LARGEST = 6.0


def prosodic_frames(track: Track) -> np.ndarray:
    """Measure a clip.

    Returns:
        (ceil(frames / POOL), DIM) float32. Columns: the sixteen of `SCALES`; 40 mel levels and their
        spreads within the row; for each of the sixteen its mean over the clip, then for each its
        standard deviation, both in standard deviations from the usual.
    """
    columns = measurements(track)
    mel, mel_spread = _pooled(_decibels(track.power.astype(np.float32) @ _MEL.T / WINDOW) / 20 + 3.1)
    whole = np.tile(_standardised(columns), (len(columns), 1))
    return np.concatenate([columns, mel, 4 * mel_spread, whole], axis=1).astype(np.float32)


def measurements(track: Track) -> np.ndarray:
    """Compute the columns of `SCALES`: (rows, len(SCALES)).

    voiced: share. pitch: octaves from 150 Hz; then from the clip's median, its spread within the row,
    and its change from the row before. level: in units of 20 dB; then below the loud parts of the
    clip, its spread and its change. tilt: in units of 20 dB, of all frames; then of the voiced ones.
    noise: share, of the voiced ones. nuclei: syllables a frame. speech, pause, inside: share of
    frames of speech, of pauses, and between the first and the last word.
    """
    voiced, level = track.voiced, track.level
    octaves = np.log2(np.where(voiced, track.f0, 150.0) / 150)
    relative = np.where(voiced, octaves - np.median(octaves[voiced]), 0.0) if voiced.any() else octaves
    tilt = (_decibels(track.power[:, _LOW].sum(axis=1)) - _decibels(track.power[:, _HIGH].sum(axis=1))) / 20
    inside = np.zeros(len(level))
    inside[track.span] = 1

    share, pitch, pitch_spread = _pooled_where(octaves, voiced)
    relative_pitch = _pooled_where(relative, voiced)[1]
    level_mean, level_spread = _pooled(level / 20 + 2.2)
    columns = {
        "voiced": share,
        "pitch": pitch,
        "relative pitch": 4 * relative_pitch,
        "pitch spread": 10 * pitch_spread,
        "pitch change": 4 * np.diff(relative_pitch, prepend=relative_pitch[:1]),
        "level": level_mean,
        "relative level": _pooled((level - np.percentile(level, 95)) / 20)[0],
        "level spread": 4 * level_spread,
        "level change": 2 * np.diff(level_mean, prepend=level_mean[:1]),
        "tilt": _pooled(tilt)[0],
        "voiced tilt": _pooled_where(tilt, voiced)[1],
        "noise": 4 * _pooled_where(track.noise, voiced)[1],
        "nuclei": 8 * _pooled(track.nuclei.astype(float))[0],
        "speech": _pooled(track.speech.astype(float))[0],
        "pause": _pooled(pauses(track.speech).astype(float))[0],
        "inside": _pooled(inside)[0],
    }
    return np.stack([columns[name] for name in SCALES], axis=1)


def _standardised(columns: np.ndarray) -> np.ndarray:
    """(2 len(SCALES),) means and standard deviations over the rows, on the scales of speech."""
    scales = np.array(list(SCALES.values()))  # (columns, 4)
    found = np.concatenate([columns.mean(axis=0), columns.std(axis=0)])
    usual, spread = scales[:, [0, 2]].T.ravel(), scales[:, [1, 3]].T.ravel()
    return np.clip((found - usual) / spread, -_LARGEST, _LARGEST)


def _decibels(power: np.ndarray) -> np.ndarray:
    return 10 * np.log10(np.maximum(power, 1e-10))


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
