"""FS-CLAP: speech and its descriptions in one space.

    encoder tokens -> fusion (two self-attention blocks) -> separation (one feed-forward network per
    modality) -> attention pooling -> joint space

With fusion="shared", the default, the same two blocks run over each modality alone. A clip's
embedding then never depends on a caption, so it can be computed once and indexed. With
fusion="paired", clip i is fused with its own caption, as section 3.1 of the paper reads: its
embedding has seen the answer (fsclap.evaluation.leak). The literal fusion is used where it may see
both: in the matching head, which scores a clip and a caption given together.

Notation for shapes, as in fsclap.model.fusion_separation:
    B       clips, captions or pairs in a batch
    T       tokens of the longest sequence (a for audio, t for text where both occur)
    D       features of an encoder's token
    C       features of a projected token (`width`)
    E       width of the joint space (`embedding`)
"""

import json
import math
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from huggingface_hub import PyTorchModelHubMixin, snapshot_download
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from fsclap.model.encoders import EncoderError, Encoders, is_module
from fsclap.model.functionals import with_context
from fsclap.model.fusion_separation import (
    AttentionPooling,
    Fusion,
    Matcher,
    MeanPooling,
    Projection,
    Separation,
    tokenwise,
)
from fsclap.model.settings import ModelSettings
from fsclap.model.tokens import Tokens, pad
from fsclap.weights import WeightsError

AUDIO, TEXT = 0, 1
TEMPERATURE = 0.07
"""tau at the start of training, as in CLIP; it is learnt."""
MAX_LOGIT_SCALE = 100.0
"""1 / tau never exceeds this, as in CLIP: beyond it, training becomes unstable."""
REVISIONS_FILE = "encoders.json"


class ModelError(ValueError):
    """A saved model that can't be loaded. The message names its folder and says what to do."""


class Embeddings(NamedTuple):
    """(B, E) rows of unit norm each; row i of one belongs to row i of the other."""

    audio: Tensor
    text: Tensor


class FSCLAP(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="fsclap",
    tags=["audio-retrieval", "speech", "speaking-style"],
    coders={ModelSettings: (lambda settings: settings.model_dump(mode="json"), ModelSettings.model_validate)},
):
    """The model; load a trained one with `FSCLAP.from_pretrained(folder)`.

    Args:
        settings: Architecture.
        encoders: Encoders to use instead of those the settings name, for tests and studies.
    """

    def __init__(self, settings: ModelSettings, *, encoders: Encoders | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.audio_encoder, self.text_encoder = build_encoders(settings) if encoders is None else encoders
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
        self.log_scale = nn.Parameter(torch.tensor(-math.log(TEMPERATURE)))
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
        x = self._projected(tokens, modality)  # (B, T, C)
        if self.fusion is not None and self.settings.fusion == "shared":
            x = self.fusion(x, tokens.mask)  # (B, T, C)
        pooled = self.pooling[modality](tokenwise(self.separation[modality], x, tokens.mask), tokens.mask)  # (B, C)
        return F.normalize(self.joint[modality](pooled), dim=-1)  # (B, E)

    def _fused_pairs(self, audio: Tokens, text: Tokens) -> list[Tensor]:
        """Concatenate, fuse, split, separate, pool: [(B, C) of the audio, (B, C) of the text]."""
        assert self.fusion is not None
        x = torch.cat([self._projected(audio, AUDIO), self._projected(text, TEXT)], dim=1)  # (B, Ta + Tt, C)
        x = self.fusion(x, torch.cat([audio.mask, text.mask], dim=1))  # (B, Ta + Tt, C)
        parts = x.split([audio.mask.shape[1], text.mask.shape[1]], dim=1)  # (B, Ta, C), (B, Tt, C)
        return [
            self.pooling[modality](self.separation[modality](part), tokens.mask)
            for modality, part, tokens in zip((AUDIO, TEXT), parts, (audio, text), strict=True)
        ]

    def _projected(self, tokens: Tokens, modality: int) -> Tensor:
        """(B, T, D) -> (B, T, C)."""
        return tokenwise(self.project[modality], tokens.values, tokens.mask) + self.modality[modality]

    def logit_scale(self) -> Tensor:
        """Return 1 / tau, between 1 and MAX_LOGIT_SCALE."""
        with torch.no_grad():
            # Clamp the parameter, not the output: a clamped output has no gradient to return by.
            self.log_scale.clamp_(0.0, math.log(MAX_LOGIT_SCALE))
        return self.log_scale.exp()

    def embed_audio(self, waves: Sequence[np.ndarray]) -> Tensor:
        """Embed waves without gradients; each is (samples,) float32 at `audio_encoder.sample_rate`.

        Only the middle of a wave counts if it is longer than the encoder takes, as in evaluation.
        """
        return self.embed_audio_features([self.audio_features(wave) for wave in waves])

    def audio_features(self, wave: np.ndarray, context: np.ndarray | None = None) -> np.ndarray:
        """Compute the features of a wave that `embed_audio_features` takes: (frames, features).

        Args:
            wave: (samples,) float32 at `audio_encoder.sample_rate`.
            context: (len(audio_encoder.context),) how the clip compares with its speaker's others, in
                the units of the measures, NaN where unknown; None: unknown.
        """
        frames = self.audio_encoder.features(wave)
        if context is not None and self.audio_encoder.context:
            frames = with_context(frames, context)
        start = max(0, len(frames) - self.audio_encoder.max_frames) // 2
        return frames[start : start + self.audio_encoder.max_frames]

    def embed_audio_features(self, features: Sequence[np.ndarray]) -> Tensor:
        """Embed clips by their features, without gradients."""
        return self._inferred(self.encode_audio, list(features))

    def embed_text(self, captions: Sequence[str]) -> Tensor:
        """Embed captions, without gradients."""
        return self._inferred(self.encode_text, self.text_encoder.features(captions))

    def _inferred(self, encode: Any, features: list[np.ndarray]) -> Tensor:
        training = self.training
        self.eval()
        with torch.inference_mode():
            embedded: Tensor = encode(pad(features).to(self.device))
        self.train(training)
        return embedded

    @property
    def revisions(self) -> dict[str, str]:
        """Revision of the encoder that computes the features of each modality."""
        return {"audio": self.audio_encoder.revision, "text": self.text_encoder.revision}

    @property
    def device(self) -> torch.device:
        return self.log_scale.device

    def parameter_groups(self, *, encoder_lr: float, head_lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Group parameters by learning rate; norms, biases and temperature do not decay."""
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                encoder = name.startswith(("audio_encoder.", "text_encoder."))
                decays = parameter.ndim >= 2 and name != "modality"
                groups.setdefault((encoder, decays), []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": encoder_lr if encoder else head_lr,
                "weight_decay": weight_decay if decays else 0.0,
            }
            for (encoder, decays), parameters in sorted(groups.items())
        ]

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        (save_directory / REVISIONS_FILE).write_text(json.dumps(self.revisions, indent=1) + "\n")
        for encoder in (self.audio_encoder, self.text_encoder):
            if is_module(encoder) and hasattr(encoder, "save_assets"):
                encoder.save_assets(save_directory)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> "FSCLAP":
        """Load a trained model, with all its weights from its files.

        Args:
            pretrained_model_name_or_path: A folder that `save_pretrained` wrote, or a model's name
                on Hugging Face.
            options: Options of `huggingface_hub.ModelHubMixin.from_pretrained`, and `encoders`.

        Raises:
            WeightsError: The installed encoders are missing, or not those the model was trained on.
            ModelError: A file is damaged or belongs to another model.
            FileNotFoundError: There are no weights.
        """
        try:
            model: FSCLAP = super().from_pretrained(pretrained_model_name_or_path, **options)
        except (ValueError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            if isinstance(error, WeightsError):
                raise
            raise ModelError(
                f"{pretrained_model_name_or_path} holds no FS-CLAP model that can be read: one of {CONFIG_NAME}, "
                f"{REVISIONS_FILE} and {SAFETENSORS_SINGLE_FILE} is damaged or belongs to another model. Copy the "
                f"folder again, or train the model again ({type(error).__name__}: {_brief(error)})"
            ) from error
        return model

    @classmethod
    def _from_pretrained(  # type: ignore[override]
        cls, *, model_id: str, settings: ModelSettings, encoders: Encoders | None = None, **options: Any
    ) -> "FSCLAP":
        folder = _saved_folder(model_id, options)
        # The mixin's default leaves random weights where the file has none.
        options["strict"] = True
        if encoders is None and settings.encoders == "clap":
            from fsclap.model.clap import saved_encoders

            # These encoders were trained: their weights are in the model's file, not in
            # clap_weights.
            encoders = saved_encoders(folder)
        with redirect_stdout(sys.stderr):  # the mixin prints that it loads, which would break JSON output
            model: FSCLAP = super()._from_pretrained(model_id=model_id, settings=settings, encoders=encoders, **options)
        _check_revisions(model.revisions, folder)
        return model

    @classmethod
    def _load_as_pickle(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        raise ValueError(f"{model_file}: only safetensors are read; a pickle can run code when it is loaded")


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _check_revisions(revisions: dict[str, str], folder: Path) -> None:
    file = folder / REVISIONS_FILE
    trained = json.loads(file.read_text()) if file.is_file() else revisions
    if trained != revisions:
        raise EncoderError(
            f"the model in {folder} was trained on the features {trained}; the installed ones are {revisions}. "
            "Install the same versions, or train it again."
        )


def _saved_folder(model_id: str, options: dict[str, Any]) -> Path:
    """Return the folder of a saved model; of a model of the hub, one with its JSON files alone."""
    if Path(model_id).is_dir():
        return Path(model_id)
    named = ("revision", "cache_dir", "force_download", "token", "local_files_only")
    folder = snapshot_download(
        model_id, allow_patterns=["*.json"], **{name: options[name] for name in named if name in options}
    )
    return Path(folder)


def build_encoders(settings: ModelSettings) -> Encoders:
    """Build the encoders that the settings name.

    Raises:
        WeightsError: Weights are missing or do not fit; the message says which, and what to do.
    """
    if settings.encoders == "embedded":
        from fsclap.model.embedded import ProsodicFrames, ProsodicWhisper, SentenceTokens

        audio = ProsodicWhisper if settings.speech_tokens else ProsodicFrames
        return audio(settings.functionals), SentenceTokens()
    from fsclap.model.clap import clap_encoders

    return clap_encoders(settings)


def load_model(folder: Path, device: str = "auto") -> FSCLAP:
    """Load a trained model, ready to embed; device "auto" is a GPU if there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model: FSCLAP = FSCLAP.from_pretrained(str(folder))
    return model.to(device).eval()
