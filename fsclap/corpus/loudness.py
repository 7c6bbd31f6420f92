"""How loud a recording is, and the one gain that brings it to a target: EBU R 128, ITU-R BS.1770-4.

The measurement is streaming: a recording of any length, memory-mapped, takes a few megabytes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.signal import firwin, sosfilt, upfirdn

from fsclap import Hertz, Seconds
from fsclap.audio import sample_index

HOP: Seconds = 0.1
"""Blocks of 400 ms begin this far apart: 75 % overlap."""
HOPS = 4
"""In a block."""
PIECE = 100
"""Hops in memory at once: 10 s."""
ABSOLUTE_GATE = -70.0
"""LUFS; quieter blocks are silence."""
RELATIVE_GATE = -10.0
"""LU; blocks this much below the mean of the rest are pauses."""
OFFSET = -0.691
"""dB; makes a 1 kHz sine of full scale on one channel -3.01 LUFS."""
OVERSAMPLING = 4
TAPS = 49
REACH = 13
"""Samples on both sides that the low pass of the oversampling looks at, and one more."""


class LoudnessSettings(BaseModel):
    """Whether the recordings of a corpus are brought to one loudness."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target_lufs: float | None = Field(
        default=None,
        ge=-70,
        le=0,
        description="Integrated loudness, in LUFS, that the voices of every episode are brought to, by one gain for "
        "the whole episode: a whisper stays softer than a shout. -23 is the norm of EBU R 128, -16 is common online. "
        "None, the default: the level stays as the source has it. Useful when sources of very different levels "
        "make one corpus, for then `energy` compares sources rather than voices; costs about 0.2 s a minute.",
    )
    peak_dbfs: float = Field(
        default=-1.0,
        ge=-20,
        le=0,
        description="True peak, in dB relative to full scale, that the gain must not raise an episode above; an "
        "episode with high peaks then stays below the target.",
    )


@dataclass(frozen=True, slots=True)
class Loudness:
    """Of a whole recording.

    Attributes:
        integrated: LUFS, gated; None when nothing is above -70 LUFS or it is shorter than 0.4 s.
        true_peak: Of the waveform between the samples too (4 times oversampled), in dB relative to full scale;
            -inf for digital silence.
    """

    integrated: float | None
    true_peak: float


def measure(wave: np.ndarray, sample_rate: Hertz) -> Loudness:
    """Measures a recording.

    Args:
        wave: (samples,) or (channels, samples) float32, 1 or 2 channels; a memory map will do. As the standard has
            it, channels add up: mono is 3 dB softer than the same wave on two channels.
        sample_rate: Hertz.

    Raises:
        ValueError: Of another shape, empty, or with a value that is not finite.
    """
    channels = wave[np.newaxis] if wave.ndim == 1 else wave
    if channels.ndim != 2 or channels.shape[0] not in (1, 2) or not channels.shape[1]:
        raise ValueError(f"loudness wants a wave of (samples,) or (1 or 2, samples), at least one, not {wave.shape}")
    energies = []
    state = np.zeros((2, len(channels), 2))
    for piece, bounds in _pieces(channels, sample_rate):
        if not np.isfinite(piece).all():
            raise ValueError("the wave has samples that are NaN or infinite: its loudness is not defined")
        weighted, state = sosfilt(_k_weighting(sample_rate), piece, axis=-1, zi=state)
        power = np.square(weighted).sum(axis=0)
        energies.append(np.add.reduceat(power, bounds[:-1]) / np.diff(bounds))
    hops = np.concatenate(energies)
    if sample_index(len(hops) * HOP, sample_rate) > channels.shape[1]:
        hops = hops[:-1]  # the last one is not whole
    peak = _true_peak(channels, sample_rate)
    return Loudness(_integrated(hops), 20 * math.log10(peak) if peak else -math.inf)


def gain(loudness: Loudness, settings: LoudnessSettings) -> float:
    """The factor for all samples of a recording: 1 where there is no target, or nothing to bring to it."""
    if settings.target_lufs is None or loudness.integrated is None:
        return 1.0
    wanted = min(settings.target_lufs - loudness.integrated, settings.peak_dbfs - loudness.true_peak)
    return 10 ** (wanted / 20)


def _pieces(channels: np.ndarray, sample_rate: Hertz) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The (channels, samples) float64 wave in pieces of whole hops, each with the bounds of its hops."""
    total = channels.shape[1]
    first = 0
    while (start := sample_index(first * HOP, sample_rate)) < total:
        bounds = np.array([sample_index((first + hop) * HOP, sample_rate) for hop in range(PIECE + 1)])
        bounds = np.unique(bounds.clip(max=total))
        yield np.asarray(channels[:, start : bounds[-1]], dtype=np.float64), bounds - start
        first += PIECE


def _integrated(hops: np.ndarray) -> float | None:
    """Gated loudness from the mean K-weighted power of each hop of 100 ms (BS.1770-4, annex 1)."""
    if len(hops) < HOPS:
        return None
    blocks = np.lib.stride_tricks.sliding_window_view(hops, HOPS).mean(axis=1)
    loud = blocks[blocks > 10 ** ((ABSOLUTE_GATE - OFFSET) / 10)]
    if not len(loud):
        return None
    gated = loud[loud > loud.mean() * 10 ** (RELATIVE_GATE / 10)]
    return OFFSET + 10 * math.log10(gated.mean())


def _true_peak(channels: np.ndarray, sample_rate: Hertz) -> float:
    """Highest magnitude of the wave at 4 times the rate (BS.1770-4, annex 2), full scale = 1."""
    low_pass = OVERSAMPLING * firwin(TAPS, 1 / OVERSAMPLING, window="hann")
    overshoot = max(np.abs(low_pass[phase::OVERSAMPLING]).sum() for phase in range(OVERSAMPLING))
    highest = 0.0
    for part in _parts(channels, sample_index(HOP, sample_rate)):
        peak = float(np.abs(part).max())
        # Most parts cannot come near the highest so far, whatever lies between their samples.
        if peak * overshoot > highest:
            between = upfirdn(low_pass, part, up=OVERSAMPLING, axis=-1)[:, TAPS:-TAPS]
            highest = max(highest, peak, float(np.abs(between).max()))
    return highest


def _parts(channels: np.ndarray, step: int) -> Iterator[np.ndarray]:
    """The wave in parts of `step` samples, each with REACH samples (silence, at the ends) on both sides."""
    total = channels.shape[1]
    for start in range(0, total, step):
        first, last = start - REACH, start + step + REACH
        part = channels[:, max(first, 0) : last]
        if first < 0 or last > total:
            part = np.pad(part, ((0, 0), (max(-first, 0), max(last - total, 0))))
        yield part


@lru_cache
def _k_weighting(sample_rate: Hertz) -> np.ndarray:
    """(2, 6) second-order sections, the shelf of the head and the high pass, at any rate.

    The standard gives coefficients for 48 kHz only. Here are the analogue filters that fit them, through the bilinear
    transform, as in libebur128. The high pass keeps its numerator, as the standard's own does.
    """
    w, q = math.tan(math.pi * 1681.974450955533 / sample_rate), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    poles = np.array([1 + w / q + w * w, 2 * (w * w - 1), 1 - w / q + w * w])
    zeros = np.array([high + band * w / q + w * w, 2 * (w * w - high), high - band * w / q + w * w])
    shelf = np.concatenate([zeros, poles]) / poles[0]
    w, q = math.tan(math.pi * 38.13547087602444 / sample_rate), 0.5003270373238773
    poles = np.array([1 + w / q + w * w, 2 * (w * w - 1), 1 - w / q + w * w])
    return np.stack([shelf, np.concatenate([[1, -2, 1], poles / poles[0]])])
