"""Everyday wordings of the words of a style: `wordings.json`, which was reviewed for English.

Those that share a content word with a query of the test set (fsclap.evaluation.natural) stand in
`wordings_held_out.json`: a search reads queries by them too, trainings and evaluations don't.

    attribute -> word -> form -> wordings

The forms say where a wording fits: adj "squeaky", noun "a mouse", adv "at a crawl", with "a pitch
down in the basement", say "keep your voice down", than "higher" (than usual), mood "dejected", sound
"giggling". A wording stands for one word only.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

WORDINGS = Path(__file__).with_name("wordings.json")
HELD_OUT = Path(__file__).with_name("wordings_held_out.json")


class Wording(NamedTuple):
    """One way to say that an attribute has a word."""

    attribute: str
    word: str
    form: str
    phrase: str


@lru_cache(maxsize=1)
def load_wordings() -> tuple[Wording, ...]:
    """Read the wordings that models are trained on and evaluated with."""
    return _read(WORDINGS)


@lru_cache(maxsize=1)
def held_out_wordings() -> tuple[Wording, ...]:
    """Read the wordings that only a search knows."""
    return _read(HELD_OUT)


def _read(file: Path) -> tuple[Wording, ...]:
    tree = json.loads(file.read_text(encoding="utf-8"))
    return tuple(
        Wording(attribute, word, form, phrase)
        for attribute, words in tree.items()
        for word, forms in words.items()
        for form, phrases in forms.items()
        for phrase in phrases
    )
