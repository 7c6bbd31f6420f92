"""Everyday wordings of the words of a style: `wordings.json`, which was reviewed for English.

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


class Wording(NamedTuple):
    """One way to say that an attribute has a word."""

    attribute: str
    word: str
    form: str
    phrase: str


@lru_cache(maxsize=1)
def load_wordings() -> tuple[Wording, ...]:
    """Read the wordings that come with the package."""
    tree = json.loads(WORDINGS.read_text(encoding="utf-8"))
    return tuple(
        Wording(attribute, word, form, phrase)
        for attribute, words in tree.items()
        for word, forms in words.items()
        for form, phrases in forms.items()
        for phrase in phrases
    )
