"""What each stage of the corpus depends on, declared once per run.

Cache keys, the recipe of a source and the engines named in its rows all read the same declaration. A stage that is
switched off has none.
"""

import platform
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel, ConfigDict

from fsclap.corpus import captioning, diarization, filtering, separation
from fsclap.corpus.captioning.describe import revision
from fsclap.corpus.download import Episode
from fsclap.corpus.filtering.consistency import effective_threshold
from fsclap.corpus.separation.base import SeparationSettings
from fsclap.corpus.settings import BuildSettings
from fsclap.corpus.versions import VERSIONS
from fsclap.ffmpeg import ffmpeg_version
from fsclap.settings import digest, shaping

CORPUS_RATE = 24_000
"""Sample rate, in hertz, of everything the corpus stores (the paper's figure)."""


STAGE_OF = {"decode": "separation"}
"""Part of a stage that refusals name -> the stage."""


class Declared(BaseModel):
    """What the output of a stage depends on, besides its input."""

    model_config = ConfigDict(frozen=True)

    engine: str
    """Name and revision of the weights: "spleeter@2stems-..."."""
    parameters: dict[str, Any]
    version: int
    """Version of the stage's code (`fsclap.corpus.versions`)."""
    decided_by: dict[str, Any] = {}
    """What a refusal depends on besides: versions of programs, limits. Another one gives what was kept unaltered, but
    may keep what was refused."""


class Plan(BaseModel):
    """Resolved settings and what every stage declares: what the tasks of one run share."""

    model_config = ConfigDict(frozen=True)

    settings: BuildSettings
    stages: dict[str, Declared]

    @property
    def threshold(self) -> float:
        """The threshold of Eq. 5 in use, on the scale of the settings."""
        return effective_threshold(self.settings.consistency, self.settings.engine("diarization"))

    def recipe(self, episode: Episode) -> str:
        """Digest of everything that decides what an episode's rows say, known before anything is downloaded."""
        stages = {name: stage.model_dump(mode="json", exclude={"decided_by"}) for name, stage in self.stages.items()}
        return digest({"fingerprint": episode.fingerprint, "stages": stages, "rows": VERSIONS["rows"]})

    def refusal_recipe(self, episode: Episode, stage: str) -> str:
        """Digest of everything that decides that a stage refuses an episode."""
        declared = self.stages.get(STAGE_OF.get(stage, stage))
        if declared is None or not declared.decided_by:
            return self.recipe(episode)
        return digest({"recipe": self.recipe(episode), "decided_by": declared.decided_by})


def declare(settings: BuildSettings, *, device: str | None = None) -> Plan:
    """Load the engines and declare every stage that runs.

    Args:
        settings: Of the build.
        device: Where the engines are loaded, if not on the device of the settings, which other machines have: what
            they declare is the same.

    Raises:
        WeightsError, DeviceError: An engine cannot run. This comes before
            anything is downloaded.
    """
    settings = settings.resolved()
    here = device or settings.device
    separator = separation.load_separator(_in_full(settings.separation) if device else settings.separation, here)
    diarizer = diarization.load_diarizer(settings.diarization, here)
    tagger = captioning.load_tagger(settings.captioning, here)
    scorer = filtering.load_scorer(settings.quality)
    threshold = effective_threshold(settings.consistency, diarizer.name)
    wording = revision(settings.captioning)
    stages: dict[str, tuple[str, dict[str, Any]]] = {
        "download": ("yt-dlp", shaping(settings.download)),
        "separation": (
            f"{separator.name}@{separator.revision}",
            {
                "decode": shaping(settings.decode),
                "separation": shaping(settings.separation),
                "loudness": shaping(settings.loudness),
                "sample_rate": CORPUS_RATE,
            },
        ),
        "diarization": (f"{diarizer.name}@{diarizer.revision}", shaping(settings.diarization)),
        "attributes": ("world", {}),
        "consistency": (
            "eq5",
            {**shaping(settings.consistency), "threshold": threshold, "selection": shaping(settings.selection)},
        ),
        "captioning": (
            f"{settings.engine('captioning')}@{tagger.revision + '+' if tagger else ''}{wording}",
            shaping(settings.captioning),
        ),
    }
    if tagger is not None:
        stages["tagging"] = (f"{tagger.name}@{tagger.revision}", shaping(settings.captioning.sensevoice))
    if scorer is not None:
        stages["quality"] = (f"{scorer.name}@{scorer.revision}", shaping(settings.quality))
    limits = settings.download.limits
    decided_by: dict[str, dict[str, Any]] = {
        "download": {
            "yt-dlp": version("yt-dlp"),
            "private_addresses": settings.download.private_addresses,
            "max_megabytes": limits.max_megabytes,
        },
        "separation": {"ffmpeg": ffmpeg_version(), "timeout": settings.decode.timeout},
    }
    declared = {
        name: Declared(
            engine=engine, parameters=parameters, version=VERSIONS[name], decided_by=decided_by.get(name, {})
        )
        for name, (engine, parameters) in stages.items()
    }
    return Plan(settings=settings, stages=declared)


def _in_full(settings: SeparationSettings) -> SeparationSettings:
    """Return the settings without half precision, which a CPU is refused."""
    return settings.model_copy(update={"demucs": settings.demucs.model_copy(update={"half": False})})


def require_same(own: Plan, other: Plan) -> None:
    """Refuse to work for a build whose stages are not those of this machine: their rows would differ.

    What only decides refusals may differ, such as the version of yt-dlp.

    Raises:
        ValueError: The message names the stages.
    """
    mine, theirs = (
        {name: stage.model_dump(exclude={"decided_by"}) for name, stage in plan.stages.items()} for plan in (own, other)
    )
    differing = [
        f"{name}: {mine.get(name, 'none')} here, {theirs.get(name, 'none')} in the build"
        for name in sorted({*mine, *theirs})
        if mine.get(name) != theirs.get(name)
    ]
    if differing:
        raise ValueError(
            f"the worker on {platform.node()} has other stages than the build ({'; '.join(differing)}): give both the "
            "same release of fsclap and the same weights, then start the build again"
        )
