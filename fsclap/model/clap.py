"""The encoders of LAION CLAP (transformers.ClapModel): HTSAT for sound, RoBERTa for text.

HTSAT gives 32 tokens for 10 s (LAION's fine-grained output is these 32, each repeated 32 times).

Notation for shapes: B clips or captions, T frames or tokens, F frequency bins, C features of a
    token.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from transformers import ClapAudioConfig, ClapFeatureExtractor, ClapModel, ClapTextConfig
from transformers import PreTrainedTokenizerFast as Tokenizer
from transformers.models.clap.modeling_clap import ClapAudioModel, ClapTextModel

from fsclap import Hertz
from fsclap.model.encoders import EncoderError, Encoders
from fsclap.model.settings import ModelSettings
from fsclap.model.tokens import Tokens
from fsclap.weights import WeightsError, WeightsSettings, find_weights

log = logging.getLogger(__name__)

AUDIO_FOLDER, TEXT_FOLDER = "htsat", "roberta"
"""Folders of a saved model with the configurations of its encoders."""
SECONDS = 10
"""Sound that HTSAT takes at once."""
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
"""Special tokens in RoBERTa's order, which gives them the ids that ClapTextConfig expects."""
PADDING = SPECIAL.index("<pad>")
BYTES = 256


def clap_encoders(settings: ModelSettings) -> Encoders:
    """Build HTSAT-tiny and RoBERTa-base with the weights of `settings.clap_weights`, or random.

    Raises:
        EncoderError: The weights cannot be read, are incomplete, or of a model that fuses several
            crops of a clip.
    """
    if settings.clap_weights is None:
        audio, text = random_networks()
        return HTSATTokens(audio), RobertaTokens(text, byte_tokenizer())
    log.info("CLAP weights from %s", settings.clap_weights)
    return read_encoders(settings.clap_weights)


def read_encoders(weights: str) -> Encoders:
    """Read the encoders of a ClapModel in transformers' layout, safetensors only.

    Args:
        weights: A folder, or the name of a model that `fsclap models fetch` downloaded.

    Raises:
        EncoderError: See `clap_encoders`.
    """
    folder = _folder(weights)
    try:
        loaded: Any = ClapModel.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
        clap, loading = loaded
        tokenizer = Tokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # damaged files: transformers raises all kinds, tokenizers Exception itself
        raise EncoderError(
            f"model.clap_weights={weights}: no ClapModel can be read in {folder} ({error}). Name a folder with "
            "config.json, model.safetensors and tokenizer.json"
        ) from error
    if missing := sorted(loading["missing_keys"]):  # transformers goes on with random ones
        raise EncoderError(
            f"model.clap_weights={weights}: {folder} lacks {len(missing)} weights of a ClapModel, such as "
            f"{missing[0]}: the file is damaged or of another model. Fetch it again"
        )
    if clap.audio_model.config.enable_fusion:
        raise EncoderError(
            f"model.clap_weights={weights} takes four crops of a clip (enable_fusion), which is "
            "not supported: name an unfused model such as laion/clap-htsat-unfused"
        )
    return HTSATTokens(clap.audio_model), RobertaTokens(clap.text_model, tokenizer)


def _folder(weights: str) -> Path:
    if weights.endswith(".pt"):
        raise EncoderError(
            f"model.clap_weights={weights} is a checkpoint in LAION's format. Convert it once with "
            f"`python -m fsclap.model.laion {weights} FOLDER` and name that folder"
        )
    if Path(weights).is_dir():
        return Path(weights)
    try:
        fetched = WeightsSettings(name=weights, hub="huggingface", revision="main", folder=None)
        return find_weights(fetched, setting="model.clap_weights").folder
    except (WeightsError, ValidationError) as error:
        raise EncoderError(
            f"model.clap_weights={weights} is neither a folder nor a completely fetched model: correct it, or run "
            f"`fsclap models fetch {weights} --hub huggingface --revision main` ({error})"
        ) from error


def saved_encoders(folder: Path) -> Encoders:
    """Build the encoders of a saved FSCLAP; their weights are loaded with the model's.

    Raises:
        EncoderError: A file that describes them is missing or damaged.
    """
    try:
        audio = ClapAudioModel(ClapAudioConfig.from_pretrained(folder / AUDIO_FOLDER, local_files_only=True))
        text = ClapTextModel(ClapTextConfig.from_pretrained(folder / TEXT_FOLDER, local_files_only=True))
        return HTSATTokens(audio), RobertaTokens(text, Tokenizer.from_pretrained(folder, local_files_only=True))
    except Exception as error:  # damaged files: transformers raises all kinds, tokenizers Exception itself
        raise EncoderError(
            f"{folder}: {AUDIO_FOLDER}/config.json, {TEXT_FOLDER}/config.json or the tokenizer is missing or damaged "
            f"({error}). Copy the folder again, or train the model again"
        ) from error


def random_networks() -> tuple[ClapAudioModel, ClapTextModel]:
    """Build HTSAT-tiny, and RoBERTa-base for bytes, in the sizes of LAION's models."""
    text = ClapTextConfig(vocab_size=BYTES + len(SPECIAL))
    return ClapAudioModel(ClapAudioConfig(enable_fusion=False)), ClapTextModel(text)


def log_mel_extractor() -> ClapFeatureExtractor:
    """Build LAION's log-mel, 50 Hz to 14 kHz; transformers' starts at 0 Hz, 2 dB off on average."""
    return ClapFeatureExtractor(frequency_min=50, truncation="rand_trunc", padding="repeatpad")


class HTSATTokens(nn.Module):
    """HTSAT's last grid, averaged over frequency: 32 tokens for 10 s of sound.

    A shorter clip is repeated until it fills 10 s, as in LAION's training, so all 32 tokens are
    sound.
    """

    frozen = False
    max_frames = 1001
    context: tuple[str, ...] = ()

    def __init__(self, network: ClapAudioModel) -> None:
        super().__init__()
        self.network = network
        self.extractor = log_mel_extractor()
        self.sample_rate: Hertz = self.extractor.sampling_rate
        self.dim: int = network.config.hidden_size
        self.revision = "clap-log-mel-2"

    def features(self, wave: np.ndarray) -> np.ndarray:
        """Compute the log-mel in dB, 100 frames per second.

        Args:
            wave: (samples,) float32 at 48 kHz, at least one sample.

        Returns:
            (T, 64) float32.

        Raises:
            ValueError: The wave is not mono, is empty, or has NaN or infinite samples.
        """
        if wave.ndim != 1 or len(wave) == 0 or not np.isfinite(wave).all():
            raise ValueError(f"expected a finite, non-empty mono wave (samples,); got shape {wave.shape}")
        filled = SECONDS * self.sample_rate
        if len(wave) < filled:
            repeated = np.tile(wave, filled // len(wave))
            wave = np.pad(repeated, (0, filled - len(repeated)))
        mel: np.ndarray = self.extractor._np_extract_fbank_features(wave, self.extractor.mel_filters_slaney)
        return mel.astype(np.float32)

    def save_assets(self, folder: Path) -> None:
        """Save the network's configuration next to the weights."""
        self.network.config.save_pretrained(folder / AUDIO_FOLDER)

    def forward(self, features: Tokens) -> Tokens:
        """(B, T, 64) -> (B, 32, C)."""
        grid: Tensor = self.network.audio_encoder(features.values[:, None]).last_hidden_state  # (B, C, F, 32)
        tokens = grid.mean(dim=2).transpose(1, 2)  # (B, 32, C)
        return Tokens(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))


class RobertaTokens(nn.Module):
    """RoBERTa's last hidden states. A caption of more than `max_tokens` word pieces is cut."""

    frozen = False
    max_tokens = 77

    def __init__(self, network: ClapTextModel, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.dim: int = network.config.hidden_size
        self.revision = "clap-tokens-1"

    def features(self, captions: Sequence[str]) -> list[np.ndarray]:
        """Return (T,) int64 token ids for each caption."""
        ids = self.tokenizer(list(captions), truncation=True, max_length=self.max_tokens)["input_ids"]
        return [np.array(row, dtype=np.int64) for row in ids]

    def forward(self, features: Tokens) -> Tokens:
        """(B, T) ids -> (B, T, C)."""
        ids = features.values.masked_fill(~features.mask, PADDING)
        states: Tensor = self.network(input_ids=ids, attention_mask=features.mask.long()).last_hidden_state
        return Tokens(states, features.mask)

    def save_assets(self, folder: Path) -> None:
        """Save the tokenizer and the network's configuration next to the weights."""
        self.tokenizer.save_pretrained(folder)
        self.network.config.save_pretrained(folder / TEXT_FOLDER)


def byte_tokenizer() -> Tokenizer:
    """Build RoBERTa's tokenizer without merges: random weights need no vocabulary."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *alphabet])}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names: dict[str, Any] = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return Tokenizer(tokenizer_object=backend, **names)
