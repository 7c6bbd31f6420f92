"""A padded batch of token sequences, which is what the parts of the model pass to each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Sequences of unequal length, padded to the longest.

    Attributes:
        values: (B, T, D) features or (B, T) integer token ids; 0 where padded.
        mask: (B, T) bool, true where there is a token; at least one in every row.
    """

    values: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice | Tensor) -> "Tokens":
        return Tokens(self.values[rows], self.mask[rows])

    def to(self, device: torch.device | str) -> "Tokens":
        return Tokens(self.values.to(device, non_blocking=True), self.mask.to(device, non_blocking=True))

    def pin_memory(self) -> "Tokens":
        """Pin the memory; a DataLoader that pins its batches calls this."""
        return Tokens(self.values.pin_memory(), self.mask.pin_memory())


def pad(sequences: Sequence[np.ndarray]) -> Tokens:
    """Pad sequences to one batch, float32 or int64.

    Args:
        sequences: (T, D) floats each, or (T,) token ids each.

    Raises:
        ValueError: There is no sequence, or one is empty.
    """
    if not sequences:
        raise ValueError("expected at least one sequence to pad, got none")
    lengths = np.array([len(sequence) for sequence in sequences])
    if lengths.min() == 0:
        raise ValueError(f"sequence {int(lengths.argmin())} of {len(sequences)} is empty")
    dtype = np.int64 if np.issubdtype(sequences[0].dtype, np.integer) else np.float32
    values = np.zeros((len(sequences), lengths.max(), *sequences[0].shape[1:]), dtype=dtype)
    for row, sequence in zip(values, sequences, strict=True):
        row[: len(sequence)] = sequence
    mask = np.arange(lengths.max()) < lengths[:, None]
    return Tokens(torch.from_numpy(values), torch.from_numpy(mask))
