"""The form of train-fsclap: short, in order, and clear about what does not change the model."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from fsclap.settings import is_execution, shaping
from fsclap.training.settings import ComputeSettings, OptimizerSettings, TrainSettings, flat


def marked(model: type[BaseModel]) -> set[str]:
    return {name for name, field in model.model_fields.items() if is_execution(field)}


def test_only_speed_and_patience_leave_the_model_as_it_is() -> None:
    assert marked(ComputeSettings) == {"compile", "workers", "checkpoint_minutes", "checkpoint_steps"}
    assert marked(TrainSettings) == marked(OptimizerSettings) == set()
    assert not any(name in marked(ComputeSettings) for name in shaping(TrainSettings())["compute"])


def test_differences_are_those_that_make_another_model() -> None:
    settings = TrainSettings()
    faster = TrainSettings(compute=ComputeSettings(workers=3, compile=True))
    assert settings.differences(faster) == []
    assert TrainSettings(compute=ComputeSettings(precision="bf16-mixed"), seed=1).differences(faster) == [
        "seed: 1 != 0",
        "compute.precision: bf16-mixed != auto",
    ]


def test_a_folded_group_left_closed_is_its_defaults() -> None:
    given: Any = {"optimizer": None, "compute": None, "split": None, "loss": {"research": None}}
    assert TrainSettings(**given) == TrainSettings()


def test_names_have_dots() -> None:
    assert flat({"model": {"width": 8}, "seed": 0}) == {"model.width": 8, "seed": 0}


def test_settings_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"batch \(9\) must be a multiple of compute.devices \(2\)"):
        TrainSettings(batch=9, compute=ComputeSettings(devices=2))
    with pytest.raises(ValidationError, match="needs a GPU"):
        TrainSettings(accelerator="cpu", compute=ComputeSettings(precision="16-mixed"))
