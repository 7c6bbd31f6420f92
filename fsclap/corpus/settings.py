"""The settings of a corpus build: the form of build-dataset."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fsclap.corpus.captioning.base import CaptioningSettings
from fsclap.corpus.cluster import NOT_INSTALLED, RaySettings, ray_is_installed
from fsclap.corpus.diarization.base import DiarizationSettings
from fsclap.corpus.download import DownloadSettings
from fsclap.corpus.filtering.consistency import ConsistencySettings
from fsclap.corpus.filtering.quality import QualitySettings
from fsclap.corpus.filtering.selection import SelectionSettings
from fsclap.corpus.linking import LinkingSettings
from fsclap.corpus.separation.base import SeparationSettings
from fsclap.corpus.separation.loudness import LoudnessSettings
from fsclap.media import DecodeSettings
from fsclap.settings import Folded, execution
from fsclap.weights import WeightsSettings

Profile = Literal["embedded", "full"]

FanOut = Literal["none", "pool", "ray"]

EngineStage = Literal["separation", "diarization", "captioning"]

ENGINES: Mapping[Profile, Mapping[EngineStage, str]] = MappingProxyType(
    {
        "embedded": {"separation": "spleeter", "diarization": "whisper-campplus", "captioning": "acoustic"},
        "full": {"separation": "demucs", "diarization": "funasr", "captioning": "sensevoice"},
    }
)
"""Profile -> stage -> engine."""


class DiskSettings(BaseModel):
    """Room for the work files of a build."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    work_files: Literal["keep", "drop"] = execution(
        "keep",
        description="keep: the stages' outputs stay, and another setting computes only what it changes. drop: those of "
        "a recording go when the corpus keeps it.",
    )
    reserve_gb: float = execution(
        5.0,
        ge=0,
        description="Gigabytes that are free on the disk of the work folder before a batch is downloaded: outputs that "
        "were not used for longest go, then the download waits. Twice the videos of a batch is a good size.",
    )


class BuildSettings(BaseModel):
    """Settings of a corpus build, stage by stage, in the order of the stages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: Profile = Field(
        "embedded",
        description="Engines of the stages that name none. embedded: weights from pip packages; needs no model hub "
        "and no GPU. full: Demucs, Paraformer with CAM++, SenseVoice; run `fsclap models fetch` first.",
    )
    device: str = execution("cpu", description="Where the engines run: cpu, cuda or cuda:1.", min_length=1)
    batch_episodes: int = execution(
        12, ge=1, le=200, description="Episodes per task. 5 to 30 minutes of audio per task is a good size."
    )
    fan_out: FanOut = execution(
        "none",
        description="Where batches are processed. none: in the build's own process, one after the other. pool: each as "
        "a run of process-batch, on all workers of its work pool. ray: each as a task of a Ray cluster. With pool and "
        "ray, corpus and sources must be within the reach of all machines.",
    )
    batches_ahead: int = execution(
        16, ge=1, le=200, description="With fan_out, how many batches are handed out at once: two per worker or GPU."
    )
    ray: Folded[RaySettings] = Field(
        default_factory=RaySettings, description="With fan_out=ray: the cluster, and what a batch asks of it."
    )
    refused_percent: float = execution(
        60.0,
        gt=0,
        le=100,
        description="Share of a run's episodes, or of their turns, in percent, above which people are told that much "
        "was refused (deployments/notify.py); of runs of fewer than five episodes they are not.",
    )
    disk: Folded[DiskSettings] = Field(default_factory=DiskSettings, description="Room for the work files.")
    download: DownloadSettings = Field(default_factory=DownloadSettings)
    decode: Folded[DecodeSettings] = Field(
        default_factory=DecodeSettings, description="Which recordings are refused as too short, too long or silent."
    )
    separation: SeparationSettings = Field(default_factory=SeparationSettings)
    loudness: Folded[LoudnessSettings] = Field(
        default_factory=LoudnessSettings, description="Bring all episodes to one loudness. Off by default."
    )
    diarization: DiarizationSettings = Field(default_factory=DiarizationSettings)
    quality: Folded[QualitySettings] = Field(
        default_factory=QualitySettings, description="Rate how clean each turn sounds. Off by default."
    )
    selection: Folded[SelectionSettings] = Field(
        default_factory=SelectionSettings,
        description="Exclude turns by length, language, overlap or quality. Off by default.",
    )
    consistency: Folded[ConsistencySettings] = Field(
        default_factory=ConsistencySettings,
        description="From which similarity to its speaker's other clips a clip is kept: 0.65, as in the paper.",
    )
    captioning: CaptioningSettings = Field(default_factory=CaptioningSettings)
    linking: Folded[LinkingSettings] = Field(
        default_factory=LinkingSettings,
        description="Recognise speakers across the episodes of a series. On by default.",
    )

    @model_validator(mode="after")
    def _quality_is_measured_where_it_decides(self) -> Self:
        if self.selection.min_quality is not None and self.quality.engine == "none":
            raise ValueError(
                f"selection.min_quality={self.selection.min_quality:g} needs turns that are rated: set quality.engine "
                "to dnsmos, or leave selection.min_quality out"
            )
        return self

    @model_validator(mode="after")
    def _ray_can_be_asked(self) -> Self:
        if self.fan_out != "ray":
            return self
        if not ray_is_installed():
            raise ValueError(NOT_INSTALLED)
        if self.device not in ("cpu", "cuda"):
            raise ValueError(
                f"device={self.device}: with fan_out=ray write cpu or cuda, since Ray chooses the GPU of each batch"
            )
        if self.device == "cpu" and self.ray.gpus is not None:
            raise ValueError(f"ray.gpus={self.ray.gpus:g} is for device=cuda: set that, or leave ray.gpus out")
        return self

    @model_validator(mode="after")
    def _check_engines_resolve(self) -> Self:
        if any(getattr(self, stage).engine is None for stage in get_args(EngineStage)):
            self.resolved()  # for its errors: they belong to the request for a run, not to its start
        return self

    def resolved(self) -> "BuildSettings":
        """Copy these settings with the profile's engine in every stage that names none.

        This is not done when the settings are made: a form that is filled in from the defaults
        would then name the embedded engines, whatever profile is chosen in it.
        """
        engines = {stage: self.engine(stage) for stage in get_args(EngineStage)}
        stages = {stage: {**getattr(self, stage).model_dump(), "engine": name} for stage, name in engines.items()}
        return BuildSettings.model_validate({**self.model_dump(), **stages})

    def engine(self, stage: EngineStage) -> str:
        """Return the engine that runs a stage: the one its settings name, else the profile's."""
        named: str | None = getattr(self, stage).engine
        return named or ENGINES[self.profile][stage]


def weights_in_use(settings: BuildSettings) -> dict[str, WeightsSettings]:
    """Map setting to weights, for the engines that run: what `fsclap models` fetches and checks."""
    in_use = {}
    for stage in get_args(EngineStage):
        block = settings.engine(stage).replace("-", "_")
        for name, value in getattr(getattr(settings, stage), block, None) or ():
            if isinstance(value, WeightsSettings):
                in_use[f"{stage}.{block}.{name}"] = value
    return in_use
