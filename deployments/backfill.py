"""Make the runs of a schedule's hours that were missed.

    python -m deployments.backfill refresh-corpus/refresh-corpus --since 2026-11-20

A worker that was away finds the runs of its hours waiting, since Prefect makes them ahead. What is missing after a
schedule was paused, or the server was away for longer than it had made runs ahead, is made by this. Hours that have a
run get no second one.
"""

import argparse
import asyncio
import sys
from datetime import UTC, datetime

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound

MOST = 1000
"""Runs that one call makes, of each schedule; Prefect looks at no more dates."""


class BackfillError(ValueError):
    """There is nothing that could be made."""


async def backfill(client: PrefectClient, deployment: str, since: datetime) -> list[datetime]:
    """Make the missing runs from a time until now, and return their hours.

    Args:
        client: Of the server.
        deployment: "FLOW/NAME".
        since: The time, with its zone.

    Raises:
        BackfillError: The deployment is not there or has no active schedule, or the time is not in the past.
    """
    now = datetime.now(UTC)
    if since >= now:
        raise BackfillError(f"--since {since.isoformat()} is not in the past")
    try:
        found = await client.read_deployment_by_name(deployment)
    except ObjectNotFound:
        raise BackfillError(f"the Prefect server has no deployment {deployment}") from None
    if not any(schedule.active for schedule in found.schedules):
        raise BackfillError(
            f"{deployment} has no active schedule: see `prefect deployment schedule ls {deployment}`, and resume or "
            "create one"
        )
    of_deployment = DeploymentFilter(id=DeploymentFilterId(any_=[found.id]))
    before = {run.id for run in await _runs(client, of_deployment)}
    limits = {"min_runs": MOST, "max_runs": MOST}
    times = {"start_time": since.isoformat(), "end_time": now.isoformat()}
    path = {"id": str(found.id)}
    await client.request("POST", "/deployments/{id}/schedule", path_params=path, json=times | limits)
    made = [run.expected_start_time for run in await _runs(client, of_deployment) if run.id not in before]
    return sorted(time for time in made if time is not None and time <= now)  # Prefect makes runs ahead meanwhile


async def _runs(client: PrefectClient, only: DeploymentFilter) -> list[FlowRun]:
    runs: list[FlowRun] = []
    while page := await client.read_flow_runs(deployment_filter=only, limit=200, offset=len(runs)):
        runs += page
    return runs


def _time(text: str) -> datetime:
    """Read a date, or a date and a time; UTC if it names no zone."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


async def _main(deployment: str, since: datetime) -> list[datetime]:
    async with get_client() as client:
        return await backfill(client, deployment, since)


def main() -> int:
    """Make the runs; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("deployment", help="FLOW/NAME, such as refresh-corpus/refresh-corpus")
    parser.add_argument("--since", type=_time, required=True, help="2026-11-20, or 2026-11-20T03:00+01:00")
    options = parser.parse_args()
    try:
        made = asyncio.run(_main(options.deployment, options.since))
    except BackfillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(time.isoformat(timespec="minutes") for time in made))
    print(f"{len(made)} runs were missing and are due now.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
