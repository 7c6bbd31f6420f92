"""Agreement between judges: Krippendorff's alpha for ordered verdicts.

Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011). Written here, because the packages
that compute it are under the GPL or unmaintained; the tests compare it with the examples of that paper.
"""

from collections.abc import Sequence

import numpy as np


def ordinal_alpha(units: Sequence[Sequence[float]]) -> float | None:
    """Compute Krippendorff's alpha with the ordinal difference.

    Args:
        units: The verdicts on each thing that was judged, one per judge, in any order; those with
            fewer than two don't count.

    Returns:
        1 if all agree, 0 if they agree as by chance, below 0 if they disagree more; None if nothing
        was judged twice, or all verdicts are the same, so that chance is undefined.
    """
    paired = [unit for unit in units if len(unit) >= 2]
    values = np.unique(np.concatenate([np.asarray(unit, dtype=float) for unit in paired])) if paired else np.array([])
    if len(values) < 2:
        return None
    coincidences = np.zeros((len(values), len(values)))
    for unit in paired:
        counts = (np.asarray(unit, dtype=float)[:, None] == values).sum(axis=0)
        coincidences += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    totals = coincidences.sum(axis=0)
    # The distance of two values: how many verdicts lie between them, each end counted half.
    middle = np.cumsum(totals) - totals / 2
    distance = (middle[:, None] - middle) ** 2
    observed = (coincidences * distance).sum()
    expected = (np.outer(totals, totals) * distance).sum() / (totals.sum() - 1)
    return float(1 - observed / expected)
