"""What is said beside an answer: sentences that the page can say in its own language."""

from dataclasses import dataclass, field
from typing import Any

UNREAD = "{part} can't be read and was not used: describe the speech in English."
CUT = "The query is too long: the model did not read its end, {end}."
SLIP = "{typed} is read as {meant}."
GUESS = (
    "{query} is unlike all the ways to describe a voice that are known here, so these clips are little more than a "
    "guess. Say how the voice sounds: high, low, slow, breathy, lively ..."
)
NO_EMOTION = "No clip of this corpus has an emotion, so {word} was not used."
NO_EVENT = "No clip of this corpus has a sound event, so {word} was not used."
NO_WORD = "No clip of this corpus has a word for its {attribute}, so {word} was not used."
NONE_IS = "No clip's {column} is {value}."
NONE_CONTAINS = "No clip's {column} contains {value}."
NONE_IS_BUT = "No clip's {column} is {value}. It has, for instance: {others}."
NONE_CONTAINS_BUT = "No clip's {column} contains {value}. It has, for instance: {others}."


@dataclass(frozen=True)
class Note:
    """One sentence. `str(note)` is the English one.

    Attributes:
        text: One of the texts above, by which a translation is found.
        values: What stands in its braces.
    """

    text: str
    values: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text.format(**self.values)

    def as_json(self) -> dict[str, Any]:
        return {"text": self.text, "values": self.values, "sentence": str(self)}
