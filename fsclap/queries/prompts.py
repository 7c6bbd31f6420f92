"""Queries as a model is asked for them: their text, and the words that they ask for.

One wording of a word is embedded with much noise, the mean of a hundred with little (prompt ensembles: Radford et
al. 2021, section 3.1.4). So a query is searched for as

    q = normalise(TEXT e(query) + normalise(sum_w r_w p_w))

    r_w: what the query asks for, as fsclap.queries.reading reads it
    p_w: mean of e over queries of the bank that ask for the word w alone
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsclap.files import written_aside
from fsclap.queries.bank import Bank
from fsclap.queries.conditions import ANY, vocabulary
from fsclap.queries.reading import Reading, words

FILE = "words.npy"
"""In the folder of a model that was trained on queries: its p_w."""
TEXT = 0.5
"""What the text itself counts. The less, the better for a few everyday words; the more, the better for a caption."""
MOST = 100
"""Queries behind a word."""

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts -> (texts, embedding) unit rows."""


@dataclass(frozen=True)
class Prompts:
    """The words of a style as a model embeds them.

    Attributes:
        vectors: (words, embedding) float32, in the order of `fsclap.queries.reading.words`.
    """

    vectors: np.ndarray

    @classmethod
    def of(cls, bank: Bank, embed: Callable[[Sequence[int]], np.ndarray]) -> "Prompts":
        """Embed the words by the queries of a bank that ask for one alone; a word without any is 0.

        Args:
            bank: The queries.
            embed: Numbers of queries -> (queries, embedding) unit rows.
        """
        alone = _alone(bank)
        found = embed([number for numbers in alone for number in numbers])
        ends = np.cumsum([len(numbers) for numbers in alone])
        means = [rows.sum(axis=0) / max(1, len(rows)) for rows in np.split(found, ends[:-1])]
        return cls(np.stack(means).astype(np.float32))

    @classmethod
    def load(cls, folder: Path) -> "Prompts | None":
        """Read those of a model; None if it was trained without queries."""
        file = folder / FILE
        return cls(np.load(file).astype(np.float32)) if file.is_file() else None

    def save(self, folder: Path) -> None:
        """Write them beside the weights of the model, in half precision."""
        with written_aside(folder / FILE) as part, part.open("wb") as file:
            np.save(file, self.vectors.astype(np.float16))

    def mixed(self, texts: np.ndarray, readings: Sequence[Reading]) -> np.ndarray:
        """Compute what queries are searched for as: (queries, embedding) unit rows.

        Args:
            texts: (queries, embedding) unit rows: e(query).
            readings: What each query asks for; a query that asks for nothing is its text alone.
        """
        asked = np.stack([reading.weights for reading in readings]) @ self.vectors
        return _normalised(TEXT * texts + _normalised(asked)).astype(np.float32)


@dataclass(frozen=True)
class Asked:
    """Embeds queries as a model is asked for them.

    Attributes:
        embed: The model's embedding of texts.
        read: Query -> what it asks for; None: texts are embedded as they are.
        prompts: Those of the model; None likewise.
    """

    embed: Embed
    read: Callable[[str], Reading] | None
    prompts: Prompts | None

    def __call__(self, queries: Sequence[str]) -> np.ndarray:
        """Embed queries: (queries, embedding) unit rows."""
        texts = self.embed(queries)
        if self.read is None or self.prompts is None:
            return texts
        return self.prompts.mixed(texts, [self.read(query) for query in queries])


def _alone(bank: Bank) -> list[list[int]]:
    """List for each word, in the order of `words`, at most MOST queries that ask for it alone."""
    one = (bank.allowed != ANY).sum(axis=1) == 1
    columns = dict(zip(vocabulary(), bank.allowed.T, strict=True))
    return [
        np.flatnonzero(one & (columns[attribute] == vocabulary()[attribute][word]))[:MOST].tolist()
        for attribute, word in words()
    ]


def _normalised(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12))
