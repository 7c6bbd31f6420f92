"""RA-CLAP (Sun et al., Interspeech 2025, arXiv 2505.19437): graded matches by self-distillation.

    stage 1   plain CLAP (ESS-CLAP)
    stage 2   loss = (1 - share) InfoNCE + share L_dist
              L_dist = 1/2 [CE(S / tau, softmax_row(S' / tau)) + CE(S^T / tau, softmax_row(S'^T / tau))]

S are the student's cosines and S' the teacher's. No code is public, and the text of stage 2 was not at
hand: this is the nearest published scheme, estimated correspondences (Primus et al. 2024, arXiv
2408.11641). Ours, too: the teacher is the model at the end of stage 1, frozen; the student goes on from the
same weights under the same schedule, so that both stages together cost the epochs of the other systems
(`model.systems.ra.stage_one` of them, and one more forward pass in stage 2); share 1/2; the temperature of the
targets is the student's, as a constant. In the paper the clip is a learnt mean over the layers of a
self-supervised encoder; encoders that give one layer have nothing to weigh.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import RobertaConfig

from fsclap.model.encoders import Encoders
from fsclap.model.losses import Embeddings, PairLabels, plain_loss
from fsclap.model.settings import LossSettings, ModelSettings
from fsclap.model.systems.clap_laion import ClapLaion
from fsclap.model.systems.speech import fill_speech_encoders, saved_speech_encoders, speech_encoders
from fsclap.model.tokens import Tokens

_TEACHER = "teacher."


ROBERTA = RobertaConfig(vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)
"""Sizes of roberta-base."""


def distillation(embedded: Embeddings, teacher: Embeddings, scale: Tensor) -> Tensor:
    """Compute L_dist, in float32 at least; no gradient reaches the teacher or the targets' temperature."""
    dtype = torch.promote_types(embedded.audio.dtype, torch.float32)
    with torch.autocast(embedded.audio.device.type, enabled=False):
        student = scale.to(dtype) * (embedded.audio.to(dtype) @ embedded.text.to(dtype).T)
        taught = (scale.to(dtype) * (teacher.audio.to(dtype) @ teacher.text.to(dtype).T)).detach()
        by_audio = F.cross_entropy(student, taught.softmax(dim=1))
        by_text = F.cross_entropy(student.T, taught.T.softmax(dim=1))
    return (by_audio + by_text) / 2


class RaClap(ClapLaion):
    """Plain CLAP that becomes its own teacher."""

    system = "ra_clap"

    def __init__(self, settings: ModelSettings, *, encoders: Encoders | None = None) -> None:
        super().__init__(settings, encoders=encoders)
        self.teacher: RaClap | None = None

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Freeze a copy as the teacher when stage 2 begins."""
        if self.teacher is None and epoch >= round(self.settings.systems.ra.stage_one * epochs):
            self._start_teaching()

    @torch.no_grad()
    def teach(self, audio: Tokens, text: Tokens) -> Embeddings | None:
        """Embed the pairs with the teacher; None in stage 1."""
        if self.teacher is None:
            return None
        self.teacher.eval()
        return Embeddings(self.teacher.encode_audio(audio), self.teacher.encode_text(text))

    def loss(self, embedded: Embeddings, scale: Tensor, labels: PairLabels, settings: LossSettings) -> Tensor:
        """Compute InfoNCE, with the distillation in stage 2."""
        plain = plain_loss(embedded, scale, labels, settings)
        if labels.teacher is None:
            return plain
        share = self.settings.systems.ra.share
        return (1 - share) * plain + share * distillation(embedded, labels.teacher, scale)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        """Load the weights of either stage: those of stage 2, in a checkpoint, come with their teacher."""
        if not any(name.startswith(_TEACHER) for name in state_dict):
            self.teacher = None
        elif self.teacher is None:
            self._start_teaching()
        return super().load_state_dict(state_dict, *args, **options)

    def _start_teaching(self) -> None:
        self.teacher = copy.deepcopy(self).requires_grad_(requires_grad=False)

    def _save_pretrained(self, save_directory: Path) -> None:
        teacher, self.teacher = self.teacher, None  # only the training needs it
        super()._save_pretrained(save_directory)
        self.teacher = teacher

    @classmethod
    def own_encoders(cls, settings: ModelSettings) -> Encoders:
        """Build WavLM with learnt weights of its layers, and RoBERTa; or those of the folders."""
        return speech_encoders(settings, ROBERTA, layers=True, trained=True)

    @classmethod
    def saved_encoders(cls, folder: Path) -> Encoders:
        return saved_speech_encoders(folder, layers=True, trained=True)

    def load_published(self) -> None:
        """Load the weights of both encoders; nobody published those of the heads."""
        fill_speech_encoders(self.settings, self.audio_encoder, self.text_encoder)
