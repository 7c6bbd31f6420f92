"""All that a build can be told, and the digest of the part of it that decides what a row says."""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fsclap.audio import DecodeSettings
from fsclap.corpus.captioning.base import CaptioningSettings
from fsclap.corpus.diarization.base import DiarizationSettings
from fsclap.corpus.download import DownloadSettings
from fsclap.corpus.filtering.consistency import ConsistencySettings
from fsclap.corpus.filtering.quality import QualitySettings
from fsclap.corpus.filtering.selection import SelectionSettings
from fsclap.corpus.linking import LinkingSettings
from fsclap.corpus.separation.base import SeparationSettings
from fsclap.corpus.separation.loudness import LoudnessSettings
from fsclap.weights import WeightsSettings

Profile = Literal["embedded", "full"]

ENGINES: Mapping[Profile, Mapping[str, str]] = MappingProxyType(
    {
        "embedded": {"separation": "spleeter", "diarization": "whisper-resemblyzer", "captioning": "acoustic"},
        "full": {"separation": "demucs", "diarization": "funasr", "captioning": "sensevoice"},
    }
)
"""Profile -> stage -> engine."""


class BuildSettings(BaseModel):
    """Settings of a corpus build, stage by stage, in the order of the stages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: Profile = Field(
        "embedded",
        description="Which engines run where a stage names none. embedded: weights from pip packages, no model hub, "
        "no GPU. full: Demucs, Paraformer with CAM++, SenseVoice; `fsclap models fetch` gets their weights.",
    )
    device: str = Field(
        "cpu", description="Where the engines run, where a stage names no device: cpu, cuda, cuda:1", min_length=1
    )
    batch_episodes: int = Field(
        12, ge=1, le=200, description="Episodes a task takes at once; 5 to 30 minutes of audio is a good size."
    )
    download: DownloadSettings = Field(default_factory=DownloadSettings)
    decode: DecodeSettings = Field(default_factory=DecodeSettings)
    separation: SeparationSettings = Field(default_factory=SeparationSettings)
    loudness: LoudnessSettings = Field(default_factory=LoudnessSettings)
    diarization: DiarizationSettings = Field(default_factory=DiarizationSettings)
    quality: QualitySettings = Field(default_factory=QualitySettings)
    selection: SelectionSettings = Field(default_factory=SelectionSettings)
    consistency: ConsistencySettings = Field(default_factory=ConsistencySettings)
    captioning: CaptioningSettings = Field(default_factory=CaptioningSettings)
    linking: LinkingSettings = Field(default_factory=LinkingSettings)

    @model_validator(mode="after")
    def _quality_is_measured_where_it_decides(self) -> Self:
        if self.selection.min_quality is not None and self.quality.engine == "none":
            raise ValueError(
                f"selection.min_quality={self.selection.min_quality:g} needs turns that are rated: set quality.engine "
                "to dnsmos, or leave selection.min_quality out"
            )
        return self

    @model_validator(mode="after")
    def _every_stage_will_do(self) -> Self:
        if any(getattr(self, stage).engine is None for stage in ENGINES[self.profile]):
            self.resolved()  # for its errors: they are to come when a run is asked for, not when it starts
        return self

    def resolved(self) -> "BuildSettings":
        """The same, with the profile's engine and the build's device where a stage names none.

        Not when the settings are made: a form that is filled in from the defaults would then name the embedded engines,
        whatever profile is chosen in it.
        """
        filled = {
            stage: _filled(getattr(self, stage), engine, self.device) for stage, engine in ENGINES[self.profile].items()
        }
        return BuildSettings.model_validate({**self.model_dump(), **filled})

    def engine(self, stage: Literal["separation", "diarization", "captioning"]) -> str:
        """The engine that runs a stage, as its settings call it.

        Raises:
            ValueError: The settings are not `resolved`.
        """
        chosen: str | None = getattr(self, stage).engine
        if chosen is None:
            raise ValueError(f"{stage}.engine is left to the profile {self.profile}: use settings.resolved()")
        return chosen

    def devices(self) -> set[str]:
        """Where the engines run."""
        return {getattr(self, stage).device or self.device for stage in ENGINES[self.profile]}


def _filled(stage: BaseModel, engine: str, device: str) -> dict[str, Any]:
    chosen = stage.model_dump()
    return {**chosen, "engine": chosen["engine"] or engine, "device": chosen["device"] or device}


def digest(text: str) -> str:
    """16 hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


EXECUTION = {"device", "batch", "batch_seconds", "parallel", "timeout", "threads"}
"""Settings of how a stage runs. They change its speed and memory, not what it finds."""
BLOCKS = {"spleeter", "demucs", "whisper_resemblyzer", "funasr", "acoustic", "sensevoice"}
"""Settings of single engines: one that does not run has no part in the output."""


def shaping(settings: BaseModel) -> dict[str, Any]:
    """The settings of a stage that its output depends on: what its cache key is made from.

    Weights are left out: the engine's revision is a digest of the files themselves, wherever they came from.
    """
    ignored = EXECUTION | (BLOCKS - {_block(getattr(settings, "engine", None))})
    dumped = settings.model_dump(mode="json")
    return {
        name: shaping(value) if isinstance(value, BaseModel) else dumped[name]
        for name, value in settings
        if name not in ignored and not isinstance(value, WeightsSettings)
    }


def weights_in_use(settings: BuildSettings) -> dict[str, WeightsSettings]:
    """What `fsclap models` fetches and checks: setting -> weights, of the engines that run."""
    settings = settings.resolved()
    found = {}
    for stage in ENGINES["full"]:
        chosen = getattr(settings, stage)
        block = _block(chosen.engine)
        for name, value in getattr(chosen, block, None) or ():
            if isinstance(value, WeightsSettings):
                found[f"{stage}.{block}.{name}"] = value
    return found


def _block(engine: str | None) -> str:
    return (engine or "").replace("-", "_")
