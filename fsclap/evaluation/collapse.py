"""How far embeddings have collapsed, in numbers; Fig. 2 of the paper shows it as a drawing."""

import numpy as np

from fsclap.evaluation.results import Alignment, Collapse

AT_A_TIME = 2**22
"""Cosines computed at once: 16 MiB in float32."""


def collapse(embeddings: np.ndarray) -> Collapse:
    """Measure the spread of one modality's embeddings; `Collapse` explains each figure.

    The effective rank is that of the uncentred matrix, so embeddings that all point one way have
    rank 1.

    Args:
        embeddings: (N, E) rows of unit norm, N >= 2.

    Raises:
        ValueError: There are fewer than two, or one is not of unit norm.
    """
    rows = _units(embeddings, "embeddings")
    if len(rows) < 2:
        raise ValueError("the spread of embeddings needs at least two rows, got one")
    total = rows.sum(axis=0)
    pairs = len(rows) * (len(rows) - 1)
    return Collapse(
        uniformity=_uniformity(rows),
        effective_rank=_effective_rank(rows),
        mean_cosine=float((total @ total - np.einsum("ne,ne->", rows, rows)) / pairs),
    )


def alignment(audio: np.ndarray, text: np.ndarray) -> Alignment:
    """Measure how the modalities lie relative to each other; `Alignment` explains each figure.

    Args:
        audio: (N, E) rows of unit norm.
        text: (N, E) rows of unit norm; row i belongs to audio i.

    Raises:
        ValueError: Shapes differ, or a row is not of unit norm.
    """
    if audio.shape != text.shape:
        raise ValueError(f"audio and text must have the same shape, got {audio.shape} and {text.shape}")
    clips, captions = _units(audio, "audio"), _units(text, "text")
    return Alignment(
        alignment=float(np.square(clips - captions).sum(axis=1).mean()),
        modality_gap=float(np.linalg.norm(clips.mean(axis=0) - captions.mean(axis=0))),
    )


def _units(embeddings: np.ndarray, name: str) -> np.ndarray:
    if embeddings.ndim != 2 or not len(embeddings):
        raise ValueError(f"expected (n, dim) {name}, n >= 1, got shape {embeddings.shape}")
    rows = embeddings.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1)
    off = np.flatnonzero(~(np.abs(norms - 1) < 1e-2))
    if len(off):
        raise ValueError(f"{name}: row {off[0]} has norm {norms[off[0]]:.4g}, expected rows of unit norm")
    return np.asarray(rows / norms[:, None])


def _uniformity(rows: np.ndarray) -> float:
    """Log of the mean over i != j of exp(-2 |x_i - x_j|^2), which is exp(4 cos - 4), in blocks of rows."""
    single = rows.astype(np.float32)
    size = max(1, AT_A_TIME // len(rows))
    total = 0.0
    for start in range(0, len(rows), size):
        block = single[start : start + size] @ single.T
        block[np.arange(len(block)), np.arange(start, start + len(block))] = -np.inf
        total += float(np.exp(4 * block - 4).sum(dtype=np.float64))
    return float(np.log(total / (len(rows) * (len(rows) - 1))))


def _effective_rank(rows: np.ndarray) -> float:
    """Exponential of the entropy of the singular values, as shares of their sum (Roy & Vetterli 2007)."""
    singular = np.linalg.svd(rows, compute_uv=False)
    shares = singular / singular.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))
