"""Small encoders: log-mel bands and bytes, with and without weights of their own."""

from collections.abc import Sequence

import librosa
import numpy as np
import torch
from torch import Tensor, nn

from fsclap.model.encoders import Encoders
from fsclap.model.tokens import Tokens

RATE = 16000
BANDS = 24


def log_mel(wave: np.ndarray) -> np.ndarray:
    """(samples,) -> (frames, BANDS) float32, 50 frames a second."""
    power = librosa.feature.melspectrogram(y=wave, sr=RATE, n_fft=512, hop_length=320, n_mels=BANDS)
    return np.log10(power + 1e-6).T.astype(np.float32)


class FrozenMel:
    sample_rate, dim, frozen, max_frames, revision = RATE, BANDS, True, 40, "mel-1"
    context: tuple[str, ...] = ()

    def features(self, wave: np.ndarray) -> np.ndarray:
        return log_mel(wave)

    def __call__(self, features: Tokens) -> Tokens:
        return features


class FrozenBytes:
    dim, frozen, max_tokens, revision = 16, True, 50, "bytes-1"

    def features(self, captions: Sequence[str]) -> list[np.ndarray]:
        codes = np.random.default_rng(0).normal(size=(256, self.dim)).astype(np.float32)
        return [codes[list(caption.encode()[: self.max_tokens])] for caption in captions]

    def __call__(self, features: Tokens) -> Tokens:
        return features


class TrainedMel(nn.Module):
    """A normalised linear layer; batch norm, as HTSAT has it, keeps statistics."""

    sample_rate, dim, frozen, max_frames, revision = RATE, 20, False, 40, "mel-trained-1"
    context: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(BANDS)
        self.layer = nn.Linear(BANDS, self.dim)

    def features(self, wave: np.ndarray) -> np.ndarray:
        return log_mel(wave)

    def forward(self, features: Tokens) -> Tokens:
        normal: Tensor = self.norm(features.values.transpose(1, 2)).transpose(1, 2)
        return Tokens(self.layer(normal), features.mask)


class TrainedBytes(nn.Module):
    dim, frozen, max_tokens, revision = 16, False, 50, "bytes-trained-1"

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Embedding(256, self.dim)

    def features(self, captions: Sequence[str]) -> list[np.ndarray]:
        return [np.array(list(caption.encode()[: self.max_tokens]), dtype=np.int64) for caption in captions]

    def forward(self, features: Tokens) -> Tokens:
        return Tokens(self.layer(features.values), features.mask)


def frozen() -> Encoders:
    return FrozenMel(), FrozenBytes()


def trained() -> Encoders:
    torch.manual_seed(0)
    return TrainedMel(), TrainedBytes()
