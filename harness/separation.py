"""Separate recordings that fit into memory, for benchmarks and tests."""

from collections.abc import Iterator, Sequence

import numpy as np

from fsclap.corpus.separation.base import Separator


def in_memory(separator: Separator, mixtures: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the vocals of each mixture, (samples,) float32."""
    return separator.separate(mixtures, [np.zeros(mixture.shape[-1], dtype=np.float32) for mixture in mixtures])
