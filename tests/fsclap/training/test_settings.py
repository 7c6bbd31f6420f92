"""The form of train-fsclap: short, in order, and clear about what does not change the model."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from fsclap.settings import is_execution, shaping
from fsclap.training.settings import PRESETS, ComputeSettings, OptimizerSettings, TrainSettings, flat


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


def test_settings_given_in_part_change_a_part() -> None:
    """Prefect replaces the deployment's settings as a whole by those of a run."""
    usual, seeded = TrainSettings(), TrainSettings(seed=1)
    assert seeded.differences(usual) == ["seed: 1 != 0"]
    assert (usual.epochs, usual.batch, usual.accumulate, usual.head_lr) == (60, 96, 1, 3e-4)
    paper = TrainSettings.model_validate({"head_lr": None, "model": {"encoders": "clap"}})
    assert (paper.epochs, paper.batch, paper.accumulate, paper.head_lr) == (10, 96, 2, 1e-4)
    assert TrainSettings(model=paper.model, epochs=3).differences(paper) == ["epochs: 3 != 10"]
    assert TrainSettings.model_validate_json(paper.model_dump_json()) == paper
    with pytest.raises(ValidationError, match=r"model\.encoders"):
        TrainSettings.model_validate({"model": {"encoders": "claps"}})


def test_a_form_that_is_filled_in_from_the_defaults_leaves_the_preset_its_say() -> None:
    properties = TrainSettings.model_json_schema()["properties"]
    assert {name: properties[name]["default"] for name in PRESETS["clap"]} == dict.fromkeys(PRESETS["clap"])
