"""Does the pinned Prefect still need its pins of FastAPI and SQLAlchemy?"""

import asyncio
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.schedules import CronSchedule

from deployments.processes import free_port, process

PATIENCE = 120


@flow
def hello() -> None:
    """Never run; only scheduled."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server as `prefect server start` brings it up: the test harness's has no scheduler."""
    port = free_port()
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("PREFECT_API_DATABASE_CONNECTION_URL", raising=False)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with process(command, stdout=subprocess.DEVNULL):
        api = f"http://127.0.0.1:{port}/api"
        _wait_until_healthy(api)
        yield api


@pytest.mark.slow
def test_a_cron_deployment_yields_a_scheduled_run(server: str) -> None:
    assert asyncio.run(_states_of_scheduled_runs(server)) == {"SCHEDULED"}


def _wait_until_healthy(api: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{api}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail("the server did not start")


async def _states_of_scheduled_runs(api: str) -> set[str]:
    async with PrefectClient(api) as client:
        deployment = await client.create_deployment(
            flow_id=await client.create_flow(hello),
            name="cron",
            schedules=[DeploymentScheduleCreate(schedule=CronSchedule(cron="0 3 * * *"), active=True)],
        )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            states = await _states(client, deployment)
            if states:
                return states
            await asyncio.sleep(0.5)
    return set()


async def _states(client: PrefectClient, deployment: UUID) -> set[str]:
    only = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    return {run.state.type.value for run in await client.read_flow_runs(deployment_filter=only) if run.state}
