"""Which turns are fit for the corpus, by length, language, overlap and quality.

It comes first, so that what is left out has no vote in its speaker's mean: two voices at once, or a
voice under noise, would pull it away from the speaker's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fsclap import Seconds
from fsclap.corpus.turns import Turn


class SelectionSettings(BaseModel):
    """Which turns go on. All of it is off by default: Eq. 5 alone decides, as in the paper."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_duration: Seconds | None = Field(
        default=None,
        ge=0,
        description="Seconds; shorter turns are excluded (too_short). Unlike diarization.min_turn it changes no other "
        "turn. 1 or 2 excludes interjections, whose style is hard to describe and whose speaker embedding "
        "is unreliable.",
    )
    max_duration: Seconds | None = Field(
        default=None,
        gt=0,
        description="Seconds; longer turns are excluded (too_long). diarization.max_turn instead cuts long turns at "
        "their pauses and loses nothing. Useful for style prompts of a few seconds.",
    )
    languages: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Language codes to keep (zh, en, ja, ko, yue). Turns in another language are excluded "
        "(other_language), as are turns of unknown language (unknown_language). None: all. Needs an "
        "engine that detects the language, or diarization.language.",
    )
    max_overlap: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Largest share of a turn in which another speaker also speaks; above it the turn is excluded "
        "(overlapping_speech). None: any. 0.1 or 0.2 keeps clips to one voice. No effect with "
        "an engine that does not measure it.",
    )
    min_quality: float | None = Field(
        default=None,
        ge=1,
        le=5,
        description="Lowest overall quality (OVRL, 1 to 5); turns below it are excluded (low_quality). None: any. "
        "Needs quality.engine. Look at the scores of a first build before choosing it: shouting and "
        "crying score lower than calm speech in the same recording.",
    )

    @model_validator(mode="after")
    def _some_duration_is_left(self) -> Self:
        if self.min_duration is not None and self.max_duration is not None and self.min_duration > self.max_duration:
            raise ValueError(f"min_duration {self.min_duration:g} is above max_duration {self.max_duration:g}")
        return self


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Why a turn is left out.

    Attributes:
        reason: `too_short`, `too_long`, `overlapping_speech`, `unknown_language`, `other_language`
            or `low_quality`.
        detail: The same in a sentence.
    """

    reason: str
    detail: str


def select(
    turns: Sequence[Turn],
    *,
    languages: Sequence[str | None],
    qualities: Sequence[float | None],
    settings: SelectionSettings,
) -> list[Exclusion | None]:
    """Decides for each turn of one recording whether it goes on.

    Args:
        turns: All turns that diarization found in the recording.
        languages: Code of each turn's language, or None where no engine detects it.
        qualities: Overall quality of each turn, or None where it was not rated.
        settings: What is left out.

    Returns:
        For each turn, why it is left out, or None: it goes on. Of several reasons, the first in the
        order of `Exclusion`.

    Raises:
        ValueError: `min_quality` is set and a turn was not rated.
    """
    checked = zip(turns, overlaps(turns), languages, qualities, strict=True)
    return [
        _duration(turn, settings)
        or _overlap(overlap, settings)
        or (_language(language, settings) if turn.kind == "speech" else None)
        or _quality(quality, settings)
        for turn, overlap, language, quality in checked
    ]


def overlaps(turns: Sequence[Turn]) -> list[float | None]:
    """Share of each turn, 0 to 1, in which another speaker also speaks; None where nothing measures it.

    It is what the diarization engine says (`Turn.overlap`) or the share that turns of other
    speakers cover, whichever is more.
    """
    starts = np.array([turn.start for turn in turns])
    ends = np.array([turn.end for turn in turns])
    speakers = np.array([turn.speaker for turn in turns])
    found: list[float | None] = []
    for turn in turns:
        others = (speakers != turn.speaker) & (starts < turn.end) & (ends > turn.start)
        spans = np.stack([starts[others].clip(min=turn.start), ends[others].clip(max=turn.end)], axis=1)
        covered = _length_of_union(spans[np.argsort(spans[:, 0])])
        shares = [turn.overlap, covered / turn.duration if covered else None]
        found.append(max((share for share in shares if share is not None), default=None))
    return found


def _length_of_union(spans: np.ndarray) -> Seconds:
    """Length of the union of (n, 2) spans, sorted by start."""
    if not len(spans):
        return 0.0
    reached = np.maximum.accumulate(spans[:, 1])
    before = np.concatenate([spans[:1, 0], reached[:-1]])
    return float((reached - np.maximum(spans[:, 0], before)).clip(min=0).sum())


def _duration(turn: Turn, settings: SelectionSettings) -> Exclusion | None:
    if settings.min_duration is not None and turn.duration < settings.min_duration:
        detail = f"{turn.duration:.2f} s are less than selection.min_duration = {settings.min_duration:g} s"
        return Exclusion("too_short", detail)
    if settings.max_duration is not None and turn.duration > settings.max_duration:
        detail = f"{turn.duration:.2f} s are more than selection.max_duration = {settings.max_duration:g} s"
        return Exclusion("too_long", detail)
    return None


def _overlap(overlap: float | None, settings: SelectionSettings) -> Exclusion | None:
    if settings.max_overlap is None or overlap is None or overlap <= settings.max_overlap:
        return None
    detail = (
        f"another speaker speaks in {overlap:.0%} of it, more than selection.max_overlap = {settings.max_overlap:g}"
    )
    return Exclusion("overlapping_speech", detail)


def _language(language: str | None, settings: SelectionSettings) -> Exclusion | None:
    if settings.languages is None or language in settings.languages:
        return None
    listed = ", ".join(settings.languages)
    if language is None:
        detail = f"no engine detected its language, and selection.languages asks for {listed}"
        return Exclusion("unknown_language", detail)
    return Exclusion("other_language", f"it is in {language}, and selection.languages asks for {listed}")


def _quality(quality: float | None, settings: SelectionSettings) -> Exclusion | None:
    if settings.min_quality is None:
        return None
    if quality is None:
        raise ValueError(
            f"selection.min_quality is {settings.min_quality:g}, but the turns were not rated: set quality.engine to "
            "dnsmos, or selection.min_quality to None"
        )
    if quality >= settings.min_quality:
        return None
    return Exclusion("low_quality", f"quality {quality:.2f} is below selection.min_quality = {settings.min_quality:g}")
