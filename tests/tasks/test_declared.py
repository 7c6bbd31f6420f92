"""What a stage depends on is declared once: keys, recipes and rows agree, and execution settings have no part."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from fsclap.corpus import captioning, diarization, filtering, separation
from fsclap.corpus.download import Episode
from fsclap.corpus.separation.base import SeparationSettings, Separator
from fsclap.corpus.settings import BuildSettings
from fsclap.corpus.versions import VERSIONS
from storage.work import WorkStore
from tasks.captioning import captioning_stage
from tasks.commit import _engines
from tasks.consistency import consistency_stage
from tasks.declared import CORPUS_RATE, Plan, declare
from tasks.diarization import diarization_stage
from tasks.download import download_stage
from tasks.measure import attributes_stage, quality_stage
from tasks.separation import separation_stage

EPISODE = Episode("0" * 16, "file:///e01.mp4", "Lines", "e01", "e01", fingerprint="1-2")


def planned(**settings: Any) -> Plan:
    return declare(BuildSettings.model_validate(settings))


@pytest.fixture(scope="module", autouse=True)
def engines_loaded_once() -> Iterator[None]:
    """An engine is loaded once for all the plans that give it equal settings."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (separation, "load_separator"),
            (diarization, "load_diarizer"),
            (captioning, "load_tagger"),
            (filtering, "load_scorer"),
        ):
            patch.setattr(module, name, once_for_equal_settings(getattr(module, name)))
        yield


def once_for_equal_settings(load: Callable[..., Any]) -> Callable[..., Any]:
    loaded: dict[tuple[str, ...], Any] = {}

    def cached(settings: BaseModel, *device: str) -> Any:
        key = (settings.model_dump_json(), *device)
        if key not in loaded:
            loaded[key] = load(settings, *device)
        return loaded[key]

    return cached


@pytest.fixture(scope="module")
def usual() -> Plan:
    return planned()


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"download": {"format": "worst"}}, {"download"}),
        ({"decode": {"min_duration": 1}}, {"separation"}),
        ({"separation": {"speech_only": True}}, {"separation"}),
        ({"loudness": {"target_lufs": -23}}, {"separation"}),
        ({"diarization": {"whisper_campplus": {"min_speaker": 0.5}}}, {"diarization"}),
        ({"consistency": {"threshold": 0.9}}, {"consistency"}),
        ({"selection": {"min_duration": 1}}, {"consistency"}),
        ({"captioning": {"seed": 1}}, {"captioning"}),
        ({"quality": {"engine": "dnsmos"}}, {"quality"}),
    ],
)
def test_a_setting_changes_the_declaration_of_its_stage_alone(
    usual: Plan, settings: dict[str, Any], changed: set[str]
) -> None:
    plan = planned(**settings)
    stages = plan.stages.keys() | usual.stages.keys()
    assert {stage for stage in stages if plan.stages.get(stage) != usual.stages.get(stage)} == changed
    assert plan.recipe(EPISODE) != usual.recipe(EPISODE)


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_episodes": 3},
        {"separation": {"batch": 7, "demucs": {"overlap": 0.5}}},
        {"diarization": {"funasr": {"batch_seconds": 3, "merge_threshold": 0.5}}},
        {"download": {"limits": {"parallel": 1, "timeout": 5, "max_episodes": 3}, "private_addresses": True}},
        {"decode": {"timeout": 5}},
        {"quality": {"threads": 2}},
        {"linking": {"enabled": False}},
    ],
)
def test_execution_settings_and_engines_that_do_not_run_change_nothing(usual: Plan, settings: dict[str, Any]) -> None:
    plan = planned(**settings)
    assert plan.recipe(EPISODE) == usual.recipe(EPISODE)
    for stage, declared in plan.stages.items():
        # What a refusal was decided by says nothing about what is kept.
        assert declared.model_copy(update={"decided_by": usual.stages[stage].decided_by}) == usual.stages[stage]
    assert plan.stages.keys() == usual.stages.keys()


def test_a_machine_without_the_gpu_of_a_build_declares_what_its_workers_declare(
    usual: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves, load = [], separation.load_separator

    def loaded(settings: SeparationSettings, device: str) -> Separator:
        halves.append(settings.demucs.half)
        return load(settings, device)

    monkeypatch.setattr(separation, "load_separator", loaded)
    given = {"device": "cuda", "fan_out": "pool", "separation": {"demucs": {"half": True}}}
    plan = declare(BuildSettings.model_validate(given), device="cpu")
    assert plan.stages == usual.stages
    assert (plan.settings.device, plan.settings.separation.demucs.half) == ("cuda", True)
    assert halves == [False], "which engines refuse on a CPU"


def test_a_changed_file_and_a_raised_version_change_the_recipe(usual: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = Episode("0" * 16, "file:///e01.mp4", "Lines", "e01", "e01", fingerprint="1-3")
    assert usual.recipe(changed) != usual.recipe(EPISODE)
    monkeypatch.setitem(VERSIONS, "attributes", VERSIONS["attributes"] + 1)
    assert planned().recipe(EPISODE) != usual.recipe(EPISODE)


def test_stages_and_rows_carry_what_is_declared(tmp_path: Any) -> None:
    plan, store = planned(quality={"engine": "dnsmos"}), WorkStore(tmp_path)
    makers = [
        download_stage, separation_stage, diarization_stage, attributes_stage, quality_stage, consistency_stage,
        captioning_stage,
    ]  # fmt: skip
    stages = [stage for make in makers if (stage := make(store, plan)) is not None]
    assert {stage.name: stage.declared for stage in stages} == plan.stages
    assert plan.stages["separation"].parameters["sample_rate"] == CORPUS_RATE
    assert plan.stages["consistency"].parameters["threshold"] == plan.threshold
    assert _engines(plan) == {
        f"{stage}_engine": plan.stages[stage].engine for stage in ("separation", "diarization", "captioning")
    }


def test_a_plan_survives_the_way_to_a_task_and_back(usual: Plan) -> None:
    assert Plan.model_validate_json(usual.model_dump_json()) == usual
