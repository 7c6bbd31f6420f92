"""What `deployments/bootstrap.py` makes on a real server: once, and kept up to date."""

import asyncio
import inspect
from typing import Any

import prefect.states
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.client.schemas.objects import StateType
from prefect.concurrency.sync import rate_limit

from deployments.bootstrap import CRASHED, LOST, NOT_BEGUN, NOT_PLACED, POOLS, TAKEN, bootstrap, lost_runs
from tasks.limits import DOWNLOADS, LIMITS, download_slot

AUTOMATIONS = sorted([CRASHED, LOST, NOT_BEGUN, NOT_PLACED])
pytestmark = pytest.mark.usefixtures("prefect_server")


def test_bootstrap_makes_pools_limits_and_automations_once() -> None:
    before, after = asyncio.run(_twice())
    assert before == after
    assert before["pools"] == [
        ("fsclap-cpu", "process", 2),
        ("fsclap-gpu", "process", 1),
        ("fsclap-batches", "process", None),
    ]
    assert [name for name, _ in before["automations"]] == AUTOMATIONS
    assert before["limits"] == {DOWNLOADS: 7}, "a limit changed by hand stays"


def test_bootstrap_updates_an_outdated_server() -> None:
    old, new = asyncio.run(_upgraded())
    assert old["automations"] != new["automations"]
    assert [name for name, _ in new["automations"]] == AUTOMATIONS
    download_slot()  # a limit whose slots don't come back is an error


def test_every_state_between_a_worker_and_the_start_of_a_run_is_watched() -> None:
    """A worker that died there would keep the run for ever. Prefect adds such states without saying so."""
    # Each function of prefect.states that makes a state returns it, whatever its name.
    makers = [make for name, make in vars(prefect.states).items() if name[:1].isupper() and inspect.isfunction(make)]
    optional = [make for make in makers if not _required(make)]
    taken = {state.name for state in (make() for make in optional) if state.type == StateType.PENDING}
    assert taken == set(TAKEN)


def _required(function: Any) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [one.name for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD]


def test_a_limit_that_nobody_made_is_an_error_and_not_a_free_pass() -> None:
    with pytest.raises(Exception, match="no-such-limit"):
        rate_limit("no-such-limit", strict=True)


async def _upgraded() -> tuple[dict[str, Any], dict[str, Any]]:
    async with get_client() as client:
        await client.delete_global_concurrency_limit_by_name(DOWNLOADS)
        await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=DOWNLOADS, limit=4))
        (found,) = await client.read_automations_by_name(LOST)
        await client.delete_automation(found.id)
        await client.create_automation(lost_runs().model_copy(update={"description": "old", "actions": []}))
        old = await _found(client)
        return old, await _state(client)


async def _twice() -> tuple[dict[str, Any], dict[str, Any]]:
    async with get_client() as client:
        await client.update_global_concurrency_limit(DOWNLOADS, GlobalConcurrencyLimitUpdate(limit=7))
        try:
            return await _state(client), await _state(client)
        finally:
            restored = GlobalConcurrencyLimitUpdate(limit=LIMITS[DOWNLOADS][0])
            await client.update_global_concurrency_limit(DOWNLOADS, restored)


async def _state(client: Any) -> dict[str, Any]:
    await bootstrap(client)
    return await _found(client)


async def _found(client: Any) -> dict[str, Any]:
    pools = [await client.read_work_pool(name) for name in POOLS]
    limits = await client.read_global_concurrency_limits(limit=100, offset=0)
    automations = await client.read_automations()
    return {
        "pools": [(pool.name, pool.type, pool.concurrency_limit) for pool in pools],
        "limits": {limit.name: limit.limit for limit in limits if limit.name.startswith("fsclap-")},
        "automations": sorted((one.name, one.model_dump_json(include={"trigger", "actions"})) for one in automations),
    }
