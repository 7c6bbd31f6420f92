"""prefect.yaml against the flows it names: no server needed."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.bootstrap import FLOWS, POOLS, SILENCE
from deployments.local import ENVIRONMENT
from fsclap.environment import SILENT
from tasks.comparing import EVALUATE, TRAIN

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = {d["name"]: d for d in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
CELLS = {"train-cell": "train-fsclap", "evaluate-cell": "evaluate-fsclap"}
"""Other deployments of a flow."""


def flow_of(deployment: dict[str, Any]) -> Any:
    path, name = deployment["entrypoint"].split(":")
    return getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)


def test_the_deployments_are_there() -> None:
    flows = [flow_of(deployment).name for deployment in DEPLOYMENTS.values()]
    assert tuple(dict.fromkeys(flows)) == FLOWS, "and a crashed run of each starts again"


def test_the_cells_of_a_comparison_are_deployments_that_start_nothing_else() -> None:
    assert {f"{flow_of(DEPLOYMENTS[name]).name}/{name}" for name in CELLS} == {TRAIN, EVALUATE}
    for name in CELLS:
        assert not {"triggers", "concurrency_limit", "schedules"} & set(DEPLOYMENTS[name]), "the pool limits them"
    assert DEPLOYMENTS["train-cell"]["parameters"] == {"announce": False}
    assert DEPLOYMENTS["evaluate-cell"]["parameters"] == {"promote": False}
    assert DEPLOYMENTS["compare-systems"]["concurrency_limit"]["limit"] == 1


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_run_sends_four_heartbeats_before_it_counts_as_lost(name: str) -> None:
    every = int(DEPLOYMENTS[name]["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    assert 4 * every == SILENCE.total_seconds()


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_libraries_are_kept_silent_from_the_start_of_a_run(name: str) -> None:
    assert DEPLOYMENTS[name]["work_pool"]["job_variables"]["env"].items() >= SILENT.items()
    assert ENVIRONMENT.items() >= SILENT.items()


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_has_the_name_of_its_flow_and_a_pool_that_bootstrap_makes(name: str) -> None:
    assert flow_of(DEPLOYMENTS[name]).name == CELLS.get(name, name)
    assert DEPLOYMENTS[name]["work_pool"]["name"] in POOLS


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS.keys() - {"process-batch"}))  # which builds give its parameters
def test_parameters_fit_the_flow(name: str) -> None:
    deployment, flow = DEPLOYMENTS[name], flow_of(DEPLOYMENTS[name])
    known = inspect.signature(flow.fn).parameters
    assert set(deployment.get("parameters", {})) <= set(known)
    given = dict(deployment.get("parameters", {}))
    if name in CELLS and "model" in known:
        given["model"] = "somewhere"  # what compare-systems names
    for trigger in deployment.get("triggers", []):
        assert set(trigger["parameters"]) <= set(known)
        given |= {name: 8 if name == "version" else "somewhere" for name in trigger["parameters"]}
    assert flow.validate_parameters(given)


def test_a_deployment_has_no_settings_of_its_own() -> None:
    """A run's settings replace the deployment's as a whole: whoever sets a seed must not lose the rest."""
    settings = DEPLOYMENTS["train-fsclap"]["parameters"]["settings"]
    flow = flow_of(DEPLOYMENTS["train-fsclap"])
    assert flow.validate_parameters({"settings": settings}) == flow.validate_parameters({"settings": {}})
    assert not any(
        "settings" in deployment.get("parameters", {})
        for name, deployment in DEPLOYMENTS.items()
        if name != "train-fsclap"
    )


def test_the_triggers_expect_the_events_that_the_tasks_emit() -> None:
    from tasks.indexing import EVALUATED
    from tasks.outcomes import EvaluatedModel, Published, TrainedModel
    from tasks.publish import COMMITTED
    from tasks.training import TRAINED

    (train,) = DEPLOYMENTS["train-fsclap"]["triggers"]
    (evaluate,) = DEPLOYMENTS["evaluate-fsclap"]["triggers"]
    (index,) = DEPLOYMENTS["index-corpus"]["triggers"]
    assert train["expect"] == [COMMITTED]
    assert evaluate["expect"] == [TRAINED]
    assert index["expect"] == [EVALUATED]
    for trigger, payload in ((train, Published), (evaluate, TrainedModel), (index, EvaluatedModel)):
        named = {
            template.removeprefix("{{ event.payload.").removesuffix(" }}")
            for template in trigger["parameters"].values()
        }
        assert named - {"models"} <= set(payload.model_fields)
    assert evaluate["match"] == index["match"] == {"prefect.resource.id": "fsclap.model.*"}
