"""All that a build can be told, and the digest of the part of it that decides what a row says."""

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fsclap.audio import DecodeSettings
from fsclap.corpus.captioning import CaptioningSettings
from fsclap.corpus.consistency import ConsistencySettings
from fsclap.corpus.diarization import DiarizationSettings
from fsclap.corpus.download import DownloadSettings
from fsclap.corpus.separation import SeparationSettings


class BuildSettings(BaseModel):
    """Settings of a corpus build, stage by stage, in the order of the stages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: Literal["embedded"] = Field(
        "embedded",
        description="Which engines run. embedded: weights from pip packages, no model hub, no GPU.",
    )
    batch_episodes: int = Field(
        12, ge=1, le=200, description="Episodes a task takes at once; 5 to 30 minutes of audio is a good size."
    )
    download: DownloadSettings = Field(default_factory=DownloadSettings)
    decode: DecodeSettings = Field(default_factory=DecodeSettings)
    separation: SeparationSettings = Field(default_factory=SeparationSettings)
    diarization: DiarizationSettings = Field(default_factory=DiarizationSettings)
    consistency: ConsistencySettings = Field(default_factory=ConsistencySettings)
    captioning: CaptioningSettings = Field(default_factory=CaptioningSettings)


def digest(text: str) -> str:
    """16 hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


EXECUTION = {"device", "batch", "parallel", "timeout", "threads"}
"""Settings of how a stage runs. They change its speed and memory, not what it finds."""


def shaping(settings: BaseModel) -> dict[str, object]:
    """The settings of a stage that its output depends on: what its cache key is made from."""
    return settings.model_dump(mode="json", exclude=EXECUTION)
