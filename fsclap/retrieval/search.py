"""Search: text to clips, a clip to clips like it, a clip to descriptions."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fsclap import Hertz
from fsclap.audio import decode_flac, resample
from fsclap.data.clips import MIN_CLIP
from fsclap.model.fsclap import FSCLAP, load_model
from fsclap.model.tokens import pad
from fsclap.retrieval import approximate
from fsclap.retrieval.filters import Condition, mask
from fsclap.retrieval.index import Index, SearchError, model_digest

Sound = Callable[[Sequence[str]], Iterable[tuple[str, bytes]]]
"""Utterance ids -> each with its FLAC file, in any order: `storage.versions.CorpusVersion.audio`."""

FEW = 0.1
"""Share of the clips below which those that meet the conditions are compared alone; above, all are: less to copy."""


@dataclass(frozen=True)
class Hit:
    """A clip that was found.

    Attributes:
        rank: From 1.
        score: Cosine of the query and the clip, -1 to 1.
        match: Logit of the matching head that the clip is described by the query; None without re-ranking.
        row: What the corpus says of the clip.
    """

    rank: int
    score: float
    match: float | None
    row: dict[str, Any]

    @property
    def utterance_id(self) -> str:
        return str(self.row["utterance_id"])

    @property
    def caption(self) -> str:
        return str(self.row["caption"])


@dataclass(frozen=True)
class Description:
    """A caption that fits a clip, with the cosine of both."""

    caption: str
    score: float


class Searcher:
    """An index with the model that made it.

        searcher = Searcher.open("data/corpus-index")
        for hit in searcher.search("a weary voice, speaking slowly"):
            print(hit.score, hit.caption)

    Safe to use from several threads.

    Args:
        sound: Where clips are heard; needed only for re-ranking.
    """

    def __init__(self, index: Index, model: FSCLAP, sound: Sound | None = None) -> None:
        self.index, self.model, self._sound = index, model, sound

    @classmethod
    def open(
        cls, folder: Path | str, *, model: Path | str | None = None, sound: Sound | None = None, device: str = "auto"
    ) -> "Searcher":
        """Open an index and its model.

        Args:
            model: Folder of the model, if it isn't where it was when the index was built.

        Raises:
            SearchError: There is no index, or the model in that folder is not the one that it was built with.
        """
        index = Index.open(folder)
        place = Path(model or index.record.model)
        if model_digest(place) != index.record.weights:
            raise SearchError(
                f"{place} is not the model that {folder} was built with; build the index again, "
                "or name the folder of its model with --model"
            )
        return cls(index, load_model(place, device), sound)

    def search(self, query: str, *, top: int = 10, where: Sequence[Condition] = (), rerank: int = 0) -> list[Hit]:
        """The clips that a description fits best.

        Args:
            where: What they must meet, all of it.
            rerank: So many of the best are scored again by the matching head, together with the query, and come first
                in its order; 0: none.

        Raises:
            SearchError: The query is empty; a condition can't be read; the model has no matching head.
        """
        if not query.strip():
            raise SearchError("the query is empty: describe how the speech should sound")
        if rerank and self.model.matcher is None:
            raise SearchError("this model has no matching head to re-rank with: train it with model.rerank=true")
        vector = self.model.embed_text([query])[0].cpu().numpy()
        hits = self.like_vector(vector, top=max(top, rerank), where=where)
        return self._reranked(query, hits, rerank)[:top] if rerank else hits

    def like_clip(self, utterance_id: str, *, top: int = 10, where: Sequence[Condition] = ()) -> list[Hit]:
        """The clips that sound like one of the corpus, without itself.

        Raises:
            SearchError: The index has no such clip.
        """
        hits = self.like_vector(self.vector(utterance_id), top=top + 1, where=where)
        others = [hit for hit in hits if hit.utterance_id != utterance_id][:top]
        return [Hit(rank, hit.score, None, hit.row) for rank, hit in enumerate(others, start=1)]

    def like_sound(
        self, wave: np.ndarray, sample_rate: Hertz, *, top: int = 10, where: Sequence[Condition] = ()
    ) -> list[Hit]:
        """The clips that sound like a wave, (samples,) float32.

        Raises:
            SearchError: It is too short, or has samples that are no numbers.
        """
        return self.like_vector(self.embedded(wave, sample_rate), top=top, where=where)

    def like_vector(self, vector: np.ndarray, *, top: int = 10, where: Sequence[Condition] = ()) -> list[Hit]:
        """The clips nearest to a vector, (embedding,) of unit norm: of a description or of a sound.

        Raises:
            SearchError: A condition can't be read.
        """
        among = mask(self.index.rows, where)
        # A few clips that meet the conditions are compared faster than they are found in the lists.
        if self._approximate is not None and (among is None or among.mean() >= FEW):
            likely = approximate.candidates(self._approximate, vector, max(100, 10 * top), among)
            order, scores = nearest(self.index.vectors[likely], vector, top)
            rows = likely[order]
        else:
            rows, scores = nearest(self.index.vectors, vector, top, among)
        return [
            Hit(rank, float(score), None, self._row(int(row)))
            for rank, (row, score) in enumerate(zip(rows, scores, strict=True), start=1)
        ]

    def describe(self, vector: np.ndarray, *, top: int = 10) -> list[Description]:
        """The captions of the corpus that fit a clip best, given the clip's vector (`vector`, `embedded`)."""
        scores = self.index.caption_vectors @ vector
        return [Description(str(self.index.captions[row].as_py()), float(scores[row])) for row in best(scores, top)]

    def vector(self, utterance_id: str) -> np.ndarray:
        """(embedding,) of a clip of the index.

        Raises:
            SearchError: It has no such clip.
        """
        return np.asarray(self.index.vectors[self._number(utterance_id)])

    def embedded(self, wave: np.ndarray, sample_rate: Hertz) -> np.ndarray:
        """(embedding,) of a wave, (samples,) float32.

        Raises:
            SearchError: It is too short, or has samples that are no numbers.
        """
        if wave.ndim != 1 or len(wave) < MIN_CLIP * sample_rate or not np.isfinite(wave).all():
            raise SearchError(f"the clip must be mono, sound, and last {MIN_CLIP:g} s at least")
        return (
            self.model.embed_audio([resample(wave, sample_rate, self.model.audio_encoder.sample_rate)])[0].cpu().numpy()
        )

    def row(self, utterance_id: str) -> dict[str, Any]:
        """What the corpus says of a clip.

        Raises:
            SearchError: The index has no such clip.
        """
        return self._row(self._number(utterance_id))

    def _number(self, utterance_id: str) -> int:
        try:
            return self._numbers[utterance_id]
        except KeyError:
            raise SearchError(f"{self.index.folder} has no clip {utterance_id!r}") from None

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {id_: number for number, id_ in enumerate(self.index.rows["utterance_id"].to_pylist())}

    def _row(self, number: int) -> dict[str, Any]:
        row: dict[str, Any] = self.index.rows.slice(number, 1).to_pylist()[0]
        return row

    @functools.cached_property
    def _approximate(self) -> Any:
        file = self.index.approximate
        return approximate.load(file) if file is not None else None

    def _reranked(self, query: str, hits: list[Hit], count: int) -> list[Hit]:
        if self._sound is None:
            raise SearchError("re-ranking listens to the clips: open the searcher with the sound of the corpus")
        head, rest = hits[:count], hits[count:]
        features = {}
        for id_, flac in self._sound([hit.utterance_id for hit in head]):
            wave, rate = decode_flac(flac)
            features[id_] = self.model.audio_features(resample(wave, rate, self.model.audio_encoder.sample_rate))
        text = self.model.text_encoder.features([query])[0]
        with torch.inference_mode():
            audio = pad([features[hit.utterance_id] for hit in head]).to(self.model.device)
            logits = self.model.match(audio, pad([text] * len(head)).to(self.model.device)).cpu().numpy()
        order = best(logits, len(head))
        found = [(head[at], float(logits[at])) for at in order] + [(hit, None) for hit in rest]
        return [Hit(rank, hit.score, match, hit.row) for rank, (hit, match) in enumerate(found, start=1)]


def nearest(
    vectors: np.ndarray, query: np.ndarray, top: int, among: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Exact search: the rows with the largest inner product, best first, and those products.

    Args:
        vectors: (rows, width).
        query: (width,).
        among: (rows,) of bool, the rows to look at; None: all.
    """
    if among is None:
        scores = vectors @ query
        rows = best(scores, top)
        return rows, scores[rows]
    chosen = np.flatnonzero(among)
    scores = vectors[chosen] @ query if len(chosen) < FEW * len(vectors) else (vectors @ query)[chosen]
    order = best(scores, top)
    return chosen[order], scores[order]


def best(scores: np.ndarray, top: int) -> np.ndarray:
    """Positions of the highest scores, the highest first; of equal ones the first."""
    top = max(1, top)
    if top < len(scores):
        lowest = np.partition(scores, len(scores) - top)[len(scores) - top]
        candidates = np.flatnonzero(scores >= lowest)
    else:
        candidates = np.arange(len(scores))
    return candidates[np.argsort(-scores[candidates], kind="stable")][:top]
