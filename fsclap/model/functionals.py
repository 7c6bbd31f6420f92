"""Functionals: what paralinguistics measures over a whole clip (as eGeMAPS does), as model input.

A mean over frames of 80 ms can't tell how far the pitch ranges, how fast somebody speaks or how much
of the clip is silence. These columns can: they are the attributes of fsclap.corpus, standardised by
fixed constants, the same in every frame of a clip. The captions are made from the same measurements,
so a figure of a model with functionals says how well it reads them; the figure without them says how
much it hears by itself.
"""

from collections.abc import Sequence

import numpy as np

from fsclap import Hertz
from fsclap.corpus.captioning.attributes import measure
from fsclap.corpus.captioning.bins import measures

REVISION = "functionals-1"
# Mean and standard deviation over 3,306 acted lines of the Debian packages (samples.sources).
_CLIP = {
    "pitch_hz": (0.27, 0.48),  # octaves from 150 Hz
    "pitch_range_st": (9.8, 3.4),
    "pitch_slope_st": (-2.7, 6.3),
    "energy_db": (-15.3, 2.3),
    "energy_range_db": (20.5, 2.3),
    "speaking_rate": (3.5, 1.0),
    "pause_ratio": (0.02, 0.05),
    "voiced_ratio": (0.67, 0.16),
    "spectral_tilt_db": (14.3, 7.3),
    "aperiodicity": (0.48, 0.12),
}
_NOISE = (0.59, 0.08)
"""Of the aperiodicity as it would be at 100 Hz, which the words clear and husky go by."""
CONTEXT = {"energy": (0.0, 1.7), "relative_pitch": (0.0, 2.7), "relative_rate": (0.0, 0.43)}
"""Measures that compare a clip with its speaker's others in the recording. They are columns of their
own, which whoever knows the other clips fills in."""
_CLIP_COLUMNS = len(_CLIP) + 1
_LARGEST = 4.0
DIM = 2 * _CLIP_COLUMNS
CONTEXT_DIM = 2 * len(CONTEXT)


def functionals(wave: np.ndarray, sample_rate: Hertz) -> np.ndarray:
    """Measure a clip: (DIM,) float32 from (samples,) float32.

    Columns: the ten attributes and the corrected noise, in standard deviations from the mean, 0
    where a clip has none; then, for each, whether it has none.
    """
    attributes = measure(wave, sample_rate)
    values = [_standard(_octaves(name, getattr(attributes, name)), scale) for name, scale in _CLIP.items()]
    values.append(_standard(measures(attributes, attributes)["voice_quality"], _NOISE))
    return _with_flags(np.array(values, dtype=np.float32))


def unknown_context(frames: int) -> np.ndarray:
    """Columns for a clip whose speaker's other clips are not known: (frames, CONTEXT_DIM)."""
    return np.tile(_with_flags(np.full(len(CONTEXT), np.nan, dtype=np.float32)), (frames, 1))


def with_context(features: np.ndarray, context: Sequence[float] | np.ndarray) -> np.ndarray:
    """Fill in the last CONTEXT_DIM columns of a clip's features.

    Args:
        features: (frames, columns), as an encoder with `context` returns them; not changed.
        context: (CONTEXT,) values of the measures in their own units, NaN where unknown.
    """
    scales = np.array(list(CONTEXT.values()), dtype=np.float32)
    values = np.clip((np.asarray(context, dtype=np.float32) - scales[:, 0]) / scales[:, 1], -_LARGEST, _LARGEST)
    filled = features.copy()
    filled[:, -CONTEXT_DIM:] = _with_flags(values)
    return filled


def _octaves(name: str, value: float | None) -> float | None:
    return float(np.log2(value / 150)) if name == "pitch_hz" and value else value


def _standard(value: float | None, scale: tuple[float, float]) -> float:
    return float("nan") if value is None else float(np.clip((value - scale[0]) / scale[1], -_LARGEST, _LARGEST))


def _with_flags(values: np.ndarray) -> np.ndarray:
    missing = np.isnan(values)
    return np.concatenate([np.where(missing, 0, values), missing]).astype(np.float32)
