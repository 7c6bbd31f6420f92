"""What a split is: its settings and its parts, as plain data."""

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fsclap.files import written_aside

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
"""From the least to the most protected."""


class TooSmall(ValueError):  # noqa: N818
    """A corpus, or a part of it, has too few clips to train or to measure on."""


class TooAlike(ValueError):  # noqa: N818
    """A speaker of validation or test sounds like one of training."""


class MixedEmbeddings(ValueError):  # noqa: N818
    """The speaker embeddings of a corpus come from several engines."""


class SplitSettings(BaseModel):
    """How a corpus is split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, description="Seed of the draw of voices")
    validation_share: float = Field(
        0.1,
        gt=0,
        lt=0.5,
        description="Share of the clips that select the best epoch; up to 0.2 in a corpus so small that it would be "
        "fewer than 24 clips",
    )
    test_share: float = Field(
        0.1, gt=0, lt=0.5, description="Share of the clips that nothing is selected by; in a small corpus as above"
    )
    validation_series: tuple[str, ...] = Field(
        (), description="Series of the validation part, as patterns (*, ?); none: draw voices by share"
    )
    test_series: tuple[str, ...] = Field(
        (), description="Series of the test part, as patterns (*, ?); none: draw voices by share"
    )
    voice_similarity: float = Field(
        0.7,
        gt=0,
        le=1,
        description="No two speakers of different parts have mean embeddings with a cosine of this or more. "
        "CAM++: nine in ten pairs of one voice have 0.78 or more, nineteen in twenty of two voices 0.5 or less; lower "
        "is safer, but leaves fewer voices",
    )
    min_train_clips: int = Field(32, ge=2, description="Refuse a corpus with fewer clips to train on")
    min_eval_clips: int = Field(8, ge=2, description="Refuse a corpus with fewer clips to validate or to test on")


class Voice(BaseModel):
    """Speakers of one or several episodes that sound like one person, and the part they are in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: Part
    speakers: list[str]


class Split(BaseModel):
    """The parts of a corpus, as plain data.

    Attributes:
        settings: How it was made.
        train: Utterance ids of the training part, sorted.
        validation: Utterance ids of the validation part, sorted.
        test: Utterance ids of the test part, sorted.
        removed: Utterance id -> why it is in no part.
        voices: All voices of the corpus.
        nearest: For validation and test, `nearest_training_speaker`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: SplitSettings
    train: list[str]
    validation: list[str]
    test: list[str]
    removed: dict[str, str]
    voices: list[Voice]
    nearest: dict[Part, float | None]

    def ids(self, part: Part) -> list[str]:
        """Return the utterance ids of a part."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[part]

    def nearest_training_speaker(self, part: Part) -> float | None:
        """Return the highest cosine between mean embeddings of `part` and of training.

        None for a corpus without speaker embeddings.
        """
        return self.nearest[part]

    @property
    def digest(self) -> str:
        """SHA-256 of the split, 64 hexadecimal digits."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the split, whole or not at all."""
        with written_aside(path) as part:
            part.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Split":
        return cls.model_validate_json(path.read_bytes())
