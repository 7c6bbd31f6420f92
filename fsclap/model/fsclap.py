"""FS-CLAP: speech and its description in one space.

    encoder tokens -> fusion (two self-attention blocks) -> separation (a feed-forward network a modality)
                   -> attention pooling -> joint space

With fusion="shared", the default, the same two blocks run over each modality alone. A clip's embedding then never
depends on a caption: it can be computed once and indexed. With fusion="paired" clip i is fused with its own caption,
as section 3.1 of the paper reads: its embedding has seen the answer (fsclap.evaluation.leak). The literal fusion is
put to use where it may see both: in the matching head, which scores a clip and a caption given together.
"""

import json
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
from fsclap.model.fusion_separation import AttentionPooling, Fusion, Matcher, MeanPooling, Projection, Separation
from fsclap.model.settings import ModelSettings
from fsclap.model.tokens import Tokens, pad

AUDIO, TEXT = 0, 1
REVISIONS_FILE = "encoders.json"


class ModelError(ValueError):
    """A saved model that can't be loaded. The message says where it lies and what to do."""


class Embeddings(NamedTuple):
    """Rows of unit norm, (batch, embedding) each; row i of one belongs to row i of the other."""

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
        settings: What it is made of.
        encoders: Encoders to use instead of those that the settings name, for tests and studies.
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
        self.log_scale = nn.Parameter(torch.tensor(-float(np.log(settings.temperature))))
        self.matcher = Matcher(width, dropout=dropout) if settings.rerank else None

    def encode_audio(self, features: Tokens) -> Tensor:
        """Embed clips, (batch, frames, features) -> (batch, embedding), rows of unit norm.

        Raises:
            ValueError: The model fuses pairs, so no clip has an embedding of its own.
        """
        return self._alone(self.audio_encoder(features), AUDIO)

    def encode_text(self, features: Tokens) -> Tensor:
        """Embed captions, (batch, tokens[, features]) -> (batch, embedding), rows of unit norm.

        Raises:
            ValueError: As `encode_audio`.
        """
        return self._alone(self.text_encoder(features), TEXT)

    def forward(self, audio: Tokens, text: Tokens) -> Embeddings:
        """Embed pairs: row i of the audio belongs to row i of the text."""
        if self.settings.fusion != "paired":
            return Embeddings(self.encode_audio(audio), self.encode_text(text))
        pooled = self._fused_pairs(self.audio_encoder(audio), self.text_encoder(text))
        return Embeddings(*(F.normalize(joint(x), dim=-1) for joint, x in zip(self.joint, pooled, strict=True)))

    def match(self, audio: Tokens, text: Tokens) -> Tensor:
        """Score pairs with the matching head: (batch,) logits of row i of the audio being described by row i.

        Raises:
            ValueError: The model was made without the head (`rerank`).
        """
        if self.matcher is None:
            raise ValueError("this model has no matching head: train it with model.rerank=true")
        pooled = self._fused_pairs(self.audio_encoder(audio), self.text_encoder(text))
        score: Tensor = self.matcher(torch.cat(pooled, dim=-1))
        return score

    def logit_scale(self) -> Tensor:
        """1 / tau, between 1 and `max_logit_scale`."""
        with torch.no_grad():
            # The parameter itself is held in its range: a clamp of the output would have no gradient to come back by.
            self.log_scale.clamp_(0.0, float(np.log(self.settings.max_logit_scale)))
        return self.log_scale.exp()

    def embed_audio(self, waves: Sequence[np.ndarray]) -> Tensor:
        """Embed waves, each (samples,) float32 at `audio_encoder.sample_rate`, without gradients.

        Of a wave that is longer than the encoder takes, the middle is heard, as in training and evaluation.
        """
        return self.embed_audio_features([self.audio_features(wave) for wave in waves])

    def audio_features(self, wave: np.ndarray) -> np.ndarray:
        """What `embed_audio_features` takes of a wave: (frames, features)."""
        frames = self.audio_encoder.features(wave)
        start = max(0, len(frames) - self.audio_encoder.max_frames) // 2
        return frames[start : start + self.audio_encoder.max_frames]

    def embed_audio_features(self, features: Sequence[np.ndarray]) -> Tensor:
        """Embed clips whose features were computed before, without gradients."""
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
        """What the features of each modality are computed with."""
        return {"audio": self.audio_encoder.revision, "text": self.text_encoder.revision}

    @property
    def device(self) -> torch.device:
        return self.log_scale.device

    def _projected(self, tokens: Tokens, modality: int) -> Tensor:
        projected: Tensor = self.project[modality](tokens.values) + self.modality[modality]
        return projected

    def _alone(self, tokens: Tokens, modality: int) -> Tensor:
        if self.settings.fusion == "paired":
            raise ValueError(
                'fusion="paired" gives a clip no embedding of its own: it depends on the caption it is fused with. '
                'Retrieval needs fusion="shared" or "none".'
            )
        x = self._projected(tokens, modality)
        if self.fusion is not None and self.settings.fusion == "shared":
            x = self.fusion(x, tokens.mask)
        pooled = self.pooling[modality](self.separation[modality](x), tokens.mask)
        return F.normalize(self.joint[modality](pooled), dim=-1)

    def _fused_pairs(self, audio: Tokens, text: Tokens) -> list[Tensor]:
        """Concatenate, fuse, split, separate, pool: [(batch, width) of the audio, (batch, width) of the text]."""
        assert self.fusion is not None
        x = torch.cat([self._projected(audio, AUDIO), self._projected(text, TEXT)], dim=1)
        x = self.fusion(x, torch.cat([audio.mask, text.mask], dim=1))
        parts = x.split([audio.mask.shape[1], text.mask.shape[1]], dim=1)
        return [
            self.pooling[modality](self.separation[modality](part), tokens.mask)
            for modality, part, tokens in zip((AUDIO, TEXT), parts, (audio, text), strict=True)
        ]

    def parameter_groups(self, *, encoder_lr: float, head_lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Parameters for AdamW with two learning rates; norms, biases and the temperature do not decay."""
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
        """Load a trained model, every weight of it from its files.

        Args:
            pretrained_model_name_or_path: A folder that `save_pretrained` wrote, or a model's name on Hugging Face.
            options: Of `huggingface_hub.ModelHubMixin.from_pretrained`, and `encoders`.

        Raises:
            EncoderError: The encoders installed here are not those that it was trained on.
            ModelError: A file of it is damaged, or is another model's.
            FileNotFoundError: It has no weights.
        """
        try:
            model: FSCLAP = super().from_pretrained(pretrained_model_name_or_path, **options)
        except (ValueError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            if isinstance(error, EncoderError):
                raise
            raise ModelError(
                f"{pretrained_model_name_or_path} holds no FS-CLAP model that can be read: one of {CONFIG_NAME}, "
                f"{REVISIONS_FILE} and {SAFETENSORS_SINGLE_FILE} is damaged, or another model's. Copy the folder "
                f"again, or train the model again ({type(error).__name__}: {_brief(error)})"
            ) from error
        return model

    @classmethod
    def _from_pretrained(  # type: ignore[override]
        cls, *, model_id: str, settings: ModelSettings, encoders: Encoders | None = None, **options: Any
    ) -> "FSCLAP":
        folder = _saved_folder(model_id, options)
        # The mixin's default leaves random weights in place of those that a file lacks.
        options["strict"] = True
        if encoders is None and settings.encoders == "clap":
            from fsclap.model.clap import saved_encoders

            # Trained encoders: their weights are the model's own, so those that training started from are not needed.
            encoders = saved_encoders(folder)
        with redirect_stdout(sys.stderr):  # the mixin prints that it loads, amid the output of whoever asked for JSON
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
            f"the model in {folder} was trained on the features {trained}; those installed here are {revisions}. "
            "Install the same versions, or train it again."
        )


def _saved_folder(model_id: str, options: dict[str, Any]) -> Path:
    """The folder of a saved model; of the hub's, what describes it."""
    if Path(model_id).is_dir():
        return Path(model_id)
    named = ("revision", "cache_dir", "force_download", "token", "local_files_only")
    found = snapshot_download(
        model_id, allow_patterns=["*.json"], **{name: options[name] for name in named if name in options}
    )
    return Path(found)


def build_encoders(settings: ModelSettings) -> Encoders:
    """The encoders that the settings name.

    Raises:
        EncoderError: Weights are missing or do not fit; says which, and what to install or name.
    """
    if settings.encoders == "embedded":
        from fsclap.model.embedded import ProsodicFrames, ProsodicWhisper, SentenceTokens

        return ProsodicWhisper() if settings.speech_tokens else ProsodicFrames(), SentenceTokens()
    from fsclap.model.clap import clap_encoders

    return clap_encoders(settings)


def load_model(folder: Path, device: str = "auto") -> FSCLAP:
    """A trained model, ready to embed."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model: FSCLAP = FSCLAP.from_pretrained(str(folder))
    return model.to(device).eval()
