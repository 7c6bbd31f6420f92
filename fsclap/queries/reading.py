"""Reading a query without a trained model: which words of a style it asks for, and which it refuses.

A sentence encoder knows that "a mouse on helium" is like "squeaky" and unlike "a bear". So each part
of a query is read by the wordings that lie nearest to it, and the clips are ranked by how well their
styles meet the words that those stand for. A part with a negation asks for the other side of the
scale, which sentence encoders can't tell: to them "not high" is another way to say "high". Words that
stand side by side are also read by themselves: of "booming ogre" as a whole, the booming gets lost.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from fsclap.queries.bank import opposites
from fsclap.queries.conditions import ANY, nothing_heard, scale_words, unheard, vocabulary
from fsclap.queries.wordings import held_out_wordings, load_wordings

VECTORS = Path(__file__).with_name("wordings.npy")
"""(wordings, width) float16 unit rows: the wordings, then the held-out ones, as the sentence encoder of the
package embeds them, so that a search doesn't start by encoding seven thousand phrases. `bench.wordings` makes it."""
NEAREST = 100
"""Wordings that a part of a query is read by."""
TEMPERATURE = 0.04
"""Of the softmax over their cosines."""
FAITH = 4
"""How much more a part counts that lies near some wording: its largest cosine, to this power."""
WHOLE = 0.5
"""Share of the reading of a query as a whole, which "like a rollercoaster, up and down" needs; the less,
the better each of its parts is understood: of "monotone but loud" as a whole, the loud gets lost."""
PHRASES = 0.3
"""Share of the phrases of a part in its reading."""
KNOWN = 0.6
"""Cosine with a wording from which a few words of a part are a phrase of their own."""
LONGEST = 4
"""Words of a phrase."""
LONGER = 0.02
"""What a word more counts in the choice between phrases that share a word, in cosine."""
LEAST = 0.05
"""Share of a reading below which a word was not asked for."""
BOTH_ENDS = 0.3
"""How far one part of a query must lean to one end of a scale, and another to the other, to ask for a change."""
MODEL_SHARE = 0.15
"""Share of the model in a ranking by both."""
FINE = 0.3
"""What the measured value counts among clips with the same word, in steps of the scale."""

_PARTS = re.compile(r"[,;:.!?]+|\s/\s|\sand\s|(?<!anything)\sbut\s|\s(?=nor\s)", re.IGNORECASE)
_NEGATION = re.compile(
    r"\b(?:not|never|no|without|nothing|nobody|none|neither|nor|cannot|anything but|far from|by no means|free of|"
    r"lack(?:s|ing)?|hardly|zero|rather than|instead of|as opposed to|fewer|(?<!a )few)\b|\b\w+n't\b",
    re.IGNORECASE,
)
# What says that one thing follows another: "first hushed, then thundering".
_FOLLOWS = re.compile(
    r"\b(?:then|next|sometimes|now|starts?|begins?|beginning|ends?|first|suddenly|moment|turns?|goes|from)\b",
    re.IGNORECASE,
)
# What follows is a reason or a circumstance: "so the baby doesn't wake up" negates nothing of the voice.
_CLAUSE = re.compile(
    r"\b(?:so(?: that)? (?=(?:the|an?|my|his|her|their|i|you|he|she|it|we|they|nobody|no one|everybody|people)\b)|"
    r"because\b|since\b|as if\b|as though\b|in case\b|lest\b|while\b|when\b|until\b|till\b)",
    re.IGNORECASE,
)
# What is left beside a negation and says nothing of a voice.
_EMPTY = re.compile(
    r"\b(?:at all|please|voices?|some(?:body|one) who|any(?:body|one)? who|any|a trace of|to|i)\b", re.I
)
# What most queries say. To a sentence encoder, "a sad voice" is more like "hoarse voice" than "sad".
_CARRIER = re.compile(
    r"\b(?:an?|the|very|really|voices?|speakers?|speech|speaking|speaks?|talking|talks?|sounds?|sounding|tone|delivery|"
    r"someone|somebody|person|who|that|is|with|in|of|his|her|their|please|i|want|pitch)\b",
    re.IGNORECASE,
)
# No phrase begins or ends with these.
_LINKS = """
    a an the of and or to in on at for with by from as is are be that who whose which this it its his her their my
    your our i you he she they we very really so such just like someone somebody some person please want need give
    me find show clip where than then into over up down out off
"""
_CHANGES = {"energy": ("dynamics", "contrasted"), "pitch": ("pitch_range", "sweeping")}
"""Attribute -> the word for speech that has both ends of its scale."""

Encode = Callable[[Sequence[str]], np.ndarray]
"""Texts -> (texts, width) unit rows."""


@lru_cache(maxsize=1)
def words() -> tuple[tuple[str, str], ...]:
    """List every (attribute, word) that can be asked for; readings are in this order."""
    return tuple((attribute, word) for attribute, known in vocabulary().items() for word in known)


@dataclass(frozen=True)
class Reading:
    """What a query asks for.

    Attributes:
        weights: (words,) share of each of `words()`; negative for a word that is refused.
    """

    weights: np.ndarray

    def asked(self) -> dict[tuple[str, str], float]:
        """Return the words that count, the most important first."""
        order = np.argsort(-np.abs(self.weights), kind="stable")
        return {words()[at]: float(self.weights[at]) for at in order if abs(self.weights[at]) >= LEAST}


class Reader:
    """Reads queries by their nearest wordings.

    Args:
        encode: The sentence encoder that embedded the wordings.
        without: (attribute, word) that queries are not read by: `fsclap.queries.conditions.unheard`.
        held_out: Whether to read by the held-out wordings too; an evaluation does not.
    """

    def __init__(self, encode: Encode, *, without: Collection[tuple[str, str]] = (), held_out: bool = True) -> None:
        self._encode = encode
        wordings = load_wordings() + (held_out_wordings() if held_out else ())
        usable = [at for at, wording in enumerate(wordings) if wording[:2] not in without]
        wordings = tuple(wordings[at] for at in usable)
        self._vectors = np.load(VECTORS)[usable].astype(np.float32)
        number = {word: at for at, word in enumerate(words())}
        self._word = np.array([number[wording[:2]] for wording in wordings])
        self._negative = np.array([bool(_NEGATION.search(wording.phrase)) for wording in wordings])

    @classmethod
    def of(cls, encode: Encode, clips: np.ndarray, *, held_out: bool = True) -> "Reader":
        """Read queries by the words that some clip has; by any word if none has one.

        Args:
            encode: The sentence encoder that embedded the wordings.
            clips: (clips, attributes) int64: `fsclap.queries.conditions.clip_words`.
            held_out: Whether to read by the held-out wordings too.
        """
        return cls(encode, without=() if nothing_heard(clips) else unheard(clips), held_out=held_out)

    def read(self, query: str) -> Reading:
        """Read a query."""
        parts = _parts(query) or [query]
        whole = len(parts) > 1 and not _NEGATION.search(query)
        encode = _Once(self._encode)
        encode(_texts([*parts, query] if whole else parts))  # all at once, which is faster
        read = [reading for part in parts for reading in self._part(part, encode)]
        _, total = _joined(read)
        if whole:
            share = WHOLE * (1 - min(_faith(cosine) for cosine, _ in read))
            total = (1 - share) * total + share * self._nearest(query, encode)[1]
            if _FOLLOWS.search(query):
                total = _changing(total, [weights for _, weights in read])
        return Reading(total)

    def nearness(self, query: str) -> float:
        """Compute the largest cosine of a query, or of a part of it, with a wording."""
        texts = [text for part in (query.strip(), *_parts(query)) for text in _wholes(part)]
        return float((self._encode(texts) @ self._vectors.T).max())

    def prepare(self, queries: Sequence[str]) -> None:
        """Encode at once what most queries are read by, for an encoder that remembers: faster than one by one."""
        self._encode(_texts([part for query in queries for part in (query.strip(), *_parts(query))]))

    def _part(self, part: str, encode: Encode) -> list[tuple[float, np.ndarray]]:
        """Read one part: the cosine it can be trusted by, and the (words,) it asks for."""
        negation = _NEGATION.search(part)
        if negation is None:
            return [self._nearest(part, encode)]
        clause = _CLAUSE.search(part)
        if clause is not None and clause.start() < negation.start():
            before = part[: clause.start()].strip()
            return [self._nearest(text, encode) for text in ([before, part] if before else [part])]
        rest = _EMPTY.sub(" ", part[negation.end() :]).strip()
        # Some wordings are negations themselves: "without a break", "never stops for breath".
        literal = self._nearest(part, encode, among=self._negative)
        if not rest:
            return [literal]
        refused = self._nearest(rest, encode, among=~self._negative)
        second = literal if literal[0] >= refused[0] else (refused[0], _turned(refused[1]))
        before = _EMPTY.sub(" ", part[: negation.start()]).strip()
        return [self._nearest(before, encode), second] if len(before.split()) > 1 else [second]

    def _nearest(self, text: str, encode: Encode, among: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        """Read a text as a whole and by the phrases in it that are near some wording."""
        cosine, found = _joined([self._by_wordings(row, among) for row in encode(_wholes(text))])
        phrases = self._by_phrases(text, encode, among)
        if phrases:
            known, said = _joined(phrases)
            cosine, found = max(cosine, known), (1 - PHRASES) * found + PHRASES * said
        return cosine, found

    def _by_phrases(self, text: str, encode: Encode, among: np.ndarray | None) -> list[tuple[float, np.ndarray]]:
        """Read the phrases of a text that are near some wording, the nearest first; no word is in two of them."""
        phrases = _phrases(text)
        if not phrases:
            return []
        readings = [self._by_wordings(row, among) for row in encode([phrase for _, phrase in phrases])]
        nearness = np.array([cosine for cosine, _ in readings]) + LONGER * np.array([len(at) for at, _ in phrases])
        taken: set[int] = set()
        chosen = []
        for number in np.argsort(-nearness, kind="stable"):
            at = phrases[number][0]
            if readings[number][0] >= KNOWN and taken.isdisjoint(at):
                taken.update(at)
                chosen.append(readings[number])
        return chosen

    def _by_wordings(self, vector: np.ndarray, among: np.ndarray | None) -> tuple[float, np.ndarray]:
        similarity = self._vectors @ vector
        if among is not None:
            similarity = np.where(among, similarity, -1.0)
        near = np.argpartition(-similarity, min(NEAREST, len(similarity) - 1))[:NEAREST]
        nearest = similarity[near].max()
        weights = np.exp((similarity[near] - nearest) / TEMPERATURE)
        found = np.bincount(self._word[near], weights / weights.sum(), minlength=len(words()))
        return float(nearest), found


class _Once:
    """Encodes texts, each of them once."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._rows: dict[str, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in self._rows]
        if new:
            self._rows.update(zip(new, self._encode(new), strict=True))
        return np.stack([self._rows[text] for text in texts])


def _faith(cosine: float) -> float:
    return float(min(max(cosine, 0.05), 1.0) ** FAITH)


def _joined(readings: Sequence[tuple[float, np.ndarray]]) -> tuple[float, np.ndarray]:
    """Join readings by how far each can be trusted: the largest cosine, and the (words,) asked for."""
    faiths = [_faith(cosine) for cosine, _ in readings]
    total = sum(faith * weights for faith, (_, weights) in zip(faiths, readings, strict=True)) / sum(faiths)
    return max(cosine for cosine, _ in readings), np.asarray(total)


def _parts(query: str) -> list[str]:
    return [part.strip() for part in _PARTS.split(query) if part.strip()]


def _texts(parts: Sequence[str]) -> list[str]:
    """List all that parts are read by: each as a whole, and its phrases."""
    return [text for part in parts for text in (*_wholes(part), *(phrase for _, phrase in _phrases(part)))]


def _wholes(text: str) -> list[str]:
    """Return a text, and what is left of it without the words that most queries have."""
    content = " ".join(_CARRIER.sub(" ", text).split())
    return [text, content] if content and content != text else [text]


def _phrases(text: str) -> list[tuple[range, str]]:
    """List the runs of up to LONGEST words of a text, less itself: which words, and the phrase."""
    said, links = re.findall(r"[\w'’-]+", text), frozenset(_LINKS.split())
    content = [word.lower() not in links for word in said]
    return [
        (range(start, end), " ".join(said[start:end]))
        for start in range(len(said))
        for end in range(start + 1, min(start + LONGEST, len(said)) + 1)
        if content[start] and content[end - 1] and end - start < len(said) and _says(said[start:end])
    ]


def _says(phrase: Sequence[str]) -> bool:
    return any(not _CARRIER.fullmatch(word) for word in phrase)


def _changing(total: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Ask for a change where parts ask for both ends of a scale: "now soft, now loud" has contrasts."""
    number = {word: at for at, word in enumerate(words())}
    total = total.copy()
    for attribute, change in _CHANGES.items():
        names, middle = scale_words(attribute), len(scale_words(attribute)) // 2
        low, high = ([number[attribute, name] for name in end if name] for end in (names[:middle], names[middle + 1 :]))
        leanings = [part[high].sum() - part[low].sum() for part in parts]
        if max(leanings) >= BOTH_ENDS and min(leanings) <= -BOTH_ENDS:
            total[number[change]] += total[low + high].sum()
            total[low + high] = 0
    return total


def _turned(weights: np.ndarray) -> np.ndarray:
    """Ask for the other side of each word, and refuse the word."""
    return weights @ _opposite() - weights / 2


@lru_cache(maxsize=1)
def _opposite() -> np.ndarray:
    """(words, words): row i spreads a word over those that its negation asks for."""
    number = {word: at for at, word in enumerate(words())}
    matrix = np.zeros((len(number), len(number)))
    for (attribute, word), row in number.items():
        for other in (others := opposites(attribute, word)):
            matrix[row, number[attribute, other]] = 1 / len(others)
    return matrix


@dataclass(frozen=True)
class Heard:
    """What can be asked of the clips of an index.

    Attributes:
        words: (clips, attributes) int64: `fsclap.queries.conditions.clip_words`.
        order: Attribute with a scale -> (clips,) where the measured value lies among all clips, 0
            to 1; 0.5 where it was not measured.
    """

    words: np.ndarray
    order: Mapping[str, np.ndarray]
    _met: dict[tuple[str, str], np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def scores(self, reading: Reading) -> np.ndarray:
        """Rank the clips: (clips,) float32, the better a clip meets a reading the higher."""
        total = np.zeros(len(self.words), dtype=np.float32)
        for word, weight in reading.asked().items():
            if word not in self._met:  # of many clips this takes longer than all else
                self._met[word] = self.meets(*word)
            total += np.float32(weight) * self._met[word]
        return total

    def meets(self, attribute: str, word: str) -> np.ndarray:
        """Say how well each clip meets one word: (clips,) float32 from 0 to 1 + FINE.

        On a scale, the next word counts half, and whatever lies beyond the word counts in full: who
        asks for a high voice is content with a very high one. Among clips that meet a word equally
        the measured value decides.
        """
        has = self.words[:, list(vocabulary()).index(attribute)]
        names = scale_words(attribute)
        if word not in names:
            return (((has & vocabulary()[attribute][word]) != 0) & (has != ANY)).astype(np.float32)
        at, middle = names.index(word), len(names) // 2
        place = np.full(len(has), middle)
        for number, name in enumerate(names):
            if name is not None:
                place[(has != ANY) & ((has & vocabulary()[attribute][name]) != 0)] = number
        distance = np.abs(place - at).astype(np.float32)
        if at == middle:
            return np.clip(1 - distance / 2, 0, None)
        distance[(place - at) * (at - middle) > 0] = 0
        order = self.order.get(attribute, np.full(len(has), 0.5))
        met: np.ndarray = np.clip(1 - distance / 2, 0, None) + FINE * (order if at > middle else 1 - order)
        return met.astype(np.float32)


def combined(words: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Rank clips by the words of their styles and by a model: (clips,) float32 from (clips,) each.

    Both are standardised over the clips; the model counts MODEL_SHARE times as much.
    """
    return standardised(words) + MODEL_SHARE * standardised(model)


def standardised(scores: np.ndarray) -> np.ndarray:
    """Shift and scale (clips,) scores to mean 0 and standard deviation 1; all 0 if they are equal."""
    if not len(scores) or np.ptp(scores) == 0:
        return np.zeros(len(scores), dtype=np.float32)
    exact = scores.astype(np.float64)
    return np.asarray((exact - exact.mean()) / exact.std(), dtype=np.float32)
