"""Of a burst of runs the last one counts."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Completed, Scheduled

from flows.refresh_corpus import refresh_corpus
from flows.train_fsclap import train_fsclap
from tasks import waiting
from tasks.waiting import later_version, waiting_runs

OWN = {"corpus": "data/corpus", "version": 3, "models": "data/models", "settings": {}}


@pytest.mark.parametrize(
    ("other", "later"),
    [
        ({}, False),
        ({"version": 4}, True),
        ({"version": "11"}, True),  # as an event's template writes it
        ({"version": 2}, False),
        ({"version": None}, True),
        ({"version": 4, "corpus": "data/other"}, False),
        ({"version": 4, "settings": {"seed": 1}}, False),
    ],
)
def test_a_training_on_a_later_version_covers_an_earlier_one(other: dict[str, Any], later: bool) -> None:
    assert later_version(OWN, OWN | other) is later


def test_only_runs_that_are_due_and_have_not_started_wait(prefect_server: None) -> None:
    async def schedule() -> tuple[UUID, UUID]:
        async with get_client() as client:
            deployment = await client.create_deployment(
                flow_id=await client.create_flow(refresh_corpus), name="waiting", parameters={}
            )
            now = datetime.now(UTC)
            for state in (Scheduled(scheduled_time=now + timedelta(days=1)), Completed()):
                await client.create_flow_run_from_deployment(deployment, parameters={"corpus": "x"}, state=state)
            due = Scheduled(scheduled_time=now - timedelta(minutes=1))
            run = await client.create_flow_run_from_deployment(deployment, parameters={"corpus": "y"}, state=due)
            return deployment, run.id

    deployment, run = asyncio.run(schedule())
    assert waiting_runs(deployment) == {run: {"corpus": "y"}}


def test_an_outdated_run_ends_before_it_opens_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting.deployment, "id", "0" * 32, raising=False)
    monkeypatch.setattr(waiting.flow_run, "id", "own", raising=False)
    monkeypatch.setattr("flows.train_fsclap.flow_run.parameters", OWN, raising=False)
    monkeypatch.setattr(waiting, "waiting_runs", lambda _: {"other": OWN | {"version": 4}, "own": OWN})
    states = [train_fsclap.fn("/no/such/corpus", 3), refresh_corpus.fn("data/corpus")]
    assert [state.name for state in states] == ["Outdated", "Outdated"]
