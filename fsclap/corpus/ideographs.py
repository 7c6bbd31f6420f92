"""Text in scripts without spaces: Chinese characters and Japanese kana."""

import re
from collections.abc import Iterable

IDEOGRAPHS = r"\u3040-\u30ff\u3400-\u9fff"
"""Kana and Chinese characters, as the inside of a regular expression's character class."""
_MARKS = r"\u3000-\u303f\uff00-\uff65"  # full-width punctuation, whose white space is part of the glyph
_BETWEEN = re.compile(rf"(?<=[{IDEOGRAPHS}])\s+(?=[{IDEOGRAPHS}])")
_SEAM_WITHOUT_SPACE = re.compile(rf"[{_MARKS}]\|.|.\|[{_MARKS}]|[{IDEOGRAPHS}]\|[{IDEOGRAPHS}]", re.DOTALL)


def close_up(text: str) -> str:
    """Remove the spaces between ideographs."""
    return _BETWEEN.sub("", text)


def join(texts: Iterable[str]) -> str:
    """Join sentences with a space, but not between ideographs or at full-width punctuation."""
    joined = ""
    for text in filter(None, texts):
        glued = not joined or _SEAM_WITHOUT_SPACE.match(f"{joined[-1]}|{text[0]}")
        joined += text if glued else f" {text}"
    return joined
