"""The contrastive loss with hard negatives (Eq. 1-3), and the matching loss of the re-ranker.

Notation for shapes:
    B       pairs in a batch
    E       width of the joint space
    s_ij    logit (cosine / tau) of row i against column j; s_ii is the positive. Rows are clips in
            one direction (per audio) and captions in the other (per text).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fsclap.model.settings import LossResearch, LossSettings

WHOLE = 4096
"""Up to so many rows, the matrix is whole: 64 MiB in float32 for each of ten intermediates."""

AT_A_TIME = 2**24
"""Logits per chunk beyond that: 64 MiB in float32. Not less: glibc returns blocks over 32 MiB when
they are freed, while smaller ones fragment its heap (20,000 pairs peaked at 3.9 GiB with chunks of
16 MiB, under 1 GiB with these)."""


class Meets(NamedTuple):
    """What decides whether a text is true of a clip that is not its own.

    Attributes:
        asked: (B, A) int64 bit sets: the words that each text is true of, by attribute.
        words: (B, A) int64 bit sets: the words of each clip. A text is true of a clip if they share
            a bit in every attribute (fsclap.queries.conditions); a text of zeros is true of none.
    """

    asked: Tensor
    words: Tensor


class Embeddings(NamedTuple):
    """(B, E) rows of unit norm each; row i of one belongs to row i of the other."""

    audio: Tensor
    text: Tensor


class PairLabels(NamedTuple):
    """What a loss knows of the pairs of a batch beside their embeddings; row by row, all constants.

    Attributes:
        groups: (B,) integers, the same for pairs that are not negatives of each other.
        meets: Texts that are true of other clips than their own.
        levels: (B, L) float32, 0 to 1: what the styles say, as numbers (fsclap.data.levels).
        teacher: Embeddings of the same pairs by a teacher.
    """

    groups: Tensor
    meets: Meets | None = None
    levels: Tensor | None = None
    teacher: Embeddings | None = None


def rowwise(function: Callable[..., Tensor], parts: Sequence[Any]) -> Any:
    """Apply a function to each tensor of some labels: those of several batches, or of one."""
    first = parts[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return function(*parts)
    return type(first)(*(rowwise(function, column) for column in zip(*parts, strict=True)))


class HardNegatives(NamedTuple):
    """A wrong partner for each row; (B,) int64, -1 for none.

    Attributes:
        text: For each clip, the row of another caption.
        audio: For each caption, the row of another clip.
    """

    text: Tensor
    audio: Tensor


def contrastive_loss(
    audio: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    *,
    settings: LossSettings,
    groups: Tensor | None = None,
    meets: Meets | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Compute Eq. 1 with the weights of Eq. 2 in both directions, plus Eq. 3 if it is set.

    Row i loses logsumexp_j(s_ij + log w_ij) - s_ii with w_ii = 1 and, for a negative j,
    log w_ij = log n_i + gamma s_ij - logsumexp_k(gamma s_ik). n_i is the number of elements k runs
    over: the B of Eq. 2, less those that the mask removes from the row (and less the positive for
    denominator="negatives"). So the mean weight over k is 1 in every row, and gamma = 0 is InfoNCE,
    masked or not.

    Computed in float32 at least, whatever the dtype of the embeddings or of a surrounding autocast.

    Args:
        audio: (B, E) unit rows.
        text: (B, E) unit rows; row i is the caption of audio i.
        logit_scale: 1 / tau, > 0.
        settings: The hardness gamma, and the switches for studies.
        groups: (B,) integers, the same for pairs with the same caption. With mask_same_caption,
            such pairs are neither negatives nor in the sum of Eq. 2; with compat="mga" they share
            the target, as in its code.
        meets: Texts that are true of other clips than their own: with mask_same_caption, no negatives
            of those either. compat="mga" knows none.
        chunk: Rows computed at a time. The backward pass computes them again, so memory grows with
            B rather than B^2; the value is the same. None: the whole matrix up to 4096 rows, beyond
            that 16 million logits at a time.

    Returns:
        A scalar, float32 or float64.

    Raises:
        ValueError: Shapes differ, or the batch is empty.
    """
    _check(audio, text, groups)
    dtype = torch.promote_types(audio.dtype, torch.float32)
    audio, text = audio.to(dtype), text.to(dtype)
    scale = torch.as_tensor(logit_scale, dtype=dtype, device=audio.device)
    research = settings.research
    groups, meets = (groups, meets) if research.mask_same_caption else (None, None)
    by_text = None if meets is None else Meets(asked=meets.words, words=meets.asked)
    with torch.autocast(audio.device.type, enabled=False):
        if research.compat == "mga":
            per_audio = _mga(audio, text, scale, groups, settings.gamma)
            per_text = _mga(text, audio, scale, groups, settings.gamma)
            loss = (per_audio + per_text) / 2
        else:
            per_audio = _direction(audio, text, scale, Masks(groups, meets), settings, chunk)
            per_text = _direction(text, audio, scale, Masks(groups, by_text), settings, chunk)
            loss = per_audio + per_text
            if research.reduction == "mean":
                loss = loss / (2 * len(audio))
        return loss + research.regularization_weight * (_spread(audio, settings) + _spread(text, settings))


def plain_loss(embedded: Embeddings, scale: Tensor, labels: PairLabels, settings: LossSettings) -> Tensor:
    """Compute the loss of CLIP and CLAP: InfoNCE in both directions, mean. Of the settings, the mask alone counts."""
    masked = LossResearch(mask_same_caption=settings.research.mask_same_caption)
    info_nce = LossSettings(gamma=0.0, research=masked)
    return contrastive_loss(*embedded, scale, settings=info_nce, groups=labels.groups, meets=labels.meets)


def matching_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the binary cross-entropy of the re-ranker, mean over pairs, in float32 at least.

    Args:
        logits: (P,) scores of fused pairs.
        labels: (P,) 1 or true where the pair belongs together.

    Raises:
        ValueError: Shapes differ.
    """
    if logits.shape != labels.shape:
        raise ValueError(f"labels and logits differ in shape: {tuple(labels.shape)} and {tuple(logits.shape)}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


@torch.no_grad()
def hard_negatives(
    audio: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    *,
    gamma: float,
    groups: Tensor | None = None,
    meets: Meets | None = None,
    generator: torch.Generator | None = None,
) -> HardNegatives:
    """Draw a negative for each clip and caption with the weights of Eq. 2, as in ALBEF.

    Args:
        audio: (B, E) unit rows.
        text: (B, E) unit rows.
        logit_scale: 1 / tau.
        gamma: 1 draws with the probabilities of the softmax, 0 uniformly.
        groups: (B,) integers; pairs of the same group are never drawn for each other.
        meets: A text is never drawn for a clip that it is true of, nor the clip for it.
        generator: Source of randomness, on the device of the embeddings.

    Returns:
        Rows of text and of audio; -1 where a row has no negative (B = 1, or the whole batch has its
        caption): leave such rows out of the matching loss.

    Raises:
        ValueError: Shapes differ, or the batch is empty.
    """
    _check(audio, text, groups)
    dtype = torch.promote_types(audio.dtype, torch.float32)
    with torch.autocast(audio.device.type, enabled=False):
        hardness = gamma * torch.as_tensor(logit_scale, dtype=dtype, device=audio.device)
        logits_per_audio = hardness * (audio.to(dtype) @ text.to(dtype).T)  # (B, B)
    logits_per_text = logits_per_audio.T
    same = torch.eye(len(audio), dtype=torch.bool, device=audio.device)
    if groups is not None:
        same |= groups[:, None] == groups
    by_text = same if meets is None else same | _met(meets.asked, meets.words)  # (texts, clips)
    return HardNegatives(
        text=_draw(logits_per_audio, by_text.T, generator), audio=_draw(logits_per_text, by_text, generator)
    )


def _met(rows: Tensor, columns: Tensor) -> Tensor:
    """(R, A) and (C, A) bit sets -> (R, C) bool: they share a bit in every attribute."""
    met = torch.ones(len(rows), len(columns), dtype=torch.bool, device=rows.device)
    for row, column in zip(rows.T, columns.T, strict=True):
        met &= (row[:, None] & column) != 0
    return met


def _draw(logits: Tensor, same: Tensor, generator: torch.Generator | None) -> Tensor:
    no_negative = same.all(dim=1)  # (B,)
    logits = logits.masked_fill(same, -torch.inf).masked_fill(no_negative[:, None], 0.0)
    drawn = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    return drawn.masked_fill(no_negative, -1)


def _check(audio: Tensor, text: Tensor, groups: Tensor | None) -> None:
    if audio.ndim != 2 or audio.shape != text.shape or not len(audio):
        raise ValueError(
            f"audio and text must have the same shape (B, E), B >= 1; got {tuple(audio.shape)} and {tuple(text.shape)}"
        )
    if groups is not None and groups.shape != audio.shape[:1]:
        raise ValueError(f"groups must have one number per pair, ({len(audio)},); got shape {tuple(groups.shape)}")


class Masks(NamedTuple):
    """What tells which columns are no negatives of a row.

    Attributes:
        groups: As in `contrastive_loss`.
        meets: With the bit sets of the columns as `asked`, and those of the rows as `words`.
    """

    groups: Tensor | None
    meets: Meets | None

    def of(self, positive: Tensor) -> Tensor | None:
        """Mask the columns of some rows: (rows, 1) their numbers -> (rows, B) bool, or None."""
        masked = None if self.groups is None else self.groups[positive] == self.groups
        if self.meets is not None:
            met = _met(self.meets.words[positive[:, 0]], self.meets.asked)
            masked = met if masked is None else masked | met
        return None if masked is None else masked.scatter(1, positive, False)


def _direction(
    rows: Tensor, columns: Tensor, scale: Tensor, masks: Masks, settings: LossSettings, chunk: int | None
) -> Tensor:
    """Sum the losses of all rows: those of the audio, or those of the text."""
    size = len(rows)
    if chunk is None:
        chunk = size if size <= WHOLE else max(1, AT_A_TIME // size)
    if chunk >= size:
        return _rows_loss(rows, columns, scale, 0, masks, settings)
    losses = [
        checkpoint(
            _rows_loss, rows[first : first + chunk], columns, scale, first, masks, settings,
            use_reentrant=False, preserve_rng_state=False,
        )
        for first in range(0, size, chunk)
    ]  # fmt: skip
    return torch.stack(losses).sum()


def _rows_loss(
    rows: Tensor, columns: Tensor, scale: Tensor, first: int, masks: Masks, settings: LossSettings
) -> Tensor:
    """Sum the losses of some rows, numbered from `first`, against all columns."""
    positive = torch.arange(first, first + len(rows), device=rows.device)[:, None]  # (rows, 1)
    logits = scale * (rows @ columns.T)  # (rows, B)
    # Subtract the positive: at a logit scale of 1e4, a logarithm of 3 would be lost in rounding.
    logits = logits - logits.gather(1, positive)
    masked = masks.of(positive)
    weighted = logits + _log_weights(logits, positive, masked, settings)
    if masked is not None:
        weighted.masked_fill_(masked, -torch.inf)
    return F.cross_entropy(weighted.scatter_(1, positive, 0.0), positive[:, 0], reduction="sum")


def _log_weights(logits: Tensor, positive: Tensor, masked: Tensor | None, settings: LossSettings) -> Tensor:
    """Eq. 2 in log space, (rows, B); meaningless at masked elements and at the positive."""
    hardness = settings.gamma * (logits.detach() if settings.research.detach_weights else logits)
    left_out = masked
    if settings.research.denominator == "negatives":
        left_out = torch.zeros_like(logits, dtype=torch.bool) if masked is None else masked
        left_out = left_out.scatter(1, positive, True)
    if left_out is None:
        return math.log(logits.shape[1]) + hardness.log_softmax(dim=1)
    # Not minus infinity: a row that is left out entirely would be NaN, if only until it is masked.
    hardness.masked_fill_(left_out, torch.finfo(logits.dtype).min / 4)
    count = (logits.shape[1] - left_out.sum(dim=1, keepdim=True)).clamp(min=1)
    return count.to(logits.dtype).log() + hardness.log_softmax(dim=1)


def _mga(rows: Tensor, columns: Tensor, scale: Tensor, groups: Tensor | None, gamma: float) -> Tensor:
    """One direction exactly as in the released code of MGA-CLAP; see `LossResearch.compat`.

    It differs from Eq. 2: the sum over row j, not row i, normalises w_ij (a keepdim is missing; and
    since each row was shifted by its maximum before, the shift doesn't cancel); that sum leaves out
    the element itself; B - 1 for B; the gradient flows through the weights; 1e-7 in the logarithm.
    The difference of sums rounds to zero where one element outweighs the rest of its row: from a
    logit scale of some hundred on, value or gradient is not finite.
    """
    same = torch.eye(len(rows), device=rows.device) if groups is None else (groups[:, None] == groups)
    targets = same.to(rows.dtype) / same.sum(dim=1, keepdim=True)
    logits = scale * (rows @ columns.T)
    logits = logits - logits.max(dim=1, keepdim=True).values.detach()
    hardness = (gamma * logits).exp()
    weights = (len(rows) - 1) * hardness / (hardness.sum(dim=1) - hardness)
    weights = weights.masked_fill(targets > 0, 1.0)
    log_probability = logits - (1e-7 + (weights * logits.exp()).sum(dim=1, keepdim=True)).log()
    return -(targets * log_probability).sum(dim=1).mean()


def _spread(embeddings: Tensor, settings: LossSettings) -> Tensor:
    """One term of Eq. 3."""
    if settings.research.regularization == "none":
        return embeddings.new_zeros(())
    if settings.research.regularization == "batch":
        return embeddings.abs().mean() / torch.linalg.vector_norm(embeddings)
    return (embeddings.abs().mean(dim=1) / torch.linalg.vector_norm(embeddings, dim=1)).mean()
