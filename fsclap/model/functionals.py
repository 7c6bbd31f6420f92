"""Functionals: what paralinguistics measures over a whole clip (as eGeMAPS does), as model input.

They are the attributes of fsclap.corpus, standardised by fixed constants, the same in every frame of
a clip. The captions are made from the same measurements, so a figure of a model with functionals says
how well it reads them; the figure without them says how much it hears by itself, in frames of 80 ms
and what they are on average (fsclap.model.prosody).
"""

from collections.abc import Sequence

import numpy as np

from fsclap.corpus.captioning.attributes import Track, attributes_of
from fsclap.corpus.captioning.bins import measures

REVISION = "functionals-2"
SCALES = {
    "pitch_hz": (0.22, 0.47),  # octaves from 150 Hz
    "pitch_range_st": (9.49, 3.32),
    "pitch_slope_st": (-2.87, 7.37),
    "energy_db": (-14.9, 1.89),
    "energy_range_db": (20.73, 2.27),
    "speaking_rate": (3.48, 0.93),
    "pause_ratio": (0.01, 0.04),
    "voiced_ratio": (0.65, 0.14),
    "spectral_tilt_db": (15.87, 6.07),
    "aperiodicity": (0.5, 0.1),
    "voice_quality": (0.61, 0.06),  # aperiodicity as it would be at 100 Hz, which the words clear and husky go by
}
"""Mean and standard deviation over acted lines of the Debian packages: `python -m bench.scales`."""
CONTEXT = {"energy": (0.0, 1.7), "relative_pitch": (0.0, 2.7), "relative_rate": (0.0, 0.43)}
"""Measures that compare a clip with its speaker's others in the recording. They are columns of their
own, which whoever knows the other clips fills in."""
_LARGEST = 6.0
DIM = 2 * len(SCALES)
CONTEXT_DIM = 2 * len(CONTEXT)


def functionals(track: Track) -> np.ndarray:
    """Sum up a clip: (DIM,) float32.

    Columns: the ten attributes and the corrected noise, in standard deviations from the mean, 0
    where a clip has none; then, for each, whether it has none.
    """
    scales = np.array(list(SCALES.values()))
    return _with_flags(np.clip((measurements(track) - scales[:, 0]) / scales[:, 1], -_LARGEST, _LARGEST))


def measurements(track: Track) -> np.ndarray:
    """Compute what `SCALES` lists: (len(SCALES),), NaN where a clip has none."""
    attributes = attributes_of(track)
    values = [getattr(attributes, name, None) for name in SCALES]
    values[-1] = measures(attributes, attributes)["voice_quality"]
    known = np.array([np.nan if value is None else value for value in values])
    known[0] = np.log2(known[0] / 150)
    return known


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


def _with_flags(values: np.ndarray) -> np.ndarray:
    missing = np.isnan(values)
    return np.concatenate([np.where(missing, 0, values), missing]).astype(np.float32)
