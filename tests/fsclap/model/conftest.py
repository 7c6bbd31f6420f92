from collections.abc import Sequence

import numpy as np
import pytest
from torch import nn

from fsclap.model.tokens import Tokens


class FrameEncoder(nn.Module):
    """A real, small audio encoder: the spectrum of frames of 10 ms at 8 kHz, and a layer over it."""

    sample_rate, dim, frozen, revision, max_frames = 8000, 12, False, "frames-1", 100
    context: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(41, self.dim)

    def features(self, wave: np.ndarray) -> np.ndarray:
        padded = np.pad(wave, (0, -len(wave) % 80)).reshape(-1, 80)
        return np.log1p(np.abs(np.fft.rfft(padded))).astype(np.float32)

    def forward(self, features: Tokens) -> Tokens:
        return Tokens(self.layer(features.values), features.mask)


class ByteEncoder(nn.Module):
    """A real, small text encoder: an embedding for each byte."""

    dim, frozen, revision, max_tokens = 10, False, "bytes-1", 64

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(256, self.dim)

    def features(self, captions: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode()[: self.max_tokens], dtype=np.uint8).astype(np.int64) for text in captions]

    def forward(self, features: Tokens) -> Tokens:
        return Tokens(self.table(features.values), features.mask)


@pytest.fixture
def encoders() -> tuple[FrameEncoder, ByteEncoder]:
    return FrameEncoder(), ByteEncoder()


@pytest.fixture
def waves() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, length).astype(np.float32) for length in (4000, 800, 2400, 8000)]


@pytest.fixture
def captions() -> list[str]:
    return ["a low voice", "someone shouts", "very slowly, in a monotone", "soft"]
