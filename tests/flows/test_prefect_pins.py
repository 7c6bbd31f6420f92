"""Does the pinned Prefect still need its pins? Newer FastAPI: no server. Newer SQLAlchemy: no scheduled runs."""

import asyncio
import time
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.schedules import CronSchedule


@flow
def hello() -> None:
    """Never run; only scheduled."""


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_cron_deployment_yields_a_scheduled_run() -> None:
    assert asyncio.run(_states_of_scheduled_runs()) == {"SCHEDULED"}


async def _states_of_scheduled_runs(patience: float = 120) -> set[str]:
    async with get_client() as client:
        deployment = await client.create_deployment(
            flow_id=await client.create_flow(hello),
            name="cron",
            schedules=[DeploymentScheduleCreate(schedule=CronSchedule(cron="* * * * *"), active=True)],
        )
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            states = await _states(client, deployment)
            if states:
                return states
            await asyncio.sleep(1)
    return set()


async def _states(client: object, deployment: UUID) -> set[str]:
    only = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    runs = await client.read_flow_runs(deployment_filter=only)  # type: ignore[attr-defined]
    return {run.state.type.value for run in runs}
