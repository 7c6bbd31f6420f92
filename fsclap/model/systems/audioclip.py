"""AudioCLIP (Guzhov et al. 2021, arXiv 2106.13043; released code AndreyGuzhov/AudioCLIP, MIT).

    gated layer:  y = layer(x) * sigmoid(BN(PW(DW(x))))     layer: a ResNeXt bottleneck, PW and DW: point-
                                                            and depthwise convolutions of the gate
    clip: W mean_t(y_t)       text: W LN(last token), as in CLIP
    loss = CE(S / tau) + CE(S^T / tau), without 1/2; 1 / tau = 100 at the start, between 1 and 100

The released network is a ResNeXt-50 over a learnt spectrogram (`fsclap.model.systems.esresnext`). Ours: on
encoders that give tokens, such as the embedded ones, two gated layers run over the tokens along time, with
the released gate's kernel of 5; the learnt spectrogram is left out, for it needs the wave.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fsclap.model.encoders import Encoders
from fsclap.model.fusion_separation import MeanPooling, tokenwise
from fsclap.model.losses import Embeddings, PairLabels, plain_loss
from fsclap.model.settings import LossSettings, ModelSettings
from fsclap.model.systems.base import System
from fsclap.model.systems.clap_microsoft import last_token
from fsclap.model.tokens import Tokens

TEMPERATURE = 0.01
GROUP = 4
"""Channels of a group of the bottleneck: the 4d of ResNeXt-50 32x4d."""
GATE = 5
"""Frames that the gate's depthwise convolution spans."""
LAYERS = 2


class GatedLayer(nn.Module):
    """A residual ResNeXt bottleneck over time, times an attention gate.

    Padding is set to 0 before each convolution, and norms see real tokens alone.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(GROUP, width // 2 // GROUP * GROUP)
        self.narrow = nn.Sequential(nn.Linear(width, inner, bias=False), nn.BatchNorm1d(inner), nn.ReLU())
        self.grouped = nn.Conv1d(inner, inner, 3, padding=1, groups=inner // GROUP, bias=False)
        self.widen = nn.Sequential(
            nn.BatchNorm1d(inner), nn.ReLU(), nn.Linear(inner, width, bias=False), nn.BatchNorm1d(width)
        )
        self.gate_depth = nn.Conv1d(width, width, GATE, padding=GATE // 2, groups=width, bias=False)
        self.gate_point = nn.Sequential(nn.Linear(width, width, bias=False), nn.BatchNorm1d(width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) and mask (B, T) -> (B, T, C)."""
        branch = _along_time(self.grouped, _on_tokens(self.narrow, x, mask))
        layer = F.relu(x + _on_tokens(self.widen, branch, mask))
        depth = _along_time(self.gate_depth, x * mask[..., None])
        return layer * torch.sigmoid(_on_tokens(self.gate_point, depth, mask)) * mask[..., None]


def _on_tokens(layers: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """Apply layers with batch norms to the real tokens; padding comes out as 0."""
    real = layers(x[mask])  # (tokens, C')
    return real.new_zeros(*mask.shape, real.shape[-1]).masked_scatter(mask[..., None], real)


def _along_time(convolution: nn.Module, x: Tensor) -> Tensor:
    return torch.as_tensor(convolution(x.transpose(1, 2))).transpose(1, 2)


class AudioClip(System):
    """Gated convolutions, CLIP's reading of the text, the sum of both directions."""

    system = "audioclip"

    def __init__(self, settings: ModelSettings, *, encoders: Encoders | None = None) -> None:
        super().__init__(settings, encoders=encoders)
        width = settings.width
        self.project = nn.Linear(self.audio_encoder.dim, width)
        self.layers = nn.ModuleList(GatedLayer(width) for _ in range(LAYERS))
        self.pooling = MeanPooling()
        self.fc = nn.Linear(width, settings.embedding)
        self.ln_final = nn.LayerNorm(self.text_encoder.dim)
        self.text_projection = nn.Linear(self.text_encoder.dim, settings.embedding, bias=False)
        self.log_scale = self.learnt_scale(TEMPERATURE)

    def encode_audio(self, features: Tokens) -> Tensor:
        """Embed clips: (B, frames, features) -> (B, E), rows of unit norm."""
        tokens = self.audio_encoder(features)
        x = tokenwise(self.project, tokens.values, tokens.mask)
        for layer in self.layers:
            x = layer(x, tokens.mask)
        return F.normalize(self.fc(self.pooling(x, tokens.mask)), dim=-1)

    def encode_text(self, features: Tokens) -> Tensor:
        """Embed captions: (B, T[, features]) -> (B, E), rows of unit norm."""
        return F.normalize(self.text_projection(self.ln_final(last_token(self.text_encoder(features)))), dim=-1)

    def loss(self, embedded: Embeddings, scale: Tensor, labels: PairLabels, settings: LossSettings) -> Tensor:
        """Compute the sum of the InfoNCE of both directions."""
        return 2 * plain_loss(embedded, scale, labels, settings)
