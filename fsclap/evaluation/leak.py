"""The leak probe: does an embedding know the partner it was computed with?

A retrieval figure means something only if a clip's embedding is the same whatever caption it comes
with. If clip i is fused with its own caption before both are compared, the two recognise each other
by that alone: R@1 is 100 % on captions of pure noise. So the probe encodes unrelated pairs and
checks whether they find each other nonetheless.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from fsclap.evaluation.metrics import paper_metrics
from fsclap.evaluation.results import LeakProbe
from fsclap.model.tokens import Tokens

MOVED = 1e-3
"""Distance that rounding may move an embedding; unit vectors are at most 2 apart."""

CERTAINTY = 0.9995
"""Upper end of a two-sided 99.9 % interval."""

EncodePairs = Callable[[Tokens, Tokens], tuple[Tensor, Tensor]]
"""From clips and as many captions to (batch, E) unit rows of both; `FSCLAP.forward`."""


class LeakError(RuntimeError):
    """An embedding depends on the partner it was encoded with."""


def probe(encode_pairs: EncodePairs, audio: Tokens, text: Tokens, *, seed: int, batch: int = 64) -> LeakProbe:
    """Encode clips with noise, and with other clips' captions; check if they find each other.

    The noise has nothing in common with the captions: features are normal with the mean and
    deviation that each has over all tokens, ids are drawn from those that occur, and lengths are
    another caption's.

    Args:
        encode_pairs: The model, in evaluation mode.
        audio: Clips; at least 2, a few hundred are best.
        text: Their captions, row for row.
        seed: Seed of noise and partners.
        batch: Pairs encoded at a time.

    Raises:
        ValueError: Row counts differ, there are fewer than two pairs, or an embedding is not
            finite.
    """
    if len(audio) != len(text) or len(audio) < 2:
        raise ValueError(f"the leak probe needs as many clips as captions, at least 2; got {len(audio)}, {len(text)}")
    generator = torch.Generator().manual_seed(seed)
    shuffled = _other_rows(len(text), generator)
    own, _ = _encoded(encode_pairs, audio, text, batch)
    figures, moved = [], 0.0
    for partners in (_noise(text, generator), text[shuffled.to(text.values.device)]):
        clips, captions = _encoded(encode_pairs, audio, partners, batch)
        both = [paper_metrics(*pair)["R@1"].mean() for pair in ((clips, captions), (captions, clips))]
        figures.append(float(np.mean(both)))
        moved = max(moved, float(np.linalg.norm(clips - own, axis=1).max()))
    limit = float(binom.ppf(CERTAINTY, len(audio), 1 / len(audio))) / len(audio)
    return LeakProbe(
        pairs=len(audio),
        noise_r1=figures[0],
        shuffled_r1=figures[1],
        moved=moved,
        chance=1 / len(audio),
        limit=limit,
        leaks=max(figures) > limit or moved > MOVED,
    )


def require_no_leak(leak: LeakProbe) -> None:
    """Refuse a model that leaks.

    Raises:
        LeakError: It leaks; the message gives the evidence and says what to do.
    """
    if not leak.leaks:
        return
    signs = [
        f"R@1 is {value:.1%} among {leak.pairs} clips {what} (chance {leak.chance:.1%}, limit {leak.limit:.1%})"
        for value, what in (
            (leak.noise_r1, "encoded with noise as captions"),
            (leak.shuffled_r1, "encoded with the captions of other clips"),
        )
        if value > leak.limit
    ]
    if leak.moved > MOVED:
        signs.append(f"a clip's embedding moves by {leak.moved:.2g} when its caption is replaced")
    advice = (
        'The model sees the answer in advance: retrieval figures need model.fusion="shared" or "none".'
        if len(signs) > 1 or leak.moved <= MOVED
        else "Is the model in evaluation mode? Dropout moves embeddings, too."
    )
    raise LeakError(f"the embeddings leak: {'; '.join(signs)}. {advice}")


@torch.no_grad()
def _encoded(encode_pairs: EncodePairs, audio: Tokens, text: Tokens, batch: int) -> tuple[np.ndarray, np.ndarray]:
    parts = []
    for start in range(0, len(audio), batch):
        rows = slice(start, start + batch)
        parts.append([part.float().cpu().numpy() for part in encode_pairs(audio[rows], text[rows])])
    clips, captions = (np.concatenate(part) for part in zip(*parts, strict=True))
    return clips, captions


def _noise(text: Tokens, generator: torch.Generator) -> Tokens:
    values, mask = text.values.cpu(), text.mask.cpu()
    seen = values[mask]
    if values.is_floating_point():
        drawn = torch.randn(values.shape, generator=generator)
        drawn = (drawn * seen.float().std(dim=0) + seen.float().mean(dim=0)).to(values.dtype)
    else:
        drawn = seen.unique()[torch.randint(len(seen.unique()), values.shape, generator=generator)]
    mask = mask[_other_rows(len(text), generator)]
    drawn[~mask] = 0
    return Tokens(drawn, mask).to(text.values.device)


def _other_rows(count: int, generator: torch.Generator) -> Tensor:
    """Assign each row another one, each once: the next in a random order."""
    order = torch.randperm(count, generator=generator)
    partners = torch.empty_like(order)
    partners[order] = order.roll(1)
    return partners
