"""Makes what prefect.yaml cannot declare: the work pools, the global concurrency limits, the automation that
notices runs whose machine died. Idempotent: run it before every `prefect deploy --all`.

    python -m deployments.bootstrap
"""

import asyncio
import logging
from datetime import timedelta

from prefect.automations import Automation
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from tasks.limits import LIMITS

log = logging.getLogger("fsclap.bootstrap")

POOLS = {"fsclap-cpu": 2, "fsclap-gpu": 1}
"""Name -> runs at once. On the CPU a build and what it triggered may run side by side; they share its cores by the
limit `fsclap-cpu`."""
ZOMBIES = "fsclap: runs without a heartbeat have crashed"
HEARTBEAT = timedelta(seconds=180)
"""Prefect's default `PREFECT_FLOWS_HEARTBEAT_FREQUENCY`; three missed ones mean that the machine is gone."""


async def bootstrap(client: PrefectClient) -> None:
    await make_pools(client)
    await make_limits(client)
    await make_zombie_automation()


async def make_pools(client: PrefectClient) -> None:
    for name, slots in POOLS.items():
        try:
            await client.create_work_pool(WorkPoolCreate(name=name, type="process", concurrency_limit=slots))
        except ObjectAlreadyExists:
            await client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=slots))
        log.info("work pool %s: %d runs at once", name, slots)


async def make_limits(client: PrefectClient) -> None:
    for name, slots in LIMITS.items():
        try:
            await client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=slots))
        log.info("concurrency limit %s", name)


async def make_zombie_automation() -> None:
    """A run that stops sending heartbeats without ending becomes Crashed, and its slots come back."""
    automation = Automation(
        name=ZOMBIES,
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=3 * HEARTBEAT,
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed", state=StateType.CRASHED, message="No heartbeat for nine minutes", force=False
            )
        ],
    )
    try:
        await Automation.aread(name=ZOMBIES)
    except ValueError:
        await automation.acreate()
    log.info("automation %r", ZOMBIES)


async def _main() -> None:
    async with get_client() as client:
        await bootstrap(client)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(_main())
