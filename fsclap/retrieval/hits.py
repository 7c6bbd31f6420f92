"""What a search returns, and the sound of clips."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fsclap.retrieval.words import NOTHING, Match

Sound = Callable[[Sequence[str]], Iterable[tuple[str, bytes]]]
"""Utterance ids -> (id, FLAC file) in any order: `storage.versions.CorpusVersion.audio`."""


@dataclass(frozen=True)
class Hit:
    """A search result.

    Attributes:
        rank: From 1.
        score: What ranked the clip, the higher the better: by the model, the cosine similarity of
            query and clip, -1 to 1; by words, how well its style meets the query, about 1 if it has all
            that is asked for; by both, the sum of the two in standard deviations; NaN for a clip that
            was chosen by hand.
        match: Logit of the matching head for this query and clip; None without re-ranking.
        row: The clip's row in the corpus, without its audio.
        told: What of the query the clip has and lacks; empty if the query is a sound.
    """

    rank: int
    score: float
    match: float | None
    row: dict[str, Any]
    told: Match = NOTHING

    @property
    def why(self) -> tuple[str, ...]:
        """What the query asked for and the clip has."""
        return self.told.has

    @property
    def utterance_id(self) -> str:
        return str(self.row["utterance_id"])

    @property
    def caption(self) -> str:
        return str(self.row["caption"])


@dataclass(frozen=True)
class Description:
    """A caption that fits a clip, with their cosine similarity, -1 to 1."""

    caption: str
    score: float
