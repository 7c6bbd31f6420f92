"""MGA-CLAP (Li et al., ACM MM 2024; released code Ming-er/MGA-CLAP): a codebook that both sides share.

    q_l = W_2 LN(gelu(W_1 LN(u_l)))         tokens u_l of one modality
    z_k = max_l(q_l . c_k / sqrt(E)) / T    codes c_k, K of them; T a constant
    w   = sparsemax(z)                      sum_k w_k = 1, most of them 0
    e   = normalise(sum_k w_k c_k)
    loss = hard negatives (Eq. 1 and 2) + mean|e| / ||e||_F of each side's batch (WavCaps)

Released: K = 4096, T = 1000, codes drawn from N(0, 1). The released code counts padding as 0 in the
maximum, so a caption's embedding depends on the longest of its batch; ours leaves padding out
(`model.systems.mga.zero_padding`). Its loss differs from Eq. 2 (`loss.research.compat`). The locality-aware block
changes the last attention layer of a trained HTSAT; frozen encoders have none, so there it is left out.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fsclap.model.encoders import Encoders
from fsclap.model.fusion_separation import tokenwise
from fsclap.model.losses import Embeddings, PairLabels, contrastive_loss
from fsclap.model.settings import LossSettings, ModelSettings
from fsclap.model.systems.base import System
from fsclap.model.tokens import Tokens


def sparsemax(z: Tensor) -> Tensor:
    """Project on the simplex (Martins & Astudillo 2016): (..., K) -> (..., K), w = max(z - kappa, 0), sum 1."""
    ordered = z.sort(dim=-1, descending=True).values
    excess = ordered.cumsum(dim=-1) - 1
    count = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
    support = (count * ordered > excess).sum(dim=-1, keepdim=True)
    kappa = excess.gather(-1, support - 1) / support
    return (z - kappa).clamp(min=0)


def token_projection(width: int, embedding: int) -> nn.Sequential:
    """Build W_2 LN(gelu(W_1 LN(u))); the numbers of the layers are those of the released checkpoint."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, embedding),
        nn.GELU(),
        nn.LayerNorm(embedding),
        nn.Linear(embedding, embedding),
    )


class MgaClap(System):
    """Clips and captions as sparse mixtures of the same codes."""

    system = "mga_clap"

    def __init__(self, settings: ModelSettings, *, encoders: Encoders | None = None) -> None:
        super().__init__(settings, encoders=encoders)
        self.frame_proj = token_projection(self.audio_encoder.dim, settings.embedding)
        self.word_proj = token_projection(self.text_encoder.dim, settings.embedding)
        self.codebook = nn.Parameter(torch.randn(settings.systems.mga.codes, settings.embedding))
        self.log_scale = self.learnt_scale()

    def encode_audio(self, features: Tokens) -> Tensor:
        """Embed clips: (B, frames, features) -> (B, E), rows of unit norm."""
        return F.normalize(self.weights(self.frame_proj, self.audio_encoder(features)) @ self.codebook, dim=-1)

    def encode_text(self, features: Tokens) -> Tensor:
        """Embed captions: (B, T[, features]) -> (B, E), rows of unit norm."""
        return F.normalize(self.weights(self.word_proj, self.text_encoder(features)) @ self.codebook, dim=-1)

    def weights(self, projection: nn.Module, tokens: Tokens) -> Tensor:
        """Compute how much of each code a clip or caption has: (B, T, D) -> (B, K), rows of sum 1."""
        queries = tokenwise(projection, tokens.values, tokens.mask)  # (B, T, E)
        likeness = queries @ self.codebook.T / math.sqrt(self.codebook.shape[1])  # (B, T, K)
        fill = 0.0 if self.settings.systems.mga.zero_padding else -torch.inf
        nearest = likeness.masked_fill(~tokens.mask[..., None], fill).amax(dim=1)
        return sparsemax(nearest.float() / self.settings.systems.mga.temperature).to(queries.dtype)

    def loss(self, embedded: Embeddings, scale: Tensor, labels: PairLabels, settings: LossSettings) -> Tensor:
        """Compute Eq. 1 and 2 with the regulariser of WavCaps, unless Eq. 3 is set otherwise."""
        if settings.research.regularization == "none":
            research = settings.research.model_copy(update={"regularization": "batch"})
            settings = settings.model_copy(update={"research": research})
        return contrastive_loss(*embedded, scale, settings=settings, groups=labels.groups, meets=labels.meets)
