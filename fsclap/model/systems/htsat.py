"""HTSAT as CLAP-Microsoft 2023 and MGA-CLAP have it: transformers' network behind their own front ends.

    power STFT (periodic Hann, centred, reflected) -> mel bank (Slaney) -> 10 log10(max(x, 1e-10))
    -> batch norm of the bands -> 1024 frames (bicubic) -> 32 tokens

Published checkpoints name the layers as LAION does (fsclap.model.laion).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from torch import Tensor, nn
from transformers import ClapAudioConfig
from transformers.models.clap.modeling_clap import ClapAudioLayer, ClapAudioModel

from fsclap.model import laion
from fsclap.model.encoders import AudioEncoder, EncoderError, TextEncoder
from fsclap.model.systems.published import count, fill, read_published, sized, under
from fsclap.model.systems.text import TextNetwork
from fsclap.model.tokens import Tokens

FFT, HOP, MELS, FMIN, FMAX = 1024, 320, 64, 50, 14_000
FOLDER = "audio_network"


@dataclass(frozen=True)
class FrontEnd:
    """What the mel spectrogram of a system is made from.

    Attributes:
        sample_rate: Rate of the waves, Hz.
        bank_rate: Rate that the mel bank was built for, Hz.
        seconds: Sound that the network takes at once.
        repeat: A shorter clip is repeated; else it is followed by silence.
    """

    sample_rate: int
    bank_rate: int
    seconds: int
    repeat: bool

    @property
    def samples(self) -> int:
        return self.seconds * self.sample_rate


class HtsatTokens(nn.Module):
    """32 tokens of a clip, the mean over HTSAT's frequency groups.

    Args:
        config: Sizes of the network.
        front: Front end.
        local: Take the locality-aware path of MGA-CLAP in the last block (`local_path`).
    """

    frozen = False
    context: tuple[str, ...] = ()

    def __init__(self, config: ClapAudioConfig, front: FrontEnd, *, local: bool = False) -> None:
        super().__init__()
        self.network = ClapAudioModel(config)
        self.front = front
        self.sample_rate = front.sample_rate
        self.dim: int = config.hidden_size
        self.max_frames = front.samples // HOP + 1
        self.revision = f"htsat-log-mel-1-{front}"
        self.bank = librosa.filters.mel(sr=front.bank_rate, n_fft=FFT, n_mels=MELS, fmin=FMIN, fmax=FMAX)  # (64, 513)
        if local:
            last: Any = self.network.audio_encoder.layers[-1]
            last.blocks[-1].register_forward_hook(local_path)

    def features(self, wave: np.ndarray) -> np.ndarray:
        """Compute the log-mel in dB: (samples,) float32 -> (T, 64) float32."""
        short = self.front.samples - len(wave)
        if short > 0:
            wave = np.resize(wave, self.front.samples) if self.front.repeat else np.pad(wave, (0, short))
        spectrum = librosa.stft(wave, n_fft=FFT, hop_length=HOP, window="hann", center=True, pad_mode="reflect")
        mel = self.bank @ np.square(np.abs(spectrum))
        return np.asarray(10 * np.log10(np.maximum(mel, 1e-10)).T, dtype=np.float32)

    def forward(self, features: Tokens) -> Tokens:
        """(B, T, 64) -> (B, 32, C)."""
        grid: Tensor = self.network.audio_encoder(features.values[:, None]).last_hidden_state  # (B, C, F, 32)
        tokens = grid.mean(dim=2).transpose(1, 2)
        return Tokens(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def save_assets(self, folder: Path) -> None:
        """Save the network's configuration next to the weights."""
        self.network.config.save_pretrained(folder / FOLDER)


def local_path(block: ClapAudioLayer, arguments: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Replace a block's output by that of MGA-CLAP: v = x + W_o W_v LN_1(x), then v + LN_2(v).

    Attention without query and key: each token keeps its place. No weights are added.
    """
    x = arguments[0]
    values = block.attention.self.value(block.layernorm_before(x))
    v = x + block.drop_path(block.attention.output.dense(values))
    return (v + block.drop_path(block.layernorm_after(v)), *output[1:])


def tiny_config() -> ClapAudioConfig:
    """Sizes of HTSAT-tiny."""
    return ClapAudioConfig(enable_fusion=False)


def config_of(state: Mapping[str, Tensor], file: str, *, prefix: str) -> ClapAudioConfig:
    """Derive the sizes of HTSAT from its tensors in a checkpoint (`prefix` is for messages)."""
    width = sized(state, "patch_embed.proj.weight", file, prefix=prefix)[0]
    depths: list[int] = []
    heads: list[int] = []
    while blocks := count(state, rf"layers\.{len(depths)}\.blocks\.(\d+)\."):
        table = f"layers.{len(depths)}.blocks.0.attn.relative_position_bias_table"
        heads.append(sized(state, table, file, prefix=prefix)[1])
        depths.append(blocks)
    return ClapAudioConfig(
        patch_embeds_hidden_size=width,
        hidden_size=width * 2 ** (len(depths) - 1),
        depths=depths,
        num_attention_heads=heads,
        num_hidden_layers=len(depths),
        enable_fusion=False,
    )


def fill_htsat(encoder: HtsatTokens, state: Mapping[str, Tensor], file: str, *, prefix: str) -> None:
    """Load HTSAT's tensors by LAION's names. What no embedding depends on is left out.

    Raises:
        EncoderError: A weight is missing, or the weights were trained on another mel bank.
    """
    bank = state.get("logmel_extractor.melW")  # (513, 64): what the released front end computes
    if bank is not None and (bank.shape != encoder.bank.T.shape or not np.allclose(bank, encoder.bank.T, atol=1e-4)):
        raise EncoderError(
            f"{file}: its mel bank ({prefix}logmel_extractor.melW) is not that of {encoder.front}: the weights are of "
            "another system or version"
        )
    named = laion.renamed({f"audio_branch.{name}": tensor for name, tensor in state.items()})
    named = {name.removeprefix(laion.AUDIO): tensor for name, tensor in named.items()}
    fill(encoder.network.audio_encoder, named, file, prefix=prefix, computed=laion.TABLES.pattern)


def fill_encoders(
    audio: AudioEncoder, text: TextEncoder, file: str, *, audio_keys: str, text_keys: str
) -> dict[str, Tensor]:
    """Load a checkpoint's HTSAT and text network, which lie under two prefixes; return all its tensors.

    Raises:
        EncoderError: The checkpoint can't be read, or a weight is missing.
    """
    assert isinstance(audio, HtsatTokens)
    assert isinstance(text, TextNetwork)
    state = read_published(file)
    fill_htsat(audio, under(audio_keys, state), file, prefix=audio_keys)
    fill(text.network, under(text_keys, state), file, prefix=text_keys)
    return state
