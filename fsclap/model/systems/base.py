"""What every system offers: two encoders of one space, a loss, and a folder to be saved in.

A system is trained by `fsclap.training.loop` and searched by `fsclap.retrieval` through these methods
alone: `encode_audio`, `encode_text`, `loss`, `logit_scale`. Encoders turn sound and words into tokens;
what a system does with them is its own.

Notation for shapes:
    B       clips, captions or pairs in a batch
    T       tokens of the longest sequence
    D       features of an encoder's token
    E       width of the joint space (`embedding`)
"""

import json
import math
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from huggingface_hub import PyTorchModelHubMixin, snapshot_download
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from safetensors import SafetensorError
from torch import Tensor, nn

from fsclap.model.encoders import EncoderError, Encoders, is_module
from fsclap.model.functionals import with_context
from fsclap.model.fusion_separation import Matcher
from fsclap.model.losses import Embeddings, PairLabels
from fsclap.model.settings import LossSettings, ModelSettings
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


_CODERS: dict[Any, Any] = {
    ModelSettings: (lambda settings: settings.model_dump(mode="json"), ModelSettings.model_validate)
}


class System(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="fsclap",
    tags=["audio-retrieval", "speech", "speaking-style"],
    coders=_CODERS,
):
    """A model of speech and descriptions; `fsclap.model.systems` has those of the paper.

    Args:
        settings: Architecture.
        encoders: Encoders to use instead of those the settings name, for tests and studies.

    Attributes:
        system: Name of the system in `ModelSettings.system`.
        log_scale: Logarithm of 1 / tau, learnt; every system sets it (`learnt_scale`).
        matcher: Head that scores a clip and a caption given together; None: the system has none.
    """

    system: ClassVar[str]
    log_scale: nn.Parameter
    matcher: Matcher | None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(coders=_CODERS, **options)

    def __init__(self, settings: ModelSettings, *, encoders: Encoders | None = None) -> None:
        super().__init__()
        if settings.system != self.system:
            raise ValueError(f"these are settings of model.system={settings.system}, not of {self.system}")
        self.settings, self.matcher = settings, None
        if encoders is None:
            encoders = self.own_encoders(settings) if settings.encoders == "own" else build_encoders(settings)
        self.audio_encoder, self.text_encoder = encoders

    @classmethod
    def own_encoders(cls, settings: ModelSettings) -> Encoders:
        """Build the encoders that the system was published with, in the sizes of `systems.weights`.

        Raises:
            EncoderError: The weights can't be read, or a tokenizer is missing.
        """
        raise NotImplementedError

    @classmethod
    def saved_encoders(cls, folder: Path) -> Encoders:
        """Build the encoders of a saved model that had its own; their weights are loaded with the model's."""
        raise NotImplementedError

    def load_published(self) -> None:
        """Load the weights that `systems.weights` names, if any: of the encoders, and of the heads if it has them.

        Raises:
            EncoderError: A weight is missing, or of another size.
        """

    @staticmethod
    def learnt_scale(temperature: float = TEMPERATURE) -> nn.Parameter:
        """Make the parameter of the temperature that the training starts from."""
        return nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self, audio: Tokens, text: Tokens) -> Embeddings:
        """Embed pairs: row i of the audio belongs to row i of the text."""
        return Embeddings(self.encode_audio(audio), self.encode_text(text))

    def encode_audio(self, features: Tokens) -> Tensor:
        """Embed clips: features (B, frames, features) -> (B, E), rows of unit norm."""
        raise NotImplementedError

    def encode_text(self, features: Tokens) -> Tensor:
        """Embed captions: features (B, T[, features]) -> (B, E), rows of unit norm."""
        raise NotImplementedError

    def loss(self, embedded: Embeddings, scale: Tensor, labels: PairLabels, settings: LossSettings) -> Tensor:
        """Compute the loss of a batch, over all devices.

        Args:
            embedded: (B, E) unit rows of both sides.
            scale: 1 / tau.
            labels: What is known of the pairs beside their embeddings.
            settings: Settings of Eq. 1-3. Systems without hard negatives use the masks alone.

        Returns:
            A scalar, float32 at least.
        """
        raise NotImplementedError

    def penalty(self) -> Tensor | None:
        """Compute a loss of the weights alone, to be added once per batch; None: there is none."""
        return None

    def teach(self, audio: Tokens, text: Tokens) -> Embeddings | None:
        """Embed the pairs with the system's own teacher, without gradients; None: it has none."""
        return None

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Prepare for an epoch, numbered from 0, of `epochs`; called once, before its first step."""

    def match(self, audio: Tokens, text: Tokens) -> Tensor:
        """Score pairs with the matching head: (B,) logits that row i of both belong together.

        Raises:
            ValueError: The system has no such head.
        """
        raise ValueError(f"{self.system} has no matching head: it is part of model.system=fs_clap")

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
        return self.embed_text_features(self.text_encoder.features(captions))

    def embed_text_features(self, features: Sequence[np.ndarray]) -> Tensor:
        """Embed captions by the features of the text encoder, without gradients."""
        return self._inferred(self.encode_text, list(features))

    def _inferred(self, encode: Any, features: list[np.ndarray]) -> Tensor:
        training = self.training
        if training:  # going through all modules takes longer than a short text
            self.eval()
        with torch.inference_mode():
            embedded: Tensor = encode(pad(features).to(self.device))
        if training:
            self.train()
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
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Load a trained model of this system, with all its weights from its files.

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
            model: Self = super().from_pretrained(pretrained_model_name_or_path, **options)
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
    ) -> Self:
        folder = saved_folder(model_id, options)
        # The mixin's default leaves random weights where the file has none.
        options["strict"] = True
        if encoders is None and settings.encoders == "clap":
            from fsclap.model.clap import saved_encoders

            # These encoders were trained: their weights are in the model's file, not in
            # clap_weights.
            encoders = saved_encoders(folder)
        elif encoders is None and settings.encoders == "own":
            encoders = cls._described_encoders(folder)
        with redirect_stdout(sys.stderr):  # the mixin prints that it loads, which would break JSON output
            model: Self = super()._from_pretrained(model_id=model_id, settings=settings, encoders=encoders, **options)
        _check_revisions(model.revisions, folder)
        return model

    @classmethod
    def _described_encoders(cls, folder: Path) -> Encoders:
        try:
            return cls.saved_encoders(folder)
        except Exception as error:  # damaged files: transformers raises all kinds, tokenizers Exception itself
            raise EncoderError(
                f"{folder}: what describes the encoders of {cls.system} is missing or damaged ({_brief(error)}). Copy "
                "the folder again, or train the model again"
            ) from error

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


def saved_folder(model_id: str, options: dict[str, Any]) -> Path:
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
