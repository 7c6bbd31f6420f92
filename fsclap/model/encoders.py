"""What an encoder is, and the one place that makes them."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from torch import nn

from fsclap import Hertz
from fsclap.model.tokens import Tokens
from fsclap.weights import WeightsError


class AudioEncoder(Protocol):
    """From a wave to tokens, in two steps: features, worth computing ahead of time; and a network.

    Attributes:
        sample_rate: Of the waves that `features` takes.
        dim: Width of the tokens that the network returns.
        frozen: The network's output depends on the features alone, and has no weights of its own to train.
        revision: Changes when the features of the same wave change; the key of a feature cache.
        max_frames: Frames of features that the network takes at once; a longer clip is cropped.
    """

    sample_rate: Hertz
    dim: int
    frozen: bool
    revision: str
    max_frames: int

    def features(self, wave: np.ndarray) -> np.ndarray:
        """(samples,) float32, at least one sample -> (frames, features) float32, at least one frame."""
        ...

    def __call__(self, features: Tokens) -> Tokens:
        """(batch, frames, features) -> (batch, tokens, dim)."""
        ...


class TextEncoder(Protocol):
    """From captions to tokens, in the same two steps. A caption longer than `max_tokens` loses its end."""

    dim: int
    frozen: bool
    revision: str
    max_tokens: int

    def features(self, captions: Sequence[str]) -> list[np.ndarray]:
        """A (tokens, features) float32 array a caption, or (tokens,) int64 token ids."""
        ...

    def __call__(self, features: Tokens) -> Tokens:
        """(batch, tokens[, features]) -> (batch, tokens, dim)."""
        ...


Encoders = tuple[AudioEncoder, TextEncoder]


class EncoderError(WeightsError):
    """The weights of an encoder are missing, damaged or not what the model needs."""


def is_module(encoder: object) -> bool:
    """Whether an encoder has weights that belong to the model."""
    return isinstance(encoder, nn.Module)
