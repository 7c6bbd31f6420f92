"""Create what prefect.yaml cannot declare: work pools, global concurrency limits and automations.

    python -m deployments.bootstrap

Idempotent: run it before every `prefect deploy --all`. One automation marks runs whose machine died
as crashed, the other restarts crashed runs.
"""

import asyncio
import logging
from collections.abc import Iterable
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
from tasks.waiting import RESTARTS

log = logging.getLogger("fsclap.bootstrap")

POOLS = {"fsclap-cpu": 2, "fsclap-gpu": 1, "fsclap-batches": None}
"""Name -> runs at the same time over all workers. On the CPU a build and a flow that it triggered
may run side by side; a lock of the machine (tasks/limits.py) makes them take turns. Batches have a
pool of their own, or builds that wait for them could hold all slots; how many are handed out is a
setting of the build, how many a machine takes an option of its worker."""
FLOWS = (
    "build-dataset", "process-batch", "refresh-corpus", "import-corpus", "train-fsclap", "evaluate-fsclap",
    "compare-systems", "index-corpus",
)  # fmt: skip
LOST = "fsclap: runs without heartbeats have crashed"
NOT_BEGUN = "fsclap: runs that a worker took and did not begin have crashed"
NOT_PLACED = "fsclap: runs that found no place to run have crashed"
CRASHED = "fsclap: restart crashed runs"
SILENCE = timedelta(seconds=120)
"""Four heartbeats at `PREFECT_FLOWS_HEARTBEAT_FREQUENCY` in prefect.yaml: a machine that misses
them is gone."""
PLACING = timedelta(minutes=20)
"""Longest wait for a machine that is started for a run: longer than `pod_watch_timeout_seconds` of
deployments/kubernetes/job-template.json, after which its worker gives up by itself."""
TAKEN = ("Pending", "Submitting", "InfrastructurePending")
"""Names of the states of a run that a worker has taken and not begun."""
PAUSE = timedelta(seconds=10)
"""Time from a crash to the restart; the shortest that Prefect allows."""


async def bootstrap(client: PrefectClient) -> None:
    """Create or update the pools, limits and automations."""
    await make_pools(client)
    await make_limits(client)
    await make_automations(client, [lost_runs(), *unbegun_runs(), crashed_runs()])


async def make_pools(client: PrefectClient) -> None:
    for name, slots in POOLS.items():
        try:
            await client.create_work_pool(WorkPoolCreate(name=name, type="process", concurrency_limit=slots))
        except ObjectAlreadyExists:
            await client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=slots))
        log.info("work pool %s: %s runs at a time", name, slots or "any number of")


async def make_limits(client: PrefectClient) -> None:
    for name, (slots, decay) in LIMITS.items():
        try:
            limit = await client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            new = GlobalConcurrencyLimitCreate(name=name, limit=slots, slot_decay_per_second=decay)
            await client.create_global_concurrency_limit(new)
        else:
            if not limit.slot_decay_per_second:  # made by hand: without decay, its slots never come back
                changed = GlobalConcurrencyLimitUpdate(slot_decay_per_second=decay, active_slots=0)
                await client.update_global_concurrency_limit(name, changed)
        log.info("concurrency limit %s", name)


async def make_automations(client: PrefectClient, automations: Iterable[AutomationCore]) -> None:
    """Create automations, and replace those of the same name whose content is another one."""
    for automation in automations:
        existing = await client.read_automations_by_name(automation.name)
        same = [other for other in existing if _content(other) == _content(automation)]
        for other in existing:
            if other not in same[:1]:
                await client.delete_automation(other.id)
        if not same:
            await client.create_automation(automation)
        log.info("automation %r", automation.name)


def lost_runs() -> AutomationCore:
    """Define the automation that marks a run as Crashed when its heartbeats stop.

    It also covers a run that was cancelled, and sent nothing since.
    """
    return _silent(LOST, ("heartbeat", "Cancelling"), SILENCE)


def unbegun_runs() -> list[AutomationCore]:
    """Define the automations that mark a run as Crashed whose worker took it and died before it began.

    A worker of processes begins a run within seconds. Others may have to wait for a machine, so those have longer.
    """
    processes = {"prefect.resource.role": "work-pool", "prefect.work-pool.type": "process"}
    return [_silent(NOT_BEGUN, TAKEN, SILENCE, match_related=processes), _silent(NOT_PLACED, TAKEN, PLACING)]


def _silent(name: str, after: Iterable[str], within: timedelta, **matches: Any) -> AutomationCore:
    """Define an automation that marks a run as Crashed when nothing more comes after one of some events."""
    return AutomationCore(
        name=name,
        trigger=EventTrigger(
            after={f"prefect.flow-run.{event}" for event in after},
            expect={"prefect.flow-run.*"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
            **matches,
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed",
                state=StateType.CRASHED,
                message=f"It sent nothing for {within.total_seconds():g} seconds",
            )
        ],
    )


def crashed_runs() -> AutomationCore:
    """Define the automation that restarts a crashed run, up to RESTARTS times.

    The restart waits for PAUSE: a worker reports a crash twice, and the second report must not hit
    the restarted run. A Failed run is not restarted: it met an error that a second try would meet
    again.
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
                name="AwaitingRetry", state=StateType.SCHEDULED, message="It crashed; it continues where it stopped"
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
