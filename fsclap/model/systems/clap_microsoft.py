"""CLAP-Microsoft, 2023 (Elizalde et al., arXiv 2309.05767; released code microsoft/CLAP, msclap 1.3.4).

    P(x) = LN(e_1 + drop_0.5(W_2 gelu(e_1))),   e_1 = W_1 x, no biases
    clip: P(mean_t(u_t))      text: P(last token), as GPT-2 reads from left to right
    loss = 1/2 [CE(S / tau) + CE(S^T / tau)]

The released encoders don't normalise; their similarity is the cosine, so unit rows rank alike. The
training code is not public: loss and temperature are CLAP's. Ours: on encoders that read both ways, such
as the embedded MiniLM, the last token is the final special token.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fsclap.model.encoders import Encoders
from fsclap.model.fusion_separation import MeanPooling
from fsclap.model.losses import Embeddings, PairLabels, plain_loss
from fsclap.model.settings import LossSettings, ModelSettings
from fsclap.model.systems.base import System
from fsclap.model.tokens import Tokens

DROPOUT = 0.5


class MicrosoftProjection(nn.Module):
    """Two layers with a residual between them; the names are those of the released checkpoint."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, embedding, bias=False)
        self.linear2 = nn.Linear(embedding, embedding, bias=False)
        self.layer_norm = nn.LayerNorm(embedding)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, E)."""
        first = self.linear1(x)
        second = F.dropout(self.linear2(F.gelu(first)), DROPOUT, self.training)
        return torch.as_tensor(self.layer_norm(first + second))


def last_token(tokens: Tokens) -> Tensor:
    """Take the last token of each row: (B, T, D) -> (B, D)."""
    rows = torch.arange(len(tokens), device=tokens.mask.device)
    return tokens.values[rows, tokens.mask.sum(dim=1) - 1]


class ClapMicrosoft(System):
    """CLAP with Microsoft's projection, over the last token of the text."""

    system = "clap_microsoft"

    def __init__(self, settings: ModelSettings, *, encoders: Encoders | None = None) -> None:
        super().__init__(settings, encoders=encoders)
        self.pooling = MeanPooling()
        self.audio_projection = MicrosoftProjection(self.audio_encoder.dim, settings.embedding)
        self.text_projection = MicrosoftProjection(self.text_encoder.dim, settings.embedding)
        self.log_scale = self.learnt_scale()

    def encode_audio(self, features: Tokens) -> Tensor:
        """Embed clips: (B, frames, features) -> (B, E), rows of unit norm."""
        tokens = self.audio_encoder(features)
        return F.normalize(self.audio_projection(self.pooling(tokens.values, tokens.mask)), dim=-1)

    def encode_text(self, features: Tokens) -> Tensor:
        """Embed captions: (B, T[, features]) -> (B, E), rows of unit norm."""
        return F.normalize(self.text_projection(last_token(self.text_encoder(features))), dim=-1)

    def loss(self, embedded: Embeddings, scale: Tensor, labels: PairLabels, settings: LossSettings) -> Tensor:
        """Compute InfoNCE in both directions."""
        return plain_loss(embedded, scale, labels, settings)
