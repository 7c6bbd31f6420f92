"""A bank of short queries, drawn from the wordings: what a model is trained on besides captions.

People name one to three things, not seven; they type adjectives, nouns, whole phrases or telegrams,
and say what they don't want. The bank depends on no corpus, so its text features are computed once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np

from fsclap.queries.conditions import UNTAGGED, allowed, scale_words, vocabulary
from fsclap.queries.wordings import Wording, load_wordings

T = TypeVar("T")

COUNTS = {1: 0.5, 2: 0.3, 3: 0.2}
"""How many attributes a query names, and how often."""
NEGATED = 0.12
"""Share of the named attributes that are named by what they are not."""
SCALE_WEIGHT, TAG_WEIGHT = 1.0, 0.25
"""How often an attribute with a scale is drawn, and one that only some corpora have."""

_SPEAKERS = ("voice", "voice", "voice", "speaker", "tone of voice", "man", "woman", "delivery")
_SPEAKS = ("speaking ", "speaks ", "talking ", "")


@dataclass(frozen=True)
class Bank:
    """Queries with what they are true of.

    Attributes:
        texts: Distinct queries.
        allowed: (queries, attributes) int64, as `fsclap.queries.conditions.allowed` encodes them.
    """

    texts: Sequence[str]
    allowed: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)


@lru_cache(maxsize=4)
def draw_bank(size: int, seed: int = 0) -> Bank:
    """Draw distinct queries, the same ones on every machine."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, np.ndarray] = {}
    while len(drawn) < size:
        text, conditions = _draw(rng)
        drawn.setdefault(text, allowed(conditions))
    return Bank(tuple(drawn), np.stack(list(drawn.values())) if drawn else np.zeros((0, len(vocabulary())), np.int64))


def opposites(attribute: str, word: str) -> list[str]:
    """List the words that "not `word`" asks for: those on the other side of the scale.

    Empty for a word in the middle, and where the attribute has no scale.
    """
    names = scale_words(attribute)
    if word not in names:
        return []
    at, middle = names.index(word), len(names) // 2
    others = names[middle + 1 :] if at < middle else names[:middle] if at > middle else []
    return [name for name in others if name]


def _draw(rng: np.random.Generator) -> tuple[str, dict[str, Sequence[str]]]:
    """One query, and the words it is true of."""
    weights = _attribute_weights()
    count = int(rng.choice(list(COUNTS), p=list(COUNTS.values())))
    chosen = rng.choice(list(weights), size=count, replace=False, p=list(weights.values()))
    parts: list[Wording] = []
    conditions: dict[str, Sequence[str]] = {}
    for attribute in map(str, chosen):
        word = _one(rng, list(vocabulary()[attribute]))
        wording = _one(rng, _wordings()[attribute, word])
        others = opposites(attribute, word)
        if others and wording.form in ("adj", "with") and rng.random() < NEGATED:
            parts.append(wording._replace(form="say", phrase=_negated(rng, wording)))
            conditions[attribute] = others
        else:
            parts.append(wording)
            conditions[attribute] = [word]
    return _finish(rng, _assembled(rng, parts)), conditions


@lru_cache(maxsize=1)
def _attribute_weights() -> Mapping[str, float]:
    weights = {name: TAG_WEIGHT if name in UNTAGGED else SCALE_WEIGHT for name in vocabulary()}
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


@lru_cache(maxsize=1)
def _wordings() -> Mapping[tuple[str, str], Sequence[Wording]]:
    found: dict[tuple[str, str], list[Wording]] = {}
    for wording in load_wordings():
        found.setdefault(wording[:2], []).append(wording)
    return found


def _negated(rng: np.random.Generator, wording: Wording) -> str:
    if wording.form == "with":
        return f"without {wording.phrase}"
    return _one(rng, ["not {}", "not {}", "not {} at all", "anything but {}", "not at all {}", "never {}"]).format(
        wording.phrase
    )


def _assembled(rng: np.random.Generator, parts: Sequence[Wording]) -> str:
    if rng.random() < 0.45 and any(part.form in ("adj", "mood") for part in parts):
        return _sentence(rng, parts)
    pieces = [_piece(rng, part) for part in parts]
    return _one(rng, [", ".join(pieces), " and ".join(pieces), "; ".join(pieces)])


def _sentence(rng: np.random.Generator, parts: Sequence[Wording]) -> str:
    """Word a noun phrase with what belongs to it: "a squeaky voice speaking fast, with many gaps"."""

    def of(*forms: str) -> list[str]:
        return [part.phrase for part in parts if part.form in forms]

    text = _with_article(f"{', '.join(of('adj', 'mood'))} {_one(rng, _SPEAKERS)}")
    if manners := of("adv"):
        text += f" {_one(rng, _SPEAKS)}{' and '.join(manners)}"
    if features := of("with", "sound"):
        text += f" with {' and '.join(features)}"
    likes = [f"like {phrase}" for phrase in of("noun")]
    return ", ".join([text, *likes, *of("say"), *(f"{phrase} than usual" for phrase in of("than"))])


def _piece(rng: np.random.Generator, wording: Wording) -> str:
    templates = {
        "adj": ("{}", "{}", "{a} voice", "{a} voice", "{a} speaker", "someone who sounds {}", "sounds {}", "{} speech"),
        "mood": ("{}", "{}", "{a} voice", "sounds {}", "{a} speaker"),
        "noun": ("{}", "{}", "sounds like {}", "like {}", "{} speaking"),
        "adv": ("{}", "speaking {}", "speaks {}", "spoken {}", "talking {}"),
        "with": ("{}", "with {}", "with {}"),
        "sound": ("{}", "with {}", "{} in the background"),
        "than": ("{} than usual", "{} than usual", "{} than normal"),
        "say": ("{}",),
    }
    return _one(rng, templates[wording.form]).format(wording.phrase, a=_with_article(wording.phrase))


def _finish(rng: np.random.Generator, text: str) -> str:
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:]
    return f"{text}." if rng.random() < 0.15 else text


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def _one(rng: np.random.Generator, items: Sequence[T]) -> T:
    return items[int(rng.integers(len(items)))]
