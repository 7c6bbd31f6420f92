"""What `deployments/bootstrap.py` makes on a real server, and that a second time changes nothing."""

import asyncio
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

from deployments.bootstrap import POOLS, ZOMBIES, bootstrap
from tasks.limits import LIMITS, slot


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_bootstrap_makes_pools_limits_and_automation_once() -> None:
    before, after = asyncio.run(_twice())
    assert before == after
    assert before["pools"] == [("fsclap-cpu", "process", 2), ("fsclap-gpu", "process", 1)]
    assert before["automations"] == [ZOMBIES]
    assert before["limits"] == LIMITS | {"fsclap-download": 7}, "a limit changed by hand stays"


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_limit_that_nobody_made_is_an_error_and_not_a_free_pass() -> None:
    with pytest.raises(Exception, match="no-such-limit"), slot("no-such-limit"):
        pass


async def _twice() -> tuple[dict[str, Any], dict[str, Any]]:
    async with get_client() as client:
        await client.update_global_concurrency_limit("fsclap-download", GlobalConcurrencyLimitUpdate(limit=7))
        try:
            return await _state(client), await _state(client)
        finally:
            restored = GlobalConcurrencyLimitUpdate(limit=LIMITS["fsclap-download"])
            await client.update_global_concurrency_limit("fsclap-download", restored)


async def _state(client: Any) -> dict[str, Any]:
    await bootstrap(client)
    pools = [await client.read_work_pool(name) for name in POOLS]
    limits = await client.read_global_concurrency_limits(limit=100, offset=0)
    automations = await client.read_automations()
    return {
        "pools": [(pool.name, pool.type, pool.concurrency_limit) for pool in pools],
        "limits": {limit.name: limit.limit for limit in limits if limit.name.startswith("fsclap-")},
        "automations": [automation.name for automation in automations],
    }
