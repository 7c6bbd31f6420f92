"""What `deployments/bootstrap.py` makes on a real server: once, and kept up to date."""

import asyncio
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.concurrency.sync import rate_limit

from deployments.bootstrap import CRASHED, LOST, POOLS, bootstrap, lost_runs
from tasks.limits import DOWNLOADS, LIMITS, download_slot

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_bootstrap_makes_pools_limits_and_automations_once() -> None:
    before, after = asyncio.run(_twice())
    assert before == after
    assert before["pools"] == [
        ("fsclap-cpu", "process", 2),
        ("fsclap-gpu", "process", 1),
        ("fsclap-batches", "process", None),
    ]
    assert [name for name, _ in before["automations"]] == sorted([CRASHED, LOST])
    assert before["limits"] == {DOWNLOADS: 7}, "a limit changed by hand stays"


def test_bootstrap_updates_an_outdated_server() -> None:
    old, new = asyncio.run(_upgraded())
    assert old["automations"] != new["automations"]
    assert [name for name, _ in new["automations"]] == sorted([CRASHED, LOST])
    download_slot()  # a limit whose slots don't come back is an error


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
