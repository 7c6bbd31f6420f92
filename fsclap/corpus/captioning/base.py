"""From measured attributes to a description: numbers -> words (the style) -> sentences (the caption).

A style holds a word for the pitch and for whatever else is out of the ordinary. An attribute in the middle of
its range, or not measured, has no word: the style is silent on it, and so is the caption. The caption can
therefore be read back into its style: two clips share a caption only when they share every word.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fsclap import Hertz
from fsclap.corpus.captioning.rewriter import RewriterSettings
from fsclap.settings import Folded, engine_block, execution
from fsclap.weights import WeightsSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tags:
    """What an emotion engine heard in one clip.

    Attributes:
        emotion: A word of the grammar's; None when the engine did not tell, or was not sure: never a guess.
        confidence: Probability of the emotion that it found likeliest, 0 to 1, also when that is not told; None
            when it found none.
        events: Words of the grammar's, in the order in which they were first heard.
        language: ISO 639-1 (yue, Cantonese: ISO 639-3); None: unknown, or no speech.
        text: The engine's own transcript; None when it makes none.
    """

    emotion: str | None = None
    confidence: float | None = None
    events: tuple[str, ...] = ()
    language: str | None = None
    text: str | None = None


class EmotionTagger(Protocol):
    """An engine that hears emotion and events. Its words are those of the grammar's `emotion` and `events`.

    Attributes:
        name: The engine, as in `CaptioningSettings.engine`.
        revision: Which weights it runs; differs whenever they do.
        sample_rate: The rate it wants its clips at.
    """

    name: str
    revision: str
    sample_rate: Hertz

    def tag(self, clips: Sequence[np.ndarray]) -> list[Tags]:
        """What each clip sounds like; an engine batches over all that it is given.

        Args:
            clips: Each (samples,) float32 mono in [-1, 1] at `sample_rate`.

        Returns:
            One `Tags` a clip, in order.
        """
        ...


class SenseVoiceSettings(BaseModel):
    """Emotion, events and language by SenseVoice-Small."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: WeightsSettings = execution(
        WeightsSettings(name="iic/SenseVoiceSmall"), description="Which weights, and where they are"
    )
    language: Literal["auto", "zh", "en", "yue", "ja", "ko"] = Field(
        "auto", description="Language of all the speech, where it is known; auto: told clip by clip"
    )
    ban_emo_unk: bool = Field(
        True,
        description='Choose among the emotions even where "unknown" is likelier. It is so for most clips; how sure '
        "the choice is, min_confidence judges",
    )
    min_confidence: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Probability below which an emotion is not told. 0.5: it is likelier than all others together",
    )
    batch_seconds: float = execution(
        120.0,
        gt=0,
        description="Seconds of speech, with padding, that go through the network together. Memory grows with it: "
        "some 2 MB a second; a GPU is faster with more, a CPU gains nothing above 60",
    )


class CaptioningSettings(BaseModel):
    """How utterances are described."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["acoustic", "sensevoice"] | None = Field(
        None,
        description="acoustic: from measured attributes alone; the emotion stays null. sensevoice: emotion and events "
        "too, heard by SenseVoice-Small. None: what the profile names (embedded: acoustic, full: sensevoice)",
    )
    sensevoice: Folded[SenseVoiceSettings] = engine_block(
        "sensevoice", SenseVoiceSettings, "What only the engine sensevoice uses"
    )
    bins: Path | None = Field(
        None, description="JSON written by Bins.save; none: the reference bins that come with the package"
    )
    seed: int = Field(0, ge=0, description="Another seed words the same styles otherwise")
    rewriter: RewriterSettings | None = Field(None, description="Rewrites each caption; none: leave it as is")
