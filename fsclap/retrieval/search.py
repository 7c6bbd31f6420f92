"""Search: text to clips, a clip to similar clips, a clip to descriptions."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from fsclap import Hertz
from fsclap.corpus.captioning.attributes import Attributes, measure
from fsclap.corpus.captioning.bins import measures
from fsclap.data.clips import decode_clip
from fsclap.data.measured import speaker_context
from fsclap.model.systems import System, load_system
from fsclap.model.tokens import pad
from fsclap.queries.prompts import Asked, Prompts
from fsclap.queries.reading import combined, standardised
from fsclap.queries.spelling import corrected, slips
from fsclap.retrieval import DEFAULT, By, recordings
from fsclap.retrieval.filters import Condition, mask, unknown_values
from fsclap.retrieval.hits import Description, Hit, Sound
from fsclap.retrieval.index import Index, SearchError, model_digest, refuse_address
from fsclap.retrieval.nearest import Vectors, best, ranked
from fsclap.retrieval.notes import SLIP, Note
from fsclap.retrieval.readable import Readable
from fsclap.retrieval.texts import Texts
from fsclap.retrieval.words import Match, Styles

if TYPE_CHECKING:
    from fsclap.retrieval.calibration import Calibration

CHANGE = 2.0
"""What it counts to differ as asked, in standard deviations of the similarity."""


class Searcher:
    """An index with the model that built it.

        searcher = Searcher.open("data/corpus-index")
        for hit in searcher.search("a weary voice, speaking slowly"):
            print(hit.score, hit.caption)

    Safe to use from several threads.

    Args:
        sound: Reads the clips of the corpus; needed only for re-ranking.
        model_folder: Folder of the model; by default the one that the index names.
    """

    def __init__(
        self, index: Index, model: System, sound: Sound | None = None, *, model_folder: Path | None = None
    ) -> None:
        self.index, self.model, self._sound = index, model, sound
        self.model_folder = model_folder or Path(index.record.model)

    @classmethod
    def open(
        cls, folder: Path | str, *, model: Path | str | None = None, sound: Sound | None = None, device: str = "auto"
    ) -> "Searcher":
        """Open an index and its model.

        Args:
            folder: Folder of the index.
            model: Folder of the model, if it was moved since the index was built.
            sound: Reads the clips of the corpus; needed only for re-ranking.
            device: "cpu", "cuda", or "auto" for a GPU if there is one.

        Raises:
            SearchError: There is no index, or that model is not the one that built it.
        """
        index = Index.open(folder)
        refuse_address(model or index.record.model)
        place = Path(model or index.record.model)
        if model_digest(place) != index.record.weights:
            raise SearchError(
                f"{place} is not the model that {folder} was built with; build the index again, "
                "or name the folder of its model with --model"
            )
        return cls(index, load_system(place, device), sound, model_folder=place)

    @property
    def default(self) -> By:
        """What ranks the clips where a search doesn't say it."""
        return DEFAULT if self._styles.known else "model"

    def search(
        self,
        query: str,
        *,
        by: By | None = None,
        top: int = 10,
        where: Sequence[Condition] = (),
        rerank: int = 0,
    ) -> list[Hit]:
        """Find the clips that fit a description best.

        Args:
            query: Description of the speech, in English.
            by: What the clips are ranked by; None: `default`.
            top: Number of clips to find.
            where: Conditions that a clip must meet, all of them.
            rerank: Number of best clips that the matching head scores again; they come first, in
                its order.

        Raises:
            SearchError: The query is empty or can't be read, a condition can't be read, the clips
                have no words to rank them by, or the model has no matching head.
        """
        query, by = self._read(query), by or self.default
        if by == "words" and not self._styles.known:
            raise SearchError("the clips of this index have no styles to search by words: search by the model")
        if rerank and self.model.matcher is None:
            raise SearchError("this model has no matching head to re-rank with: train it with model.rerank=true")
        reading = self._styles.read(query)
        if by == "model":
            rows, scores = self._vectors.near(self._embedded_text(query), max(top, rerank), self._among(where))
        else:
            scores = self._styles.heard.scores(reading)
            if by == "both":
                scores = combined(scores, self.index.vectors @ self._embedded_text(query))
            rows, scores = ranked(scores, max(top, rerank), self._among(where))
        hits = self._hits(rows, scores)
        told = self._styles.matches(reading, rows, [hit.caption for hit in hits])
        hits = [replace(hit, told=match) for hit, match in zip(hits, told, strict=True)]
        return self._reranked(query, hits, rerank)[:top] if rerank else hits

    def notes(self, query: str) -> list[Note]:
        """Say what of a description could not be used; usually nothing.

        Raises:
            SearchError: The query is empty, or nothing of it can be read.
        """
        kept = self._read(query)
        corrections = [
            Note(SLIP, {"typed": repr(typed), "meant": repr(meant)}) for typed, meant in self._slips(query).items()
        ]
        guessed = self._styles.guessed(kept)
        return [*guessed, *([] if guessed else self._styles.unused(kept)), *corrections, *self._readable.notes(query)]

    def calibration(self, by: By | Literal["sound"]) -> "Calibration | None":
        """Say what the scores of a kind of search mean; None if too few clips were measured.

        The first call puts the queries of the evaluation to the index, which takes some seconds.
        """
        return self._calibrations[by]

    def count(self, where: Sequence[Condition] = ()) -> int:
        """Count the clips that meet all conditions.

        Raises:
            SearchError: A condition can't be read.
        """
        among = self._among(where)
        return len(self.index.rows) if among is None else int(among.sum())

    def unknown_values(self, where: Sequence[Condition]) -> list[Note]:
        """Say which conditions ask for a text that no clip has, and what there is."""
        return unknown_values(self.index.rows, where)

    def guesses(self, query: str) -> bool:
        """Whether a query is unlike all that is known of voices, so that its answer is a guess.

        Raises:
            SearchError: The query is empty, or nothing of it can be read.
        """
        return bool(self._styles.guessed(self._read(query)))

    def like_clip(
        self, utterance_id: str, *, words: str = "", top: int = 10, where: Sequence[Condition] = ()
    ) -> list[Hit]:
        """Find the clips that sound like a clip of the corpus, which is left out.

        Args:
            utterance_id: The clip.
            words: In what they should differ from it, such as "higher and faster".
            top: Number of clips to find.
            where: Conditions that a clip must meet, all of them.

        Raises:
            SearchError: The index has no such clip, or the words can't be read.
        """
        vector = self.vector(utterance_id)
        place = {name: float(order[self._number(utterance_id)]) for name, order in self._styles.heard.order.items()}
        hits = self.like_vector(vector, words=words, place=place, top=top + 1, where=where)
        others = [hit for hit in hits if hit.utterance_id != utterance_id][:top]
        return [replace(hit, rank=rank) for rank, hit in enumerate(others, start=1)]

    def like_sound(
        self, wave: np.ndarray, sample_rate: Hertz, *, words: str = "", top: int = 10, where: Sequence[Condition] = ()
    ) -> list[Hit]:
        """Find the clips that sound like a wave, (samples,) float32.

        Raises:
            SearchError: The wave is too short, or has samples that are not finite; or the words
                can't be read.
        """
        vector = self.embedded(wave, sample_rate)
        place = self.place_of(wave, sample_rate) if words.strip() else {}
        return self.like_vector(vector, words=words, place=place, top=top, where=where)

    def like_vector(
        self,
        vector: np.ndarray,
        *,
        words: str = "",
        place: Mapping[str, float] | None = None,
        top: int = 10,
        where: Sequence[Condition] = (),
    ) -> list[Hit]:
        """Find the clips nearest to the vector of a text or a sound, (embedding,) of unit norm.

        Args:
            vector: The vector.
            words: In what they should differ from it, such as "higher and faster"; then a score is
                the sum of similarity, in standard deviations, and CHANGE times what differs.
            place: `place_of` the sound, for the words.
            top: Number of clips to find.
            where: Conditions that a clip must meet, all of them.

        Raises:
            SearchError: A condition can't be read, or nothing of the words can be compared.
        """
        if not words.strip():
            return self._hits(*self._vectors.near(vector, top, self._among(where)))
        gain, compared = self._styles.compared(self._styles.read(self._read(words)), place or {})
        if not compared:
            raise SearchError(
                f"{words.strip()!r} says nothing that can be compared: say higher, lower, faster, slower, louder, "
                "softer, livelier, breathier ..."
            )
        similar = standardised(np.asarray(self.index.vectors @ vector))
        rows, scores = ranked(similar + CHANGE * gain, top, self._among(where))
        told = [
            Match(
                tuple(one.phrase for one in compared if one.met[row]),
                tuple(one.phrase for one in compared if not one.met[row]),
            )
            for row in rows
        ]
        return [replace(hit, told=match) for hit, match in zip(self._hits(rows, scores), told, strict=True)]

    def place_of(self, wave: np.ndarray, sample_rate: Hertz) -> dict[str, float]:
        """Measure where a sound lies among all clips: attribute -> 0 to 1.

        Its level is left out: it depends on the distance to the microphone.

        Args:
            wave: (samples,) float32.
            sample_rate: Its rate.
        """
        found = measure(wave, sample_rate)
        return self._styles.place_of(measures(found, Attributes()))

    def describe(self, vector: np.ndarray, *, top: int = 10) -> list[Description]:
        """Find the captions that fit a clip best, given its vector (`vector` or `embedded`)."""
        scores = self.index.caption_vectors @ vector
        return [Description(str(self.index.captions[row].as_py()), float(scores[row])) for row in best(scores, top)]

    def vector(self, utterance_id: str) -> np.ndarray:
        """Look up the vector of a clip of the index, (embedding,).

        Raises:
            SearchError: The index has no such clip.
        """
        return np.asarray(self.index.vectors[self._number(utterance_id)])

    def embedded(self, wave: np.ndarray, sample_rate: Hertz) -> np.ndarray:
        """Embed a wave, (samples,) float32, as (embedding,): `recordings.embedded`."""
        return recordings.embedded(self.model, wave, sample_rate)

    def wave_of(self, file: Path) -> tuple[np.ndarray, Hertz]:
        """Decode a recording to search with at the rate of the model, in hertz: `recordings.decoded`."""
        rate = self.model.audio_encoder.sample_rate
        return recordings.decoded(file, rate), rate

    def __contains__(self, utterance_id: str) -> bool:
        return utterance_id in self._numbers

    def row(self, utterance_id: str) -> dict[str, Any]:
        """Look up the corpus row of a clip, without its audio.

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
    def _context(self) -> np.ndarray | None:
        return speaker_context(self.index.rows, self.model.audio_encoder)

    @functools.cached_property
    def _styles(self) -> Styles:
        return Styles(self.index.rows, self._texts.sentences)

    @functools.cached_property
    def _texts(self) -> Texts:
        return Texts(self.model.text_encoder)

    @functools.cached_property
    def _vectors(self) -> Vectors:
        return Vectors(self.index.vectors, self.index.half, self.index.approximate)

    @functools.cached_property
    def _calibrations(self) -> "dict[str, Calibration | None]":
        from fsclap.retrieval.calibration import calibrate  # a search by itself needs no evaluation

        ids, split = self.index.rows["utterance_id"].to_pylist(), self.model_folder / "split.json"
        return calibrate(ids, split, self.index.vectors, self._styles, self._embedded_text)

    @functools.lru_cache(maxsize=16)  # noqa: B019 (a searcher lives as long as the process, or its index)
    def _mask(self, where: tuple[Condition, ...]) -> np.ndarray | None:
        return mask(self.index.rows, where)

    def _among(self, where: Sequence[Condition]) -> np.ndarray | None:
        """(rows,) bool: the clips that meet all conditions; None without any."""
        return self._mask(tuple(where)) if where else None

    @functools.cached_property
    def _readable(self) -> Readable:
        return Readable(self.model.text_encoder)

    def _read(self, query: str) -> str:
        """Return what can be read of a query, without its slips."""
        if not query.strip():
            raise SearchError("the query is empty: describe how the speech should sound")
        return corrected(self._readable.kept(query), self._slips(query))

    def _slips(self, query: str) -> dict[str, str]:
        return slips(query, self._texts.words)

    @functools.cached_property
    def asked(self) -> Asked:
        """Embeds queries as they are searched for by the model."""
        return Asked(self._embedded_texts, self._styles.meant, Prompts.load(self.model_folder))

    def _embedded_text(self, query: str) -> np.ndarray:
        return np.asarray(self.asked([query])[0])

    def _embedded_texts(self, queries: Sequence[str]) -> np.ndarray:
        return self.model.embed_text_features([self._texts.features(query) for query in queries]).cpu().numpy()

    def _hits(self, rows: np.ndarray, scores: np.ndarray) -> list[Hit]:
        return [
            Hit(rank, float(score), None, self._row(int(row)))
            for rank, (row, score) in enumerate(zip(rows, scores, strict=True), start=1)
        ]

    def _reranked(self, query: str, hits: list[Hit], count: int) -> list[Hit]:
        if self._sound is None:
            raise SearchError("re-ranking needs the clips: open the searcher with the sound of the corpus")
        head, rest = hits[:count], hits[count:]
        features = {}
        for id_, flac in self._sound([hit.utterance_id for hit in head]):
            wave = decode_clip(flac, self.model.audio_encoder.sample_rate)
            context = None if self._context is None else self._context[self._number(id_)]
            features[id_] = self.model.audio_features(wave, context)
        text = self.model.text_encoder.features([query])[0]
        with torch.inference_mode():
            audio = pad([features[hit.utterance_id] for hit in head]).to(self.model.device)
            logits = self.model.match(audio, pad([text] * len(head)).to(self.model.device)).cpu().numpy()
        order = best(logits, len(head))
        found = [(head[at], float(logits[at])) for at in order] + [(hit, None) for hit in rest]
        return [replace(hit, rank=rank, match=match) for rank, (hit, match) in enumerate(found, start=1)]
