"""What was measured of the clips of a corpus, in the units of the style's scales."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from scipy.stats import rankdata

from fsclap.corpus.captioning.attributes import Attributes
from fsclap.corpus.captioning.bins import SCALES, measures
from fsclap.corpus.captioning.describe import usual
from fsclap.model.encoders import AudioEncoder


def clip_measures(rows: pa.Table) -> dict[str, np.ndarray]:
    """Compute the value that each scale bins, as the captions were made from it.

    Args:
        rows: Rows of a corpus. Without the columns `attributes`, `speaker` and `source_id` nothing
            is known of any clip.

    Returns:
        Attribute -> (rows,) float32, NaN where unknown.
    """
    values = {name: np.full(len(rows), np.nan, dtype=np.float32) for name in SCALES}
    if not {"attributes", "speaker", "source_id"} <= set(rows.column_names):
        return values
    attributes = [Attributes(**(entry or {})) for entry in rows["attributes"].to_pylist()]
    speakers = rows["speaker"].to_pylist()
    recordings: dict[str, list[int]] = defaultdict(list)
    for row, source in enumerate(rows["source_id"].to_pylist()):
        recordings[source].append(row)
    for numbers in recordings.values():
        known = usual([attributes[row] for row in numbers], [speakers[row] for row in numbers])
        for row in numbers:
            for name, value in measures(attributes[row], known[speakers[row]]).items():
                values[name][row] = np.nan if value is None else value
    return values


def speaker_context(rows: pa.Table, encoder: AudioEncoder) -> np.ndarray | None:
    """Compute what an encoder takes beside the sound: how clips compare with their speaker's others.

    Returns:
        (rows, len(encoder.context)) float32, NaN where unknown; None if the encoder takes nothing.
    """
    if not encoder.context:
        return None
    values = clip_measures(rows)
    return np.stack([values[name] for name in encoder.context], axis=1)


def percentiles(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rank each measure among all clips: attribute -> (rows,) 0 to 1; 0.5 where it is unknown."""
    return {name: _percentiles(column) for name, column in values.items()}


def _percentiles(column: np.ndarray) -> np.ndarray:
    known = np.isfinite(column)
    ranks = np.full(len(column), 0.5, dtype=np.float32)
    if known.any():
        ranks[known] = (rankdata(column[known]) - 0.5) / known.sum()
    return ranks
