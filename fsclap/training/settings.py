"""How a model is trained. The fields are the form of the flow, with meaning and unit."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fsclap.data.splits import SplitSettings
from fsclap.model.settings import LossSettings, ModelSettings
from fsclap.settings import Folded, OfPreset, execution, of_preset, shaping

PRESETS: Mapping[str, Mapping[str, int | float]] = MappingProxyType(
    {
        # A small model on a CPU, from the starter, on some hundred to some ten thousand clips.
        "embedded": {"epochs": 60, "batch": 96, "accumulate": 1, "head_lr": 3e-4},
        # Section 4.1 of the paper: a larger model, fine-tuned on a thousand times as many clips.
        "clap": {"epochs": 10, "batch": 96, "accumulate": 2, "head_lr": 1e-4},
    }
)
"""`model.encoders` -> the values of settings that are not named."""

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]


class OptimizerSettings(BaseModel):
    """Details of an optimiser step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grad_cache: bool = Field(
        False,
        description="Contrast all pairs of a step, batch x accumulate, in the memory that one batch takes; "
        "every forward pass runs twice (GradCache, Gao et al. 2021)",
    )
    clip_norm: float = Field(1.0, gt=0, description="Largest L2 norm of all gradients; longer ones are scaled to it")
    max_skips: int = Field(
        20, ge=1, description="End the run after so many skipped steps in a row; a step whose loss or gradient is "
        "not finite is skipped"
    )  # fmt: skip


class TextSettings(BaseModel):
    """What texts a clip is trained with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query_share: float = Field(
        0.4,
        ge=0,
        le=1,
        description="Share of the texts that are short queries, drawn anew each time from everyday wordings of the "
        "clip's style, in place of its caption. A clip without a style has its caption alone",
    )
    queries: int = Field(6000, ge=0, description="Different queries to draw from; their text features are cached")

    @property
    def bank(self) -> int:
        """Number of queries that are needed."""
        return self.queries if self.query_share else 0


class ComputeSettings(BaseModel):
    """What the training runs on, and how fast."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    devices: int = Field(1, ge=1, description="Number of GPUs, or of processes on a CPU")
    precision: Precision = Field(
        "auto", description="auto: bf16-mixed on a GPU that supports it, 16-mixed on others, 32-true on a CPU"
    )
    cache_features: Literal["frozen", "all"] = Field(
        "frozen",
        description="Features to keep on disk: of frozen encoders only, or also, as float16, the log-mel of encoders "
        "that are trained (128 kB per 10 s for clap)",
    )
    compile: bool = execution(False, description="Run torch.compile on the model")
    workers: int | None = execution(
        None,
        ge=0,
        description="Processes that load clips; none: 0 if features come from the cache, otherwise one per core, "
        "at most 4",
    )
    checkpoint_minutes: float | None = execution(
        10.0, gt=0, description="Save within an epoch after this many minutes, too; none: only after epochs"
    )
    checkpoint_steps: int | None = execution(
        None, ge=1, description="Save within an epoch every so many steps, too; none: by time alone"
    )


class TrainSettings(BaseModel):
    """A training run. The same settings, corpus version and machine give the same model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: OfPreset[int] = of_preset(
        ge=1, description="Passes over the training part. None: 60; with encoders=clap 10, as in the paper"
    )
    batch: OfPreset[int] = of_preset(
        ge=2,
        description="Pairs that are contrasted with each other, over all devices; a multiple of devices. None: 96",
    )
    accumulate: OfPreset[int] = of_preset(
        ge=1, description="Batches per optimiser step. None: 1; with encoders=clap 2, as in the paper"
    )
    head_lr: OfPreset[float] = of_preset(
        gt=0,
        description="Peak learning rate of fusion, separation, pooling and projection. None: 3e-4; with encoders=clap "
        "1e-4, as in the paper",
    )
    encoder_lr: float = Field(4e-5, ge=0, description="Peak learning rate of encoders that are trained too (clap)")
    init: str = Field(
        "auto",
        description="Weights to start from. starter: the model of the package, which knows the words of the captions. "
        "none: random ones. Or the folder of a trained model. auto: starter, if `model` has its architecture",
    )
    keep: Literal["last", "best"] = Field(
        "last",
        description="last: the weights of the last epoch, when the learning rate has reached zero; if they did worse "
        "than the model it started from, those of the best epoch. best: those of the epoch with the best validation "
        "figure after the warm-up (docs/results.md). Weights that did worse than the start are never kept",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="With keep=best: stop after so many epochs without a better validation figure; none: never",
    )
    seed: int = Field(0, ge=0, description="Seed of the weights, the order of clips, crops and dropout")

    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    texts: Folded[TextSettings] = Field(default_factory=TextSettings, description="What texts a clip is trained with")
    no_negatives_by: Literal["caption", "style_key"] = Field(
        "caption",
        description="Clips that share this are not negatives of each other: their caption, or the style it describes",
    )
    split: Folded[SplitSettings] = Field(
        default_factory=SplitSettings, description="Which clips train, validate and test"
    )

    accelerator: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU if there is one")
    optimizer: Folded[OptimizerSettings] = Field(
        default_factory=OptimizerSettings, description="Details of an optimiser step"
    )
    compute: Folded[ComputeSettings] = Field(
        default_factory=ComputeSettings, description="Devices, precision, loading of clips, checkpoints"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        model = given.get("model") or {}
        encoders = model.get("encoders", "embedded") if isinstance(model, Mapping) else model.encoders
        preset = PRESETS.get(encoders, PRESETS["embedded"])  # the model's own check refuses others
        return {**given, **{name: value for name, value in preset.items() if given.get(name) is None}}

    @model_validator(mode="after")
    def _consistent(self) -> "TrainSettings":
        if self.batch % self.compute.devices:
            raise ValueError(f"batch ({self.batch}) must be a multiple of compute.devices ({self.compute.devices})")
        if self.compute.precision == "16-mixed" and self.accelerator == "cpu":
            raise ValueError("compute.precision=16-mixed needs a GPU: choose bf16-mixed or 32-true")
        if self.patience is not None and self.keep != "best":
            raise ValueError("patience waits for a better validation figure: it needs keep=best")
        if self.loss.research.compat and self.texts.bank:
            raise ValueError("loss.research.compat contrasts captions alone: set texts.query_share=0")
        return self

    def differences(self, other: "TrainSettings") -> list[str]:
        """List the settings that make another model, as "name: this != other"."""
        mine, theirs = flat(shaping(self)), flat(shaping(other))
        return [f"{name}: {mine[name]} != {theirs[name]}" for name in mine if mine[name] != theirs[name]]


def flat(values: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to names with dots: {"model": {"width": 8}} -> {"model.width": 8}."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        result |= flat(value, prefix=f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return result
