"""FS-CLAP: speech and its descriptions in one space.

    encoder tokens -> fusion (two self-attention blocks) -> separation (one feed-forward network per
    modality) -> attention pooling -> joint space

With fusion="shared" the same two blocks run over each modality alone. A clip's
embedding then never depends on a caption, so it can be computed once and indexed. With
fusion="paired", clip i is fused with its own caption, as section 3.1 of the paper reads: its
embedding has seen the answer (fsclap.evaluation.leak). The literal fusion is used where it may see
both: in the matching head, which scores a clip and a caption given together. Loss: Eq. 1-3
(fsclap.model.losses).

Notation for shapes, as in fsclap.model.fusion_separation:
    B       clips, captions or pairs in a batch
    T       tokens of the longest sequence (a for audio, t for text where both occur)
    D       features of an encoder's token
    C       features of a projected token (`width`)
    E       width of the joint space (`embedding`)
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fsclap.model.encoders import Encoders
from fsclap.model.fusion_separation import (
    AttentionPooling,
    Fusion,
    Matcher,
    MeanPooling,
    Projection,
    Separation,
    tokenwise,
)
from fsclap.model.losses import PairLabels, contrastive_loss
from fsclap.model.settings import LossSettings, ModelSettings
from fsclap.model.systems.base import AUDIO, TEXT, Embeddings, System
from fsclap.model.tokens import Tokens


class FSCLAP(System):
    """The model of this project; load a trained one with `FSCLAP.from_pretrained(folder)`.

    Args:
        settings: Architecture.
        encoders: Encoders to use instead of those the settings name, for tests and studies.
    """

    system = "fs_clap"

    def __init__(self, settings: ModelSettings, *, encoders: Encoders | None = None) -> None:
        super().__init__(settings, encoders=encoders)
        width, dropout = settings.width, settings.dropout
        self.project = nn.ModuleList(nn.Linear(e.dim, width) for e in (self.audio_encoder, self.text_encoder))
        self.modality = nn.Parameter(torch.zeros(2, width))
        fused = settings.fusion != "none" or settings.rerank
        self.fusion = Fusion(width, heads=settings.heads, dropout=dropout) if fused else None
        separated = settings.separation
        self.separation = nn.ModuleList(
            Separation(width, dropout=dropout) if separated else nn.Identity() for _ in range(2)
        )
        attention = settings.pooling == "attention"
        self.pooling = nn.ModuleList(AttentionPooling(width) if attention else MeanPooling() for _ in range(2))
        self.joint = nn.ModuleList(Projection(width, settings.embedding, dropout=dropout) for _ in range(2))
        self.log_scale = self.learnt_scale()
        self.matcher = Matcher(width, dropout=dropout) if settings.rerank else None

    def forward(self, audio: Tokens, text: Tokens) -> Embeddings:
        """Embed pairs: row i of the audio belongs to row i of the text."""
        if self.settings.fusion != "paired":
            return Embeddings(self.encode_audio(audio), self.encode_text(text))
        pooled = self._fused_pairs(self.audio_encoder(audio), self.text_encoder(text))
        return Embeddings(*(F.normalize(joint(x), dim=-1) for joint, x in zip(self.joint, pooled, strict=True)))

    def encode_audio(self, features: Tokens) -> Tensor:
        """Embed clips: features (B, frames, features) -> (B, E), rows of unit norm.

        Raises:
            ValueError: The model fuses pairs, so a clip has no embedding of its own.
        """
        return self._alone(self.audio_encoder(features), AUDIO)

    def encode_text(self, features: Tokens) -> Tensor:
        """Embed captions: features (B, T[, features]) -> (B, E), rows of unit norm.

        Raises:
            ValueError: As `encode_audio`.
        """
        return self._alone(self.text_encoder(features), TEXT)

    def match(self, audio: Tokens, text: Tokens) -> Tensor:
        """Score pairs with the matching head.

        Returns:
            (B,) logits that row i of the text describes row i of the audio.

        Raises:
            ValueError: The model was made without the head (`rerank`).
        """
        if self.matcher is None:
            raise ValueError("this model has no matching head: train it with model.rerank=true")
        pooled = self._fused_pairs(self.audio_encoder(audio), self.text_encoder(text))
        score: Tensor = self.matcher(torch.cat(pooled, dim=-1))  # (B, 2 C) -> (B,)
        return score

    def _alone(self, tokens: Tokens, modality: int) -> Tensor:
        """Embed one modality: tokens (B, T, D) -> (B, E)."""
        if self.settings.fusion == "paired":
            raise ValueError(
                'with fusion="paired" a clip has no embedding of its own: it depends on the caption it is fused '
                'with. Retrieval needs fusion="shared" or "none".'
            )
        project, separate = partial(self._project, modality=modality), self.separation[modality]
        if self.fusion is not None and self.settings.fusion == "shared":
            x = self.fusion(tokenwise(project, tokens.values, tokens.mask), tokens.mask)  # (B, T, C)
            x = tokenwise(separate, x, tokens.mask)
        else:
            x = tokenwise(lambda values: separate(project(values)), tokens.values, tokens.mask)
        pooled = self.pooling[modality](x, tokens.mask)  # (B, C)
        return F.normalize(self.joint[modality](pooled), dim=-1)  # (B, E)

    def _fused_pairs(self, audio: Tokens, text: Tokens) -> list[Tensor]:
        """Concatenate, fuse, split, separate, pool: [(B, C) of the audio, (B, C) of the text]."""
        assert self.fusion is not None
        projected = [
            tokenwise(partial(self._project, modality=modality), tokens.values, tokens.mask)
            for modality, tokens in ((AUDIO, audio), (TEXT, text))
        ]
        x = torch.cat(projected, dim=1)  # (B, Ta + Tt, C)
        x = self.fusion(x, torch.cat([audio.mask, text.mask], dim=1))  # (B, Ta + Tt, C)
        parts = x.split([audio.mask.shape[1], text.mask.shape[1]], dim=1)  # (B, Ta, C), (B, Tt, C)
        return [
            self.pooling[modality](self.separation[modality](part), tokens.mask)
            for modality, part, tokens in zip((AUDIO, TEXT), parts, (audio, text), strict=True)
        ]

    def _project(self, values: Tensor, modality: int) -> Tensor:
        """(..., D) -> (..., C)."""
        projected: Tensor = self.project[modality](values) + self.modality[modality]
        return projected

    def loss(self, embedded: Embeddings, scale: Tensor, labels: PairLabels, settings: LossSettings) -> Tensor:
        """Compute Eq. 1-3."""
        return contrastive_loss(
            embedded.audio, embedded.text, scale, settings=settings, groups=labels.groups, meets=labels.meets
        )
