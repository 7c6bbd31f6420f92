"""Search: text to clips, a clip to similar clips, a clip to descriptions."""

import functools
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from fsclap import Hertz, Seconds
from fsclap.audio import resample
from fsclap.corpus.captioning.attributes import Attributes, measure
from fsclap.corpus.captioning.bins import measures
from fsclap.data.clips import MIN_CLIP, decode_clip
from fsclap.data.measured import speaker_context
from fsclap.media import DecodeSettings, decode
from fsclap.model.functionals import CONTEXT
from fsclap.model.systems import System, load_system
from fsclap.model.tokens import pad
from fsclap.queries.reading import Heard, combined, standardised
from fsclap.refusal import Refused
from fsclap.retrieval import DEFAULT, By, approximate
from fsclap.retrieval.filters import Condition, mask, unknown_values
from fsclap.retrieval.index import Index, SearchError, model_digest, refuse_address
from fsclap.retrieval.notes import Readable
from fsclap.retrieval.words import NOTHING, Match, Styles

if TYPE_CHECKING:
    from fsclap.retrieval.calibration import Calibration

Sound = Callable[[Sequence[str]], Iterable[tuple[str, bytes]]]
"""Utterance ids -> (id, FLAC file) in any order: `storage.versions.CorpusVersion.audio`."""

MAX_RECORDING: Seconds = 60.0
"""A longer recording can't be searched with."""
MAX_RECORDING_BYTES = 20_000_000
"""A larger file can't be searched with: a minute of sound, or a short video."""
FEW = 0.1
"""Below this share of clips that meet the conditions, only those are scored; else all are."""

BLOCK = 64
"""Scores of which only the highest is looked at to find how high the best are."""
SLACK = 0.004
"""By how much a cosine in half precision may be wrong: each of its two factors by 2^-11, and the sum
and what is kept of it by as much, twice over."""
CHANGE = 2.0
"""What it counts to differ as asked, in standard deviations of the similarity."""

# Short, so that a hostile upload can't occupy the page for long.
_DECODE_TIMEOUT: Seconds = 30.0


@dataclass(frozen=True)
class Hit:
    """A search result.

    Attributes:
        rank: From 1.
        score: What ranked the clip, the higher the better: by the model, the cosine similarity of
            query and clip, -1 to 1; by words, how well its style meets the query, about 1 if it has all
            that is asked for; by both, the sum of the two in standard deviations; NaN for a clip that
            was chosen by hand.
        match: Logit of the matching head for this query and clip; None without re-ranking.
        row: The clip's row in the corpus, without its audio.
        told: What of the query the clip has and lacks; empty if the query is a sound.
    """

    rank: int
    score: float
    match: float | None
    row: dict[str, Any]
    told: Match = NOTHING

    @property
    def why(self) -> tuple[str, ...]:
        """What the query asked for and the clip has."""
        return self.told.has

    @property
    def utterance_id(self) -> str:
        return str(self.row["utterance_id"])

    @property
    def caption(self) -> str:
        return str(self.row["caption"])


@dataclass(frozen=True)
class Description:
    """A caption that fits a clip, with their cosine similarity, -1 to 1."""

    caption: str
    score: float


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
            rows, scores = self._near(self._embedded_text(query), max(top, rerank), where)
        else:
            scores = self._styles.heard.scores(reading)
            if by == "both":
                scores = combined(scores, self.index.vectors @ self._embedded_text(query))
            rows, scores = ranked(scores, max(top, rerank), self._among(where))
        hits = self._hits(rows, scores)
        told = self._styles.matches(reading, rows, [hit.caption for hit in hits])
        hits = [replace(hit, told=match) for hit, match in zip(hits, told, strict=True)]
        return self._reranked(query, hits, rerank)[:top] if rerank else hits

    def notes(self, query: str) -> list[str]:
        """Say what of a description could not be used: one sentence each, usually none.

        Raises:
            SearchError: The query is empty, or nothing of it can be read.
        """
        kept = self._read(query)
        guessed = self._styles.guessed(kept)
        return [*guessed, *([] if guessed else self._styles.unused(kept)), *self._readable.notes(query)]

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

    def unknown_values(self, where: Sequence[Condition]) -> list[str]:
        """Say which conditions ask for a text that no clip has, and what there is: one sentence each."""
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
            return self._hits(*self._near(vector, top, where))
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
        """Embed a wave, (samples,) float32, as (embedding,).

        A wave that is longer than the encoder takes at once is embedded in windows that overlap,
        one after another: the vector is their mean, of unit norm.

        Raises:
            SearchError: The wave is too short, or has samples that are not finite.
        """
        if wave.ndim != 1 or len(wave) < MIN_CLIP * sample_rate or not np.isfinite(wave).all():
            raise SearchError(f"the clip must be mono, have finite samples and last at least {MIN_CLIP:g} s")
        wave = resample(wave, sample_rate, self.model.audio_encoder.sample_rate)
        total = sum(self.model.embed_audio_features([part])[0].cpu().numpy() for part in self._windows(wave))
        return np.asarray(total / np.linalg.norm(total), dtype=np.float32)

    def wave_of(self, file: Path) -> tuple[np.ndarray, Hertz]:
        """Decode a recording to search with: any file with sound, of the audio track that a player takes.

        Returns:
            (samples,) float32, mono, and its rate in hertz: the one that the model takes.

        Raises:
            SearchError: The file has more than MAX_RECORDING_BYTES, lasts less than MIN_CLIP or
                more than MAX_RECORDING, is silent, or can't be decoded.
            OSError: The file can't be read.
        """
        if (size := file.stat().st_size) > MAX_RECORDING_BYTES:
            raise SearchError(too_large(file.name, size))
        rate = self.model.audio_encoder.sample_rate
        settings = DecodeSettings(min_duration=MIN_CLIP, max_duration=MAX_RECORDING, timeout=_DECODE_TIMEOUT)
        with tempfile.TemporaryDirectory() as folder:
            try:
                wave = decode(file, Path(folder) / "wave", sample_rate=rate, settings=settings)
            except Refused as refused:
                raise SearchError(_refusal(file.name, refused)) from refused
            return wave.mean(axis=0), rate

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
    def _approximate(self) -> Any:
        file = self.index.approximate
        return approximate.load(file) if file is not None else None

    @functools.cached_property
    def _half(self) -> "Halved | None":
        return None if self.index.half is None else Halved(self.index.half)

    @functools.cached_property
    def _context(self) -> np.ndarray | None:
        return speaker_context(self.index.rows, self.model.audio_encoder)

    @functools.cached_property
    def _styles(self) -> Styles:
        from fsclap.model.embedded import SentenceTokens

        encoder = self.model.text_encoder
        return Styles(self.index.rows, (encoder if isinstance(encoder, SentenceTokens) else SentenceTokens()).sentences)

    @functools.cached_property
    def _calibrations(self) -> "dict[str, Calibration | None]":
        from fsclap.retrieval import calibration  # here, because a search on the command line needs no evaluation

        split = self.model_folder / "split.json"
        rows = calibration.unheard_rows(self.index.rows["utterance_id"].to_pylist(), split)
        styles, vectors = self._styles, np.asarray(self.index.vectors[rows])
        heard = Heard(styles.heard.words[rows], {name: order[rows] for name, order in styles.heard.order.items()})
        measured = {name: values[rows] for name, values in styles.measured.items()}

        @functools.cache  # each is taken alone and in the sum of both
        def words(query: str) -> np.ndarray:
            return heard.scores(styles.read(query))

        @functools.cache
        def model(query: str) -> np.ndarray:
            return vectors @ self._embedded_text(query)

        def both(query: str) -> np.ndarray:
            return combined(words(query), model(query))

        ways: dict[str, Callable[[str], np.ndarray]] = {"model": model, "words": words, "both": both}
        found = {by: calibration.by_queries(measured, heard.order, score) for by, score in ways.items()}
        return found | {"sound": calibration.by_sounds(heard.words, vectors, tuple(CONTEXT))}

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
        """Return what can be read of a query."""
        if not query.strip():
            raise SearchError("the query is empty: describe how the speech should sound")
        return self._readable.kept(query)

    def _windows(self, wave: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the features of a wave at the encoder's rate, in as few windows as cover it."""
        encoder = self.model.audio_encoder
        features = encoder.features(wave)
        if len(features) <= encoder.max_frames:
            yield features
            return
        # The sound is cut, not its features: some of these depend on the whole clip.
        span = len(wave) * encoder.max_frames // len(features)
        for start in np.linspace(0, len(wave) - span, -(-len(wave) // span)).round().astype(int):
            yield self.model.audio_features(wave[start : start + span])

    def _embedded_text(self, query: str) -> np.ndarray:
        return self.model.embed_text([query])[0].cpu().numpy()

    def _near(self, vector: np.ndarray, top: int, where: Sequence[Condition]) -> tuple[np.ndarray, np.ndarray]:
        """Find the rows nearest to a vector, best first, and their cosines."""
        among = self._among(where)
        # A few clips that meet the conditions are faster to score than to look up in the lists.
        if self._approximate is not None and (among is None or among.mean() >= FEW):
            likely = approximate.candidates(self._approximate, vector, max(100, 10 * top), among)
            order, scores = nearest(self.index.vectors[likely], vector, top)
            return likely[order], scores
        half = self._half
        if half is not None and (among is None or among.mean() >= FEW):
            likely = half.candidates(vector, top, among)
            order, scores = nearest(self.index.vectors[likely], vector, top)
            return likely[order], scores
        return nearest(self.index.vectors, vector, top, among)

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


def nearest(
    vectors: np.ndarray, query: np.ndarray, top: int, among: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Search exactly: the rows with the largest inner product, best first, and those products.

    Args:
        vectors: (rows, width).
        query: (width,).
        top: Number of rows to find.
        among: (rows,) bool, the rows to consider; None: all.
    """
    if among is None:
        scores = vectors @ query
        rows = best(scores, top)
        return rows, scores[rows]
    chosen = np.flatnonzero(among)
    scores = vectors[chosen] @ query if len(chosen) < FEW * len(vectors) else (vectors @ query)[chosen]
    order = best(scores, top)
    return chosen[order], scores[order]


def ranked(scores: np.ndarray, top: int, among: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Rank rows by their scores: the best rows, best first, and their scores.

    Args:
        scores: (rows,).
        top: Number of rows to find.
        among: (rows,) bool, the rows to consider; None: all.
    """
    if among is None:
        rows = best(scores, top)
        return rows, scores[rows]
    chosen = np.flatnonzero(among)
    rows = chosen[best(scores[chosen], top)]
    return rows, scores[rows]


def best(scores: np.ndarray, top: int) -> np.ndarray:
    """Rank scores: the positions of the highest, in descending order; ties in order of position."""
    top = max(1, top)
    candidates = np.flatnonzero(scores >= least(scores, top)) if top < len(scores) else np.arange(len(scores))
    return candidates[np.argsort(-scores[candidates], kind="stable")][:top]


def least(scores: np.ndarray, top: int) -> float:
    """Find a score that at least `top` scores reach, and few others do.

    That is the score of rank `top` among the maxima of blocks: one pass over all scores, where the
    exact score of that rank takes several.
    """
    blocks = len(scores) // BLOCK
    if blocks < 4 * top:
        return float(np.partition(scores, len(scores) - top)[len(scores) - top])
    maxima = scores[: blocks * BLOCK].reshape(blocks, BLOCK).max(axis=1)
    return float(np.partition(maxima, blocks - top)[blocks - top])


class Halved:
    """The vectors of an index in half precision: half the memory to read, and still an exact answer.

    Args:
        vectors: (rows, width) float16, rows of unit norm.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the file is mapped to be read, which torch can't express
            self._vectors = torch.from_numpy(vectors)

    def candidates(self, query: np.ndarray, top: int, among: np.ndarray | None = None) -> np.ndarray:
        """Find rows among which the `top` nearest to a query are, in ascending order.

        Args:
            query: (width,) float32 of unit norm.
            top: Number of rows.
            among: (rows,) bool, the rows to consider; None: all.
        """
        with torch.inference_mode():
            scores = (self._vectors @ torch.from_numpy(query).half()).float().numpy()
        if among is not None:
            scores[~among] = -2.0
        return np.flatnonzero(scores >= max(least(scores, min(top, len(scores))) - 2 * SLACK, -1.5))


def too_large(name: str, size: int) -> str:
    """Word the refusal of a file of `size` bytes, more than MAX_RECORDING_BYTES."""
    limit = MAX_RECORDING_BYTES / 1e6
    return f"{name} has {size / 1e6:.1f} MB; the limit is {limit:.0f} MB. Cut it, or use only its sound."


def _refusal(name: str, refused: Refused) -> str:
    if refused.reason == "too_long":
        return f"{name} is too long: a recording to search with lasts at most {MAX_RECORDING:g} s. Cut it first."
    if refused.reason == "too_short":
        return f"{name} is too short: a recording to search with lasts at least {MIN_CLIP:g} s."
    return refused.detail
