"""Slips of the keyboard: words of a query that no one writes, one slip away from a word of the wordings.

A sentence encoder reads "ditcation" in pieces that mean nothing. A slip is a letter too many, too few or
wrong, or two that changed places (optimal string alignment).
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from functools import lru_cache

from rapidfuzz.distance import OSA

from fsclap.queries.wordings import held_out_wordings, load_wordings

SHORTEST = 4
"""Letters of a word that is corrected: of three, most are one slip away from many words."""
_WORD = re.compile(r"[^\W\d_]+")
# What may follow a word that is known, and what stands there of the word itself: "dozes" is "doze".
_ENDINGS = re.compile(r"(?:s|es|ed|ing|ly|y|er)$")


def slips(query: str, known: Collection[str]) -> dict[str, str]:
    """Find the slips of a query: the word as it was typed -> the word that was meant.

    Args:
        query: The query.
        known: Words that exist, in lower case.
    """
    found = {word: _meant(word.lower(), known) for word in _WORD.findall(query)}
    return {word: meant for word, meant in found.items() if meant is not None}


def corrected(query: str, found: Mapping[str, str]) -> str:
    """Replace the slips of a query."""
    return _WORD.sub(lambda word: found.get(word.group(), word.group()), query)


def _meant(word: str, known: Collection[str]) -> str | None:
    if len(word) < SHORTEST or not word.isascii() or _exists(word, known):
        return None
    near = [
        other
        for other in _words()
        if abs(len(other) - len(word)) <= 1 and OSA.distance(word, other, score_cutoff=1) <= 1
    ]
    return max(near, key=lambda other: (other[0] == word[0], _words()[other]), default=None)


def _exists(word: str, known: Collection[str]) -> bool:
    stem = _ENDINGS.sub("", word)
    forms = [word] if stem == word else [word, stem, f"{stem}e", stem[:-1]]
    return any(form in known or form in _words() for form in forms)


@lru_cache(maxsize=1)
def _words() -> Mapping[str, int]:
    """Count the words of the wordings that a slip can be meant for."""
    wordings = load_wordings() + held_out_wordings()
    return Counter(word for one in wordings for word in _WORD.findall(one.phrase.lower()) if len(word) >= SHORTEST)
