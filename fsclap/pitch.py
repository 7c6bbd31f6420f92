"""Fundamental frequency (F0) by WORLD: DIO refined by StoneMask (Morise et al. 2009, 2016)."""

import warnings

import numpy as np

from fsclap import Hertz

with warnings.catch_warnings():
    # pyworld asks pkg_resources for its own version, which setuptools deprecates at every import.
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    import pyworld


RATE: Hertz = 16_000
HOP = 160
"""Samples from one frame to the next: 10 ms."""
F0_FLOOR, F0_CEILING = 60.0, 600.0
"""Range of F0 in Hz; what lies outside counts as unvoiced."""


def pitch_track(wave: np.ndarray, frames: int) -> np.ndarray:
    """Track F0 in Hz, 0 where unvoiced: (samples,) float64 at RATE -> (frames,)."""
    period = 1000 * HOP / RATE
    coarse, times = pyworld.dio(wave, RATE, f0_floor=F0_FLOOR, f0_ceil=F0_CEILING, frame_period=period)
    f0 = pyworld.stonemask(wave, coarse, times, RATE)
    f0[(f0 < F0_FLOOR) | (f0 > F0_CEILING)] = 0
    return f0[:frames]
