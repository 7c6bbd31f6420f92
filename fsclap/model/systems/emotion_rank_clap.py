"""EmotionRankCLAP (Chandra et al., Interspeech 2025, arXiv 2505.23732): Rank-N-Contrast across modalities.

    l_ij = -s_ij / tau + log sum_{k: d_ik >= d_ij} exp(s_ik / tau)     s cosine, d distance of the labels
    loss = 1/2 (mean_ij l_ij(audio, text) + mean_ij l_ij(text, audio))

Anchors are of one modality and candidates of the other; a candidate competes with those that are farther
from the anchor by their labels, so that similarities come in the order of the labels (Rank-N-Contrast,
Zha et al. 2023). No code is public. Ours: the pair itself is among the candidates (d = 0), which makes its
term InfoNCE; both directions; the cosine with a learnt temperature; squared L2 distances, whose order is
that of L2. The labels are valence and arousal in the paper; `model.systems.emotion_rank.axes` adds the levels of
the style for corpora whose clips have no emotion. Encoders and projection are CLAP's.

encoders=own: a speech encoder that stays frozen (the paper's is a WavLM trained to recognise emotions, which
it does not name) and DistilRoBERTa.
"""

from pathlib import Path

import torch
from torch import Tensor
from transformers import RobertaConfig

from fsclap.model.encoders import Encoders
from fsclap.model.losses import Embeddings, PairLabels
from fsclap.model.settings import LossSettings, ModelSettings
from fsclap.model.systems.clap_laion import ClapLaion
from fsclap.model.systems.speech import fill_speech_encoders, saved_speech_encoders, speech_encoders

DISTILROBERTA = RobertaConfig(
    vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, num_hidden_layers=6
)
EMOTION_AXES = 2
"""Valence and arousal come first among the levels (fsclap.data.levels)."""
DECIMALS = 5
"""Distances that differ by less are equal: sums of the same numbers in another order."""


def rank_n_contrast(logits: Tensor, distances: Tensor) -> Tensor:
    """Compute the mean of l_ij in O(B^2 log B).

    Sorted by falling distance, the candidates at least as far as j are a prefix of the row; its end is
    the last of those as far as j.

    Args:
        logits: (B, N) s / tau of anchors and candidates, floating point.
        distances: (B, N) distances of their labels; ties share a denominator.

    Returns:
        A scalar of the dtype of the logits.
    """
    nearness, order = (-distances).sort(dim=1)  # the farthest first
    sums = logits.gather(1, order).logcumsumexp(dim=1)
    last = torch.searchsorted(nearness, nearness, right=True) - 1
    return (sums.gather(1, last) - logits.gather(1, order)).mean()


def label_distances(levels: Tensor) -> Tensor:
    """Squared L2 distances: (B, L) -> (B, B), exactly equal where they should be."""
    total = levels.new_zeros(len(levels), len(levels))
    for axis in levels.T:  # one axis at a time: (B, B, L) would be large
        total = total + (axis[:, None] - axis).square()
    return total.round(decimals=DECIMALS)


class EmotionRankClap(ClapLaion):
    """Plain CLAP with a loss that ranks."""

    system = "emotion_rank_clap"

    def loss(self, embedded: Embeddings, scale: Tensor, labels: PairLabels, settings: LossSettings) -> Tensor:
        """Compute Rank-N-Contrast in both directions; of the settings of Eq. 1-3 it knows none."""
        if labels.levels is None:
            raise ValueError(
                "emotion_rank_clap needs the levels of the clips' styles: batches without them have no rank"
            )
        levels = labels.levels.double()
        if self.settings.systems.emotion_rank.axes == "emotion":
            levels = levels[:, :EMOTION_AXES]
        distances = label_distances(levels)
        dtype = torch.promote_types(embedded.audio.dtype, torch.float32)
        with torch.autocast(embedded.audio.device.type, enabled=False):
            logits = scale.to(dtype) * (embedded.audio.to(dtype) @ embedded.text.to(dtype).T)
            return (rank_n_contrast(logits, distances) + rank_n_contrast(logits.T, distances)) / 2

    @classmethod
    def own_encoders(cls, settings: ModelSettings) -> Encoders:
        """Build a frozen WavLM and DistilRoBERTa, or those of the folders."""
        return speech_encoders(settings, DISTILROBERTA, layers=False, trained=False)

    @classmethod
    def saved_encoders(cls, folder: Path) -> Encoders:
        return saved_speech_encoders(folder, layers=False, trained=False)

    def load_published(self) -> None:
        """Load the weights of both encoders; nobody published those of the heads."""
        fill_speech_encoders(self.settings, self.audio_encoder, self.text_encoder)
