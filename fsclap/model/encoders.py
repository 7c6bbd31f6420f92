"""The interface of encoders. Shapes: B clips or captions, T tokens, D features of a token."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from torch import nn

from fsclap import Hertz
from fsclap.model.tokens import Tokens
from fsclap.weights import WeightsError


class AudioEncoder(Protocol):
    """From a wave to tokens in two steps: features, worth computing ahead of time; then a network.

    Attributes:
        sample_rate: Rate of the waves that `features` takes.
        dim: Width D of the tokens that the network returns.
        frozen: The network has no weights to train: its output depends on the features alone.
        revision: Changes whenever the features of the same wave change; keys the feature cache.
        max_frames: Frames of features that the network takes at once; a longer clip is cropped.
        context: Measures of `fsclap.model.functionals.CONTEXT` that have columns in the features, for
            those who know the speaker's other clips; empty for an encoder of waves alone.
    """

    sample_rate: Hertz
    dim: int
    frozen: bool
    revision: str
    max_frames: int
    context: tuple[str, ...]

    def features(self, wave: np.ndarray) -> np.ndarray:
        """Compute features: (samples,) float32, at least one -> (T, features) float32, T >= 1."""
        ...

    def __call__(self, features: Tokens) -> Tokens:
        """(B, frames, features) -> (B, T, D)."""
        ...


class TextEncoder(Protocol):
    """From captions to tokens in the same two steps. A caption longer than `max_tokens` is cut."""

    dim: int
    frozen: bool
    revision: str
    max_tokens: int

    def features(self, captions: Sequence[str]) -> list[np.ndarray]:
        """Compute features of each caption: (T, features) float32, or (T,) int64 token ids."""
        ...

    def __call__(self, features: Tokens) -> Tokens:
        """(B, T[, features]) -> (B, T, D)."""
        ...


Encoders = tuple[AudioEncoder, TextEncoder]


class EncoderError(WeightsError):
    """The weights of an encoder are missing, damaged or not what the model needs."""


def is_module(encoder: object) -> bool:
    """Return whether an encoder has weights that belong to the model."""
    return isinstance(encoder, nn.Module)
