"""What a text encoder can't read of a query: other scripts, signs, and what lies beyond its limit."""

import re
import unicodedata
from typing import Any

from tokenizers import Tokenizer

from fsclap.model import embedded
from fsclap.retrieval.index import SearchError
from fsclap.retrieval.notes import CUT, UNREAD, Note

SHOWN_WORDS = 4
"""Words of a part that was cut off, in a note."""
_UNREAD = re.compile("x(?:[x ]*x)?")


class Readable:
    """Tells what a text encoder reads of a query.

    Args:
        encoder: The text encoder of a model. Of one without a tokenizer nothing is known but that
            it reads English.
    """

    def __init__(self, encoder: Any) -> None:
        tokenizer = _tokenizer_of(encoder)
        self._most: int = encoder.max_tokens
        self._tokenizer: Tokenizer | None = None
        if tokenizer is not None:
            # A copy: the settings of the encoder's own change while it is in use elsewhere.
            self._tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            self._unknown = tokenizer.unk_token_id

    def notes(self, query: str) -> list[Note]:
        """Say what of a query is not read.

        Raises:
            SearchError: Nothing of it can be read.
        """
        found = [Note(UNREAD, {"part": repr(part)}) for part in self.unread(query)]
        if rest := self.cut(query):
            words = rest.split()
            start = " ".join(words[:SHOWN_WORDS]) + (" ..." if len(words) > SHOWN_WORDS else "")
            found.append(Note(CUT, {"end": repr(start)}))
        return found

    def unread(self, query: str) -> list[str]:
        """List the parts of a query that can't be read.

        Raises:
            SearchError: Nothing of it can be read.
        """
        return [query[part.start() : part.end()] for part in _UNREAD.finditer(self._marks(query))]

    def kept(self, query: str) -> str:
        """Return a query without the parts that can't be read: an encoder would take them for words.

        Raises:
            SearchError: Nothing of it can be read.
        """
        parts = list(_UNREAD.finditer(self._marks(query)))
        for part in reversed(parts):
            query = f"{query[: part.start()]} {query[part.end() :]}"
        return " ".join(query.split()) if parts else query

    def _marks(self, query: str) -> str:
        """Mark each character as `_mark` does, and as unread also what the encoder doesn't know."""
        marks = [_mark(character) for character in query]
        if self._tokenizer is not None:
            pieces = self._tokenizer.encode(query)
            for number, (start, end) in zip(pieces.ids, pieces.offsets, strict=True):
                if number == self._unknown:
                    # Of "voice" with a sign attached, the sign is unknown.
                    whole = all(mark == "o" for mark in marks[start:end])
                    marks[start:end] = ["o" if mark == "o" and not whole else "x" for mark in marks[start:end]]
        if "o" not in marks:
            raise SearchError(f"{query.strip()!r} can't be read: describe the speech in English")
        return "".join(marks)

    def cut(self, query: str) -> str:
        """Return the end of a query beyond what the encoder takes; empty if it takes all."""
        if self._tokenizer is None:
            return ""
        ends = [end for _, end in self._tokenizer.encode(query).offsets]
        if len(ends) <= self._most:
            return ""
        rest = query[ends[self._most - 2] :].strip()  # the last piece is a mark of the end
        return rest if any(map(str.isalnum, rest)) else ""


def _tokenizer_of(encoder: Any) -> Any:
    """Find the tokenizer of a text encoder; None if it has none that says where its pieces lie."""
    if isinstance(encoder, embedded.SentenceTokens):
        with embedded._LOADING:
            return embedded._sentence_model()[0]
    tokenizer = getattr(encoder, "tokenizer", None)
    return tokenizer if getattr(tokenizer, "is_fast", False) else None


def _mark(character: str) -> str:
    """Return "o" for a letter or digit that can be read, "x" for another, " " for what is neither."""
    if not character.isalnum():
        return " "
    return "o" if character.isascii() or unicodedata.name(character, "").startswith("LATIN") else "x"
