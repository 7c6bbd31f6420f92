"""Whether a run is outdated: another run of its deployment waits that will do its work, and more.

Deployments take one run at a time and let the others wait. Ten episodes that are committed one by one start ten
trainings, of which the last alone counts; a worker that was away for five nights finds five refreshes of one corpus.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.runtime import deployment, flow_run

log = logging.getLogger("fsclap.tasks")

Parameters = dict[str, Any]
RESTARTS = 3
"""How many times a crashed run restarts by itself (deployments/bootstrap.py). A run that takes its machine down each
time must end at some point."""


def outdated(covers: Callable[[Parameters], bool]) -> bool:
    """Whether a run of this run's deployment waits whose parameters cover this run's; False without a deployment."""
    if not deployment.id:
        return False
    try:
        waiting = waiting_runs(UUID(str(deployment.id)))
    except httpx.HTTPError as error:
        log.warning("The Prefect server does not say what is waiting (%s): going on", error)
        return False
    return any(covers(parameters) for run, parameters in waiting.items() if str(run) != flow_run.id)


def has_ended(run: FlowRun) -> bool:
    """Whether a run is over for good: a crashed one restarts by itself, up to RESTARTS times."""
    if run.state is None or not run.state.is_final():
        return False
    return run.state.name != "Crashed" or run.run_count > RESTARTS


def waiting_runs(deployment_id: UUID) -> dict[UUID, Parameters]:
    """Return the parameters of a deployment's runs that are due and have not started, by the run's id."""
    wanted = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[deployment_id]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED, StateType.PENDING])),
        # Runs of the coming nights are scheduled as well.
        expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
    )
    with get_client(sync_client=True) as client:
        return {run.id: run.parameters for run in client.read_flow_runs(flow_run_filter=wanted, limit=200)}


def later_version(own: Parameters, other: Parameters) -> bool:
    """Whether a waiting training is of a later version of the same corpus, with the same settings.

    Args:
        own: `corpus`, `version`, `models` and `settings` of this run, as its deployment was given them.
        other: Those of the waiting run; without a version it takes the current one.
    """
    same = all(own.get(name) == other.get(name) for name in ("corpus", "models", "settings"))
    if not same or own.get("version") is None:
        return False
    return other.get("version") is None or int(other["version"]) > int(own["version"])
