"""From measured attributes to a description: numbers -> words (style) -> caption.

A style holds a word for the pitch and for whatever else is out of the ordinary. An attribute in the
middle of
its range, or not measured, has no word: the style is silent on it, and so is the caption. The
    caption can
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
    """What an emotion engine detects in one clip.

    Attributes:
        emotion: A word of the grammar, or None where the engine gave none or was not sure.
        confidence: Probability of the likeliest emotion, 0 to 1, even if `emotion` is None for
            being unsure; None if there was none.
        events: Words of the grammar, in order of first occurrence.
        language: ISO 639-1 (yue, Cantonese: ISO 639-3); None: unknown, or no speech.
        text: The engine's own transcript; None when it makes none.
    """

    emotion: str | None = None
    confidence: float | None = None
    events: tuple[str, ...] = ()
    language: str | None = None
    text: str | None = None


class EmotionTagger(Protocol):
    """An engine that detects emotion and events, in the words of the caption grammar.

    Attributes:
        name: The engine, as in `CaptioningSettings.engine`.
        revision: Which weights it runs; differs whenever they do.
        sample_rate: The rate of the clips it takes.
    """

    name: str
    revision: str
    sample_rate: Hertz

    def tag(self, clips: Sequence[np.ndarray]) -> list[Tags]:
        """Tag each clip; an engine batches over all of them.

        Args:
            clips: Each (samples,) float32 mono in [-1, 1] at `sample_rate`.

        Returns:
            One `Tags` per clip, in order.
        """
        ...


class SenseVoiceSettings(BaseModel):
    """Emotion, events and language by SenseVoice-Small."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: WeightsSettings = execution(
        WeightsSettings(name="iic/SenseVoiceSmall"), description="Which weights, and where they are."
    )
    language: Literal["auto", "zh", "en", "yue", "ja", "ko"] = Field(
        "auto", description="Language of all speech, if known. auto: detected clip by clip."
    )
    ban_emo_unk: bool = Field(
        True,
        description='Always choose an emotion, even where "unknown" is likelier, as it is for most clips. '
        "min_confidence then decides whether the choice counts.",
    )
    min_confidence: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Probability below which an emotion is dropped. 0.5: likelier than all others together.",
    )
    batch_seconds: float = execution(
        120.0,
        gt=0,
        description="Seconds of speech per batch, padding included. More takes more memory, about 2 MB per second. A "
        "GPU gains from more; a CPU gains nothing above 60.",
    )


class CaptioningSettings(BaseModel):
    """How utterances are described."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["acoustic", "sensevoice"] | None = Field(
        None,
        description="acoustic: captions from measured attributes alone; emotion stays null. sensevoice: emotion and "
        "sound events too, by SenseVoice-Small. None: the profile's (embedded: acoustic, full: "
        "sensevoice).",
    )
    sensevoice: Folded[SenseVoiceSettings] = engine_block(
        "sensevoice", SenseVoiceSettings, "Settings of the engine sensevoice."
    )
    bins: Path | None = Field(
        None, description="JSON file written by Bins.save. None: the reference bins of the package."
    )
    seed: int = Field(0, ge=0, description="Another seed words the same styles differently.")
    rewriter: RewriterSettings | None = Field(
        None, description="Rewrite each caption with a language model. None: leave it as it is."
    )
