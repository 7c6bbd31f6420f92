"""Makes what prefect.yaml cannot declare: the work pools, the global concurrency limits, the automations that
notice runs whose machine died and start crashed ones again. Idempotent: run it before every `prefect deploy --all`.

    python -m deployments.bootstrap
"""

import asyncio
import logging
from datetime import timedelta
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from tasks.limits import LIMITS

log = logging.getLogger("fsclap.bootstrap")

POOLS = {"fsclap-cpu": 2, "fsclap-gpu": 1}
"""Name -> runs at once. On the CPU a build and what it triggered may run side by side; they take turns by a lock of
the machine (tasks/limits.py)."""
FLOWS = ("build-dataset", "refresh-corpus", "train-fsclap", "evaluate-fsclap", "index-corpus")
LOST = "fsclap: runs that are not heard of have crashed"
CRASHED = "fsclap: crashed runs start again"
SILENCE = timedelta(seconds=120)
"""Four heartbeats of `PREFECT_FLOWS_HEARTBEAT_FREQUENCY` in prefect.yaml: a machine that misses them is gone."""
PAUSE = timedelta(seconds=10)
"""From a crash to the next start; the least that Prefect takes."""
RESTARTS = 3
"""How often a run starts again by itself. One that takes its machine down each time must come to an end."""


async def bootstrap(client: PrefectClient) -> None:
    await make_pools(client)
    await make_limits(client)
    await make_automations(client)


async def make_pools(client: PrefectClient) -> None:
    for name, slots in POOLS.items():
        try:
            await client.create_work_pool(WorkPoolCreate(name=name, type="process", concurrency_limit=slots))
        except ObjectAlreadyExists:
            await client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=slots))
        log.info("work pool %s: %d runs at once", name, slots)


async def make_limits(client: PrefectClient) -> None:
    for name, (slots, decay) in LIMITS.items():
        try:
            found = await client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            wanted = GlobalConcurrencyLimitCreate(name=name, limit=slots, slot_decay_per_second=decay)
            await client.create_global_concurrency_limit(wanted)
        else:
            if not found.slot_decay_per_second:  # of an earlier release, whose slots were held and given back
                changed = GlobalConcurrencyLimitUpdate(slot_decay_per_second=decay, active_slots=0)
                await client.update_global_concurrency_limit(name, changed)
        log.info("concurrency limit %s", name)


async def make_automations(client: PrefectClient) -> None:
    """Made anew when they differ from what is wanted, so that an upgrade reaches a server that has the old ones."""
    for wanted in (lost_runs(), crashed_runs()):
        found = await client.read_automations_by_name(wanted.name)
        same = [one for one in found if _content(one) == _content(wanted)]
        for one in found:
            if one not in same[:1]:
                await client.delete_automation(one.id)
        if not same:
            await client.create_automation(wanted)
        log.info("automation %r", wanted.name)


def lost_runs() -> AutomationCore:
    """A run that stops sending heartbeats without ending becomes Crashed: its machine is gone.

    The same for one that was handed to a worker, or told to stop, and was not heard of again.
    """
    return AutomationCore(
        name=LOST,
        trigger=EventTrigger(
            after={f"prefect.flow-run.{name}" for name in ("heartbeat", "Pending", "Cancelling")},
            expect={"prefect.flow-run.*"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed",
                state=StateType.CRASHED,
                message=f"Not heard of for {SILENCE.total_seconds():g} seconds",
            )
        ],
    )


def crashed_runs() -> AutomationCore:
    """A crashed run starts again by itself, and finds what it left in the work store; a few times, not for ever.

    Not at once: a worker reports a crash twice, and the second report must not hit the run that has started again. A
    run that fails (Failed) met an error of its own, which a second time would not mend.
    """
    return AutomationCore(
        name=CRASHED,
        trigger=EventTrigger(
            after={"prefect.flow-run.Crashed"},
            expect={"prefect.flow-run.*"},
            match={
                "prefect.resource.id": "prefect.flow-run.*",
                "prefect.run-count": [str(count) for count in range(RESTARTS + 1)],
            },
            match_related={"prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS)},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=PAUSE,
        ),
        actions=[
            ChangeFlowRunState(
                name="AwaitingRetry", state=StateType.SCHEDULED, message="It crashed; it goes on where it was"
            )
        ],
    )


def _content(automation: AutomationCore) -> dict[str, Any]:
    return automation.model_dump(mode="json", include={"trigger", "actions"})


async def _main() -> None:
    async with get_client() as client:
        await bootstrap(client)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(_main())
