"""Self-supervised speech encoders (WavLM, HuBERT, wav2vec 2.0), for RA-CLAP and EmotionRankCLAP.

u_t = sum_l alpha_l h_t^(l),  alpha = softmax of learnt weights, over the layers and the input to the first
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, WavLMConfig

from fsclap.model.encoders import Encoders
from fsclap.model.settings import ModelSettings
from fsclap.model.systems.published import SETTING
from fsclap.model.systems.text import FOLDER as TEXT_FOLDER
from fsclap.model.systems.text import (
    TextNetwork,
    config_of_folder,
    fill_from_folder,
    saved_config,
    saved_tokenizer,
    tokenizer_of,
)
from fsclap.model.tokens import Tokens

RATE, SECONDS = 16_000, 10
FOLDER = "audio_network"
MAX_TOKENS = 77
TEXT_SETTING = "model.systems.text_weights"


class SpeechLayers(nn.Module):
    """Tokens of a speech encoder, 50 per second. Features are the samples, of unit variance.

    Every clip is filled up with silence to 10 s, for the first norm of these networks is over time: padded to
    the longest of a batch, a clip's tokens would depend on its neighbours.

    Args:
        config: Sizes of the network.
        layers: Weigh all layers; else the last one is taken.
        trained: Train the network along.
    """

    frozen = False
    context: tuple[str, ...] = ()
    sample_rate = RATE
    revision = "wave-unit-variance-1"

    def __init__(self, config: PretrainedConfig, *, layers: bool, trained: bool) -> None:
        super().__init__()
        config.layerdrop = 0.0  # a layer that is left out now and then has no place in a mean of all
        self.network: Any = AutoModel.from_config(config)
        self.network.requires_grad_(trained)
        self.trained = trained
        self.weights = nn.Parameter(torch.zeros(config.num_hidden_layers + 1)) if layers else None
        self.dim: int = config.hidden_size
        self.max_frames = SECONDS * RATE

    def features(self, wave: np.ndarray) -> np.ndarray:
        """Scale to unit variance: (samples,) float32 -> (samples, 1) float32."""
        scaled = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
        return np.asarray(scaled, dtype=np.float32)[:, None]

    def forward(self, features: Tokens) -> Tokens:
        """(B, samples, 1) -> (B, T, C)."""
        short = self.max_frames - features.values.shape[1]
        wave = nn.functional.pad(features.values[..., 0], (0, short))
        mask = nn.functional.pad(features.mask, (0, short))
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trained):
            if not self.trained:
                self.network.eval()
            out = self.network(wave, attention_mask=mask.long(), output_hidden_states=self.weights is not None)
        tokens = out.last_hidden_state
        if self.weights is not None:
            tokens = torch.einsum("l,lbtc->btc", self.weights.softmax(dim=0), torch.stack(out.hidden_states))
        real: Tensor = self.network._get_feature_vector_attention_mask(tokens.shape[1], mask.long()).bool()
        real[:, 0] = True  # a clip shorter than the first window
        return Tokens(tokens * real[..., None], real)

    def save_assets(self, folder: Path) -> None:
        """Save the network's configuration next to the weights."""
        self.network.config.save_pretrained(folder / FOLDER)


def speech_encoders(settings: ModelSettings, text: PretrainedConfig, *, layers: bool, trained: bool) -> Encoders:
    """Build a speech encoder (WavLM-base without weights) and a text encoder of the BERT family."""
    chosen = settings.systems
    speech = config_of_folder(chosen.weights, WavLMConfig(), setting=SETTING)
    text = config_of_folder(chosen.text_weights, text, setting=TEXT_SETTING)
    tokenizer = tokenizer_of(chosen.text_weights, needed=False, model="roberta-base")
    audio = SpeechLayers(speech, layers=layers, trained=trained)
    return audio, TextNetwork(text, tokenizer, max_tokens=MAX_TOKENS)


def saved_speech_encoders(folder: Path, *, layers: bool, trained: bool) -> Encoders:
    """Build the encoders of a saved model."""
    text = TextNetwork(saved_config(folder, TEXT_FOLDER), saved_tokenizer(folder), max_tokens=MAX_TOKENS)
    return SpeechLayers(saved_config(folder, FOLDER), layers=layers, trained=trained), text


def fill_speech_encoders(settings: ModelSettings, audio: object, text: object) -> None:
    """Load the weights of both folders, where they are named."""
    assert isinstance(audio, SpeechLayers)
    assert isinstance(text, TextNetwork)
    if settings.systems.weights is not None:
        fill_from_folder(audio.network, settings.systems.weights, setting=SETTING)
    if settings.systems.text_weights is not None:
        fill_from_folder(text.network, settings.systems.text_weights, setting=TEXT_SETTING)
