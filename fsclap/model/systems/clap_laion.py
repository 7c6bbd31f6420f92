"""CLAP-LAION: mean of the encoder's tokens, two layers, InfoNCE (Wu et al. 2023, arXiv 2211.06687).

    e = normalise(W_2 relu(W_1 mean_t(u_t)))      loss = 1/2 [CE(S / tau) + CE(S^T / tau)]

The row that every other system is compared with. Released code (LAION-AI/CLAP): one temperature for
both directions, 1 / 0.07 at the start, at most 100. Ours: a linear layer to `width` in front and a norm
before the projection, as in all systems here, which makes this the base row of Table 3; and clips of the
same caption are no negatives of each other.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from fsclap.model.encoders import Encoders
from fsclap.model.fusion_separation import MeanPooling, Projection, tokenwise
from fsclap.model.losses import Embeddings, PairLabels, plain_loss
from fsclap.model.settings import LossSettings, ModelSettings
from fsclap.model.systems.base import AUDIO, TEXT, System
from fsclap.model.tokens import Tokens


class ClapLaion(System):
    """Plain CLAP."""

    system = "clap_laion"

    def __init__(self, settings: ModelSettings, *, encoders: Encoders | None = None) -> None:
        super().__init__(settings, encoders=encoders)
        width, dropout = settings.width, settings.dropout
        self.project = nn.ModuleList(nn.Linear(e.dim, width) for e in (self.audio_encoder, self.text_encoder))
        self.pooling = MeanPooling()
        self.joint = nn.ModuleList(Projection(width, settings.embedding, dropout=dropout) for _ in range(2))
        self.log_scale = self.learnt_scale()

    def encode_audio(self, features: Tokens) -> Tensor:
        """Embed clips: (B, frames, features) -> (B, E), rows of unit norm."""
        return self._embed(self.audio_encoder(features), AUDIO)

    def encode_text(self, features: Tokens) -> Tensor:
        """Embed captions: (B, T[, features]) -> (B, E), rows of unit norm."""
        return self._embed(self.text_encoder(features), TEXT)

    def loss(self, embedded: Embeddings, scale: Tensor, labels: PairLabels, settings: LossSettings) -> Tensor:
        """Compute InfoNCE in both directions."""
        return plain_loss(embedded, scale, labels, settings)

    def _embed(self, tokens: Tokens, modality: int) -> Tensor:
        x = tokenwise(self.project[modality], tokens.values, tokens.mask)  # (B, T, C)
        return F.normalize(self.joint[modality](self.pooling(x, tokens.mask)), dim=-1)  # (B, E)
