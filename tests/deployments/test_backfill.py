"""Back-fill on a real server: the hours that were missed, each once."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule

from deployments.backfill import BackfillError, backfill
from flows.refresh_corpus import refresh_corpus

pytestmark = pytest.mark.usefixtures("prefect_server")


async def deployed(name: str, *, active: bool) -> None:
    """Deploy a refresh for every hour."""
    hourly = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 * * * *", timezone="UTC"), active=active)
    async with get_client() as client:
        flow = await client.create_flow(refresh_corpus)
        await client.create_deployment(flow_id=flow, name=name, schedules=[hourly], parameters={"corpus": "x"})


async def filled(name: str, since: datetime) -> list[datetime]:
    async with get_client() as client:
        return await backfill(client, f"refresh-corpus/{name}", since)


def test_missed_hours_get_one_run_each() -> None:
    asyncio.run(deployed("hourly", active=True))
    now = datetime.now(UTC)
    since = now.replace(minute=30, second=0, microsecond=0) - timedelta(hours=5)
    made = asyncio.run(filled("hourly", since))
    full = now.replace(minute=0, second=0, microsecond=0)
    expected = [full - timedelta(hours=hours) for hours in range(6) if full - timedelta(hours=hours) >= since]
    assert len(made) >= 4
    assert made == sorted(expected)
    assert asyncio.run(filled("hourly", since)) == [], "they have their runs now"
    earlier = asyncio.run(filled("hourly", since - timedelta(hours=1)))
    assert earlier == [expected[-1] - timedelta(hours=1)], "and only what is missing is made"


@pytest.mark.parametrize(
    ("name", "ago", "message"),
    [
        ("nowhere", timedelta(days=1), "no deployment refresh-corpus/nowhere"),
        ("paused", timedelta(days=1), "prefect deployment schedule ls refresh-corpus/paused"),
        ("paused", -timedelta(days=1), "not in the past"),
    ],
)
def test_what_cannot_be_filled_is_said(name: str, ago: timedelta, message: str) -> None:
    asyncio.run(deployed("paused", active=False))
    with pytest.raises(BackfillError, match=message):
        asyncio.run(filled(name, datetime.now(UTC) - ago))


def test_a_day_without_a_zone_is_in_utc() -> None:
    from deployments.backfill import _time

    assert _time("2026-11-20") == datetime(2026, 11, 20, tzinfo=UTC)
    assert _time("2026-11-20T03:00+01:00") == datetime(2026, 11, 20, 2, tzinfo=UTC)
