"""How a model is trained. The fields are the form of the flow, so each says what it does and in what unit."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fsclap.data.splits import SplitSettings
from fsclap.model.settings import LossSettings, ModelSettings

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]

WITHOUT_EFFECT = frozenset({"workers", "checkpoint_minutes", "checkpoint_steps", "compile"})
"""Settings that may change between a run and its resumption: the model is the same."""


class TrainSettings(BaseModel):
    """A training run. With the same settings, corpus version and machine, it gives the same model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    split: SplitSettings = SplitSettings()
    seed: int = Field(0, ge=0, description="Of the weights, the order of clips, crops and dropout")

    epochs: int = Field(10, ge=1, description="Passes over the training part")
    batch: int = Field(
        96, ge=2, description="Pairs that are contrasted with one another, over all devices; devices divide it"
    )
    accumulate: int = Field(2, ge=1, description="Batches to an optimiser step")
    grad_cache: bool = Field(
        False,
        description="Contrast all pairs of a step, batch x accumulate, in the memory that one batch takes; "
        "every forward pass is done twice (GradCache, Gao et al. 2021)",
    )
    encoder_lr: float = Field(4e-5, ge=0, description="Peak learning rate of encoders that are trained along")
    head_lr: float = Field(1e-4, gt=0, description="Peak learning rate of fusion, separation, pooling and projection")
    weight_decay: float = Field(0.01, ge=0, description="Of AdamW; none on norms, biases and the temperature")
    warmup_epochs: float = Field(1.0, ge=0, description="Epochs in which the learning rate rises, before its cosine")
    clip_norm: float = Field(1.0, gt=0, description="Largest L2 norm of all gradients; longer ones are scaled to it")
    rerank_weight: float = Field(1.0, gt=0, description="Of the matching loss, when model.rerank is on")
    same: Literal["caption", "style_key"] = Field(
        "caption",
        description="Clips that share this are no negatives of one another (loss.mask_same_caption): the words of "
        "the caption, or the style that they describe",
    )

    patience: int | None = Field(
        None, ge=1, description="Stop after so many epochs without a better validation figure; none: never"
    )
    max_skips: int = Field(
        20, ge=1, description="Optimiser steps in a row that may be skipped because a loss or gradient is not finite"
    )

    accelerator: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU when there is one")
    devices: int = Field(1, ge=1, description="GPUs, or processes on a CPU")
    precision: Precision = Field(
        "auto", description="auto: bf16-mixed on a GPU that has it, 16-mixed on another, 32-true on a CPU"
    )
    compile: bool = Field(False, description="torch.compile the model")
    workers: int | None = Field(
        None,
        ge=0,
        description="Processes that load clips; none: 0 when features come from the cache, else one a core, 4 at most",
    )
    cache_features: Literal["frozen", "all"] = Field(
        "frozen",
        description="What is kept on disk: features of frozen encoders, or also the log-mel of encoders that are "
        "trained (128 kB for 10 s of clap)",
    )
    checkpoint_minutes: float | None = Field(10.0, gt=0, description="Also save within an epoch, so often")
    checkpoint_steps: int | None = Field(None, ge=1, description="Also save within an epoch, every so many steps")

    @model_validator(mode="after")
    def _consistent(self) -> "TrainSettings":
        if self.batch % self.devices:
            raise ValueError(f"batch ({self.batch}) must be a multiple of devices ({self.devices})")
        if self.precision == "16-mixed" and self.accelerator == "cpu":
            raise ValueError("precision=16-mixed needs a GPU: choose bf16-mixed or 32-true")
        return self

    def differences(self, other: "TrainSettings") -> list[str]:
        """The settings that make another model, as "name: this != other"."""
        mine, theirs = _flat(self), _flat(other)
        return [f"{name}: {mine[name]} != {theirs[name]}" for name in mine if mine[name] != theirs[name]]


def _flat(settings: BaseModel) -> dict[str, object]:
    found: dict[str, object] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            found |= {f"{name}.{inner}": held for inner, held in _flat(value).items()}
        elif name not in WITHOUT_EFFECT:
            found[name] = value
    return found
