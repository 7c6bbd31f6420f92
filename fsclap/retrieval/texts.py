"""The texts of searches, each encoded once for all that reads it."""

from collections.abc import Sequence

import numpy as np

from fsclap.model.embedded import SentenceTokens, sentence
from fsclap.model.encoders import TextEncoder

REMEMBERED = 512
"""Texts that are kept: a search, its notes and the model read the same ones."""


class Texts:
    """Encodes texts for the model, and as sentences to read queries by.

    With the embedded text encoder both come from the same pass through the network.

    Attributes:
        words: Words of English that exist, less the rare ones.

    Args:
        encoder: The text encoder of the model.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        of_sentences = encoder if isinstance(encoder, SentenceTokens) else SentenceTokens()
        self.words = of_sentences.words()
        self._sentences = _Remembered(of_sentences)
        self._model = self._sentences if of_sentences is encoder else _Remembered(encoder)

    def features(self, text: str) -> np.ndarray:
        """Compute the features that the model takes: (T, features)."""
        return self._model.features([text])[0]

    def sentences(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts whole: (texts, 384) float32 unit rows."""
        return np.stack([sentence(tokens) for tokens in self._sentences.features(texts)])


class _Remembered:
    """An encoder that encodes what it has not seen lately, all of it at once."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._known: dict[str, np.ndarray] = {}

    def features(self, texts: Sequence[str]) -> list[np.ndarray]:
        known = self._known  # replaced, never changed, so that threads don't need a lock
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known = known | dict(zip(new, self._encoder.features(new), strict=True))
            self._known = dict(list(known.items())[-REMEMBERED:])
        return [known[text] for text in texts]
