"""An event that starts a deployment has arrived when its announcement returns, or is an error."""

import asyncio
import socket

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from tasks import events
from tasks.events import EventLostError, announce_event

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_an_announced_event_is_in_the_database_when_the_call_returns() -> None:
    announce_event("fsclap.test.announced", name="data/corpus", resource="fsclap.test.corpus", payload={"version": 7})
    (found,) = asyncio.run(_events("fsclap.test.announced"))
    assert found["payload"] == {"version": 7}
    assert found["resource"]["prefect.resource.name"] == "data/corpus"


def test_an_unreachable_server_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PATIENCE", 1.0)
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}/api"
        with (
            temporary_settings({PREFECT_API_URL: nowhere, PREFECT_CLIENT_MAX_RETRIES: 0}),
            pytest.raises(EventLostError, match=r"fsclap\.test\.lost for data/corpus within 1 s\. Start the run again"),
        ):
            announce_event("fsclap.test.lost", name="data/corpus", resource="fsclap.test.corpus", payload={})


async def _events(name: str) -> list[dict[str, object]]:
    async with get_client() as client:
        answer = await client.request("POST", "/events/filter", json={"filter": {"event": {"name": [name]}}})
    found: list[dict[str, object]] = answer.json()["events"]
    return found
