"""Search by words: what a query asks for, and which clips of an index have it in their styles."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fsclap.corpus.captioning.grammar import load_grammar
from fsclap.data.measured import clip_measures, percentiles
from fsclap.queries.conditions import ANY, clip_words, scale_words, unheard, vocabulary
from fsclap.queries.reading import Encode, Heard, Reader, Reading, words
from fsclap.retrieval.notes import GUESS, NO_EMOTION, NO_EVENT, NO_WORD, Note

MEANT = 0.1
"""Share of a reading from which a word is named as one that the query means."""
UNUSED = 0.3
"""Share of a reading from which it is said that no clip has the attribute."""
UNDERSTOOD = 0.52
"""Cosine of a query and the wording nearest to it, below which the reading is called a guess
(`bench.calibration` compares queries about voices with others)."""
_PHRASES = {
    "pitch": "{} pitch",
    "timbre": "{} timbre",
    "voice_quality": "{} voice",
    "pauses": "{} pauses",
    "pitch_range": "{} melody",
    "intonation": "{} intonation",
    "dynamics": "{} dynamics",
    "relative_pitch": "{} pitch",
    "relative_rate": "{} than usual",
}
"""Attribute -> how its words are shown; others are shown as they are."""
_COMPARATIVES = {
    "pitch": ("lower pitch", "higher pitch"),
    "pitch_range": ("flatter melody", "livelier melody"),
    "energy": ("softer", "louder"),
    "dynamics": ("more even", "more contrasts"),
    "speaking_rate": ("slower", "faster"),
    "pauses": ("fewer pauses", "more pauses"),
    "voice_quality": ("clearer", "breathier"),
    "timbre": ("brighter", "darker"),
}
"""Attribute -> how less and more of it are called."""
_ABSOLUTE = {"relative_pitch": "pitch", "relative_rate": "speaking_rate"}
FAR = 0.25
"""Share of the clips that lie between a sound and one that is different enough."""
AHEAD = 0.03
"""Share of the clips by which a clip must differ to be called different."""
_ABSENT = {"emotion": NO_EMOTION, "events": NO_EVENT}


@dataclass(frozen=True)
class Match:
    """What a query asks for, seen from one clip.

    Attributes:
        has: What of it the clip has, such as "very low pitch", the most important first.
        lacks: What of it the clip lacks, likewise.
        marked: Words of the clip's caption that say what it has.
    """

    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    marked: tuple[str, ...] = ()


NOTHING = Match()


@dataclass(frozen=True)
class Comparison:
    """One thing in which clips are compared with a sound.

    Attributes:
        phrase: "higher pitch".
        met: (clips,) bool.
    """

    phrase: str
    met: np.ndarray


class Styles:
    """The styles of the clips of an index, and queries read by the words that these can have.

    Attributes:
        heard: The words and the order of the clips.
        measured: Attribute -> (clips,) what was measured of them, NaN where unknown.
        without: Attributes for which no clip has a word.

    Args:
        rows: One row per clip: `style_key`, and the columns that `clip_measures` takes. Without
            `style_key` nothing is known of any clip.
        encode: The sentence encoder of the package: texts -> (texts, 384) unit rows. It had better
            remember them (`fsclap.retrieval.texts`): a search and its notes read the same parts.
    """

    def __init__(self, rows: pa.Table, encode: Encode) -> None:
        styles = _words_of(rows)
        self.measured = clip_measures(rows)
        self.heard = Heard(styles, percentiles(self.measured))
        absent = unheard(styles)
        self.without = tuple(
            name for name, known in vocabulary().items() if absent.issuperset((name, w) for w in known)
        )
        self._reader = Reader(encode, without=absent) if self.known else None
        self._unrestricted = Reader(encode)

    @property
    def known(self) -> bool:
        """Whether any clip has a word at all."""
        return len(self.without) < len(vocabulary())

    def prepare(self, queries: Sequence[str]) -> None:
        """Encode at once what `read` needs of many queries."""
        if self._reader:
            self._reader.prepare(queries)

    def read(self, query: str) -> Reading:
        """Read a query by the words that clips have; it asks for nothing if they have none."""
        return self._reader.read(query) if self._reader else Reading(np.zeros(len(words())))

    def meant(self, query: str) -> Reading:
        """Read a query, by any words if no clip has one: a model may hear them."""
        return (self._reader or self._unrestricted).read(query)

    def matches(self, reading: Reading, rows: np.ndarray, captions: Sequence[str]) -> list[Match]:
        """Say what of a query each clip has, and what it lacks.

        A clip has a word if it has it or one beyond it on its scale.

        Args:
            reading: What `read` returned.
            rows: (clips,) rows of the index.
            captions: One per clip.
        """
        words = self.heard.words[rows]
        has: list[dict[str, None]] = [{} for _ in rows]
        lacks: list[dict[tuple[str, str], None]] = [{} for _ in rows]
        own: list[list[tuple[str, str]]] = [[] for _ in rows]
        for (attribute, word), weight in reading.asked().items():
            if weight < MEANT:
                continue
            column = words[:, list(vocabulary()).index(attribute)]
            met = (Heard(words, {}).meets(attribute, word) >= 1) & (column != ANY)
            for at, true in enumerate(met):
                if true:
                    own[at].append((attribute, _own(attribute, word, int(column[at]))))
                    has[at][phrase(*own[at][-1])] = None
                else:
                    lacks[at][(attribute, word)] = None
        for others, said in zip(lacks, own, strict=True):
            for attribute, _ in said:  # who has a low voice does not lack a very low one
                for name in [name for name in others if name[0] == attribute]:
                    del others[name]
        marked = [marks(caption, said) for caption, said in zip(captions, own, strict=True)]
        missing = [tuple(dict.fromkeys(phrase(*name) for name in names)) for names in lacks]
        return [Match(tuple(h), m, said) for h, m, said in zip(has, missing, marked, strict=True)]

    def compared(self, reading: Reading, place: Mapping[str, float]) -> tuple[np.ndarray, list[Comparison]]:
        """Compare all clips with a sound, as "higher and faster" asks for.

        Args:
            reading: What `read` returned for the words; a direction on a scale counts, whatever the
                strength of the word.
            place: Attribute -> where the sound lies among all clips, 0 to 1.

        Returns:
            (clips,) float32: -1 to 1 for the share of the way that each clip goes, a quarter of all
            clips counting in full; and what was compared.
        """
        gain = np.zeros(len(self.heard.words), dtype=np.float32)
        found: dict[tuple[str, int], Comparison] = {}
        for (attribute, word), weight in reading.asked().items():
            names = scale_words(attribute)
            sign = 0 if word not in names else int(np.sign(names.index(word) - len(names) // 2))
            name = _ABSOLUTE.get(attribute, attribute)
            if not sign or name not in place or name not in _COMPARATIVES:
                continue
            sign = sign if weight > 0 else -sign
            ahead = sign * (self.heard.order[name] - place[name])
            gain += abs(weight) * np.clip(ahead / FAR, -1, 1).astype(np.float32)
            if abs(weight) >= MEANT and (name, sign) not in found:
                found[name, sign] = Comparison(_COMPARATIVES[name][sign > 0], ahead > AHEAD)
        return gain, list(found.values())

    def place_of(self, values: Mapping[str, float | None]) -> dict[str, float]:
        """Say where measured values lie among all clips: attribute -> 0 to 1."""
        places = {}
        for name, value in values.items():
            known = self.measured[name][np.isfinite(self.measured[name])]
            if value is not None and len(known):
                places[name] = float((known < value).mean() + (known == value).mean() / 2)
        return places

    def guessed(self, query: str) -> list[Note]:
        """Say that a query is unlike all that is known of voices: one note, or none."""
        if self._reader is None or self._reader.nearness(query) >= UNDERSTOOD:
            return []
        return [Note(GUESS, {"query": repr(query.strip())})]

    def unused(self, query: str) -> list[Note]:
        """Say what the query asks for in attributes that no clip has."""
        if not self.known or not self.without:
            return []
        asked = self._unrestricted.read(query).asked()
        total = sum(map(abs, asked.values()))
        notes = []
        for attribute in self.without:
            shares = {word: abs(weight) for (name, word), weight in asked.items() if name == attribute}
            if shares and sum(shares.values()) >= UNUSED * total:
                word = max(shares, key=lambda word: shares[word])
                values = {"word": repr(word), "attribute": attribute.replace("_", " ")}
                notes.append(Note(_ABSENT.get(attribute, NO_WORD), values))
        return notes


def marks(caption: str, words: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Find the parts of a caption that word some (attribute, word), the longest wording of each."""
    phrases, found = load_grammar().phrases, []
    for attribute, word in words:
        known = sorted({w for some in phrases.get(attribute, {}).get(word, {}).values() for w in some}, key=len)
        at = next((at for w in reversed(known) if (at := _place(caption, w)) is not None), None)
        if at is not None:
            found.append(caption[slice(*at)])
    return tuple(dict.fromkeys(found))


def _place(caption: str, wording: str) -> tuple[int, int] | None:
    match = re.search(rf"\b{re.escape(wording)}\b", caption, re.IGNORECASE)
    return None if match is None else match.span()


def phrase(attribute: str, word: str) -> str:
    """Word one word of a style so that it can stand alone: "low pitch", "no pauses", "slow"."""
    return _PHRASES.get(attribute, "{}").format("no" if word == "none" else word)


def _words_of(rows: pa.Table) -> np.ndarray:
    """Encode the styles of the clips: (clips, attributes) int64."""
    if "style_key" not in rows.column_names:
        return np.full((len(rows), len(vocabulary())), ANY, dtype=np.int64)
    keys = rows["style_key"].combine_chunks().dictionary_encode()  # many clips have the same style
    words = clip_words(key or "" for key in keys.dictionary.to_pylist())
    unknown = np.full((1, words.shape[1]), ANY, dtype=np.int64)
    numbers = keys.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)
    return np.concatenate([words, unknown])[numbers]


def _own(attribute: str, word: str, bits: int) -> str:
    """Return the word of a clip that meets `word`: the same, or one beyond it."""
    known = vocabulary()[attribute]
    return word if bits & known[word] else next(own for own, bit in known.items() if bits & bit)
