"""The caption grammar: wordings of style words, and sentences around them."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

GRAMMAR_FILE = Path(__file__).with_name("grammar.json")


Slot = Literal["mood", "voice", "how", "with", "than", "sound"]


class Grammar(BaseModel):
    """The wording.

    Attributes:
        phrases: attribute -> word -> slot of the sentence -> wordings. A wording belongs to one
            word only.
        frames: The sentences around the slots.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    phrases: dict[str, dict[str, dict[Slot, tuple[str, ...]]]]
    frames: dict[str, tuple[str, ...]]

    def wordings(self, name: str, word: str) -> list[tuple[Slot, str]]:
        """Every (slot, wording) of a style word.

        Raises:
            ValueError: The grammar has no wording for it.
        """
        slots = self.phrases.get(name, {}).get(word)
        if not slots:
            known = ", ".join(self.phrases.get(name, {})) or "nothing"
            raise ValueError(f"the caption grammar has no wording for {name} = {word!r}; it knows {known}")
        return [(slot, phrase) for slot, phrases in slots.items() for phrase in phrases]


@lru_cache(maxsize=1)
def load_grammar() -> Grammar:
    """Read the grammar that comes with the package."""
    return Grammar.model_validate_json(GRAMMAR_FILE.read_bytes())


def caption(style: Mapping[str, str], *, seed_text: str, grammar: Grammar) -> str:
    """Word a style in one to five sentences, the same ones on every machine.

    Raises:
        ValueError: The grammar has no wording for a word of the style (say, an event it does not
            know).
    """
    slots = _fill(style, seed_text, grammar)
    if slots["mood"] and _pick(2, seed_text, "mood"):
        slots["voice"] = slots["mood"] + slots["voice"]
        slots["mood"] = []
    near = 1 + _pick(2, seed_text, "with")
    slots["with"], with_opening = slots["with"][near:], slots["with"][:near]
    sentences = [_opening(slots, with_opening, seed_text=seed_text, grammar=grammar)]
    for slot in ("with", *_shuffled(("mood", "than", "sound"), seed_text)):
        if slots[slot]:
            sentences.append(_frame(grammar, slot, seed_text).format(**{slot: _join(slots[slot])}))
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)


def _opening(slots: Mapping[str, Sequence[str]], features: Sequence[str], *, seed_text: str, grammar: Grammar) -> str:
    frame = _frame(grammar, "opening_how" if slots["how"] else "opening", seed_text)
    manner = sorted(slots["how"], key=lambda how: how.count(" "))  # "slowly and in hushed tones"
    opening = frame.format(voice=_noun_phrase(slots["voice"]), how=_join(manner))
    return f"{opening}, with {_join(features)}" if features else opening


def _fill(style: Mapping[str, str], seed_text: str, grammar: Grammar) -> dict[str, list[str]]:
    """Pick a wording for each word of the style, by slot, in an order drawn from the seed."""
    slots: dict[str, list[str]] = {slot: [] for slot in get_args(Slot)}
    for name in _shuffled(style, seed_text):
        for word in style[name].split("+"):
            options = grammar.wordings(name, word)
            slot, phrase = options[_pick(len(options), seed_text, f"{name}={word}")]
            slots[slot].append(phrase)
    return slots


def _pick(count: int, seed_text: str, purpose: str) -> int:
    """0 to count - 1, by a hash: the same on every machine and version of Python."""
    digest = hashlib.blake2b(f"{seed_text}\n{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % count


def _shuffled(names: Iterable[str], seed_text: str) -> list[str]:
    return sorted(names, key=lambda name: (_pick(2**32, seed_text, f"order of {name}"), name))


def _frame(grammar: Grammar, name: str, seed_text: str) -> str:
    frames = grammar.frames[name]
    return frames[_pick(len(frames), seed_text, f"frame of {name}")]


def _join(items: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def _noun_phrase(adjectives: Sequence[str]) -> str:
    phrase = f"{', '.join(adjectives)} voice".strip()
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
