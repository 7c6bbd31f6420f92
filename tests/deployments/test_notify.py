"""Notifications on a real server: what they are made of, which events they match, and that they arrive."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.server.events.schemas.automations import EventTrigger
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Crashed, Failed, Running, State

from deployments import notify
from deployments.notify import CRASHED, FAILED, MANY_REFUSED, UNPROMOTED, BlockError
from deployments.processes import PREFECT, free_port, process
from flows.refresh_corpus import refresh_corpus
from tasks.indexing import EVALUATED, announce_evaluated
from tasks.outcomes import Committed, EvaluatedModel
from tasks.publish import FEW, REFUSED, tell_refused
from tasks.waiting import RESTARTS

NAMES = [FAILED, CRASHED, MANY_REFUSED, UNPROMOTED]
HOOK = "http://127.0.0.1:9/"


def webhook(url: str) -> CustomWebhookNotificationBlock:
    return CustomWebhookNotificationBlock(
        name="team", url=url, json_data={"subject": "{{subject}}", "body": "{{body}}"}, allow_private_urls=True
    )


async def told(block: str) -> dict[str, EventTrigger]:
    """Make the notifications, and read their triggers back."""
    async with get_client() as client:
        await notify.notify(client, block)
        found = [automation for automation in await client.read_automations() if automation.name in NAMES]
    assert sorted(automation.name for automation in found) == sorted(NAMES), "each once"
    return {each.name: EventTrigger.model_validate(each.trigger.model_dump(mode="json")) for each in found}


@pytest.fixture(scope="module")
def triggers(prefect_server: None) -> Iterator[dict[str, EventTrigger]]:
    webhook(HOOK).save("team")
    asyncio.run(told("custom-webhook/team"))
    yield asyncio.run(told("custom-webhook/team"))

    async def clean() -> None:
        async with get_client() as client:
            for automation in await client.read_automations():
                if automation.name in NAMES:
                    await client.delete_automation(automation.id)

    asyncio.run(clean())


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("slack-webhook/nobody", r"no block slack-webhook/nobody\. Create it .*custom-webhook/team"),
        ("secret/team", "the block secret/team sends no notifications"),
        ("team", "write TYPE/NAME"),
    ],
)
def test_without_a_block_nothing_is_made_and_what_is_there_is_named(
    triggers: dict[str, EventTrigger], block: str, message: str
) -> None:
    Secret(value="x").save("team", overwrite=True)
    with pytest.raises(BlockError, match=message):
        asyncio.run(told(block))


def matching(triggers: dict[str, EventTrigger], event: ReceivedEvent) -> list[str]:
    return [name for name, trigger in triggers.items() if trigger.covers(event)]


async def _event(name: str, resource: str) -> ReceivedEvent:
    """Wait until the server has an event, and read it."""
    query = {"filter": {"event": {"name": [name]}, "resource": {"id": [resource]}}, "limit": 1}
    async with get_client() as client:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if events := (await client.request("POST", "/events/filter", json=query)).json()["events"]:
                return ReceivedEvent.model_validate(events[0])
            await asyncio.sleep(0.1)
    raise AssertionError(f"the server has no {name} of {resource}")


async def _ended(deployment: str, state: State[None], runs: int = 1) -> ReceivedEvent:
    """End a run of a deployment, and read the server's event of that."""
    async with get_client() as client:
        flow = await client.create_flow(refresh_corpus)
        known = await client.create_deployment(flow_id=flow, name=deployment, parameters={"corpus": "x"})
        run = await client.create_flow_run_from_deployment(known)
        for _ in range(runs):
            await client.set_flow_run_state(run.id, Running(), force=True)
        await client.set_flow_run_state(run.id, state, force=True)
    return await _event(f"prefect.flow-run.{state.name}", f"prefect.flow-run.{run.id}")


@pytest.mark.parametrize(
    ("deployment", "state", "runs", "names"),
    [
        ("refresh-corpus", Failed(message="no sources"), 1, [FAILED]),
        ("refresh-corpus", Completed(), 1, []),
        ("refresh-corpus", Crashed(), 1, []),
        ("refresh-corpus", Crashed(), RESTARTS + 1, [CRASHED]),
        ("process-batch", Failed(), 1, []),
    ],
)
def test_a_run_that_needs_somebody_is_told_of_once(
    triggers: dict[str, EventTrigger], deployment: str, state: State[None], runs: int, names: list[str]
) -> None:
    assert matching(triggers, asyncio.run(_ended(deployment, state, runs))) == names


def committed(kept: int, *, found: int = 10, status: str = "kept") -> Committed:
    return Committed(
        source_id="a" * 16, series="Lines", episode="e01", status=status, seconds=60.0, found=found, kept=kept,
        rejected=found - kept, why="" if status == "kept" else "no_speech",
    )  # fmt: skip


def test_much_that_was_refused_is_told_with_its_reasons(triggers: dict[str, EventTrigger]) -> None:
    refused = [committed(0, found=0, status="rejected")] * 4
    tell_refused("data/bad", [*refused, committed(9)], 0.6)
    event = asyncio.run(_event(REFUSED, "fsclap.corpus.bad"))
    assert matching(triggers, event) == [MANY_REFUSED]
    assert event.payload["message"].startswith("80% of 5 episodes and 10% of 10 turns were refused, more than 60%")
    assert "4 x no_speech" in event.payload["message"]
    tell_refused("data/turns", [committed(2)] * FEW, 0.6)
    assert asyncio.run(_event(REFUSED, "fsclap.corpus.turns")).payload["turns"] == pytest.approx(0.8)


@pytest.mark.parametrize("done", [[committed(5)] * FEW, [committed(0, status="failed")] * (FEW - 1), []])
def test_little_that_was_refused_and_few_episodes_are_not_told(
    done: list[Committed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.publish.announce_event", lambda *_, **__: pytest.fail("told"))
    tell_refused("data/good", done, 0.6)


@pytest.mark.parametrize(("promoted", "names"), [(False, [UNPROMOTED]), (True, [])])
def test_only_a_model_that_was_not_promoted_is_told_of(
    triggers: dict[str, EventTrigger], promoted: bool, names: list[str]
) -> None:
    model = f"data/models/told-{promoted}"
    announce_evaluated(
        EvaluatedModel(
            corpus="data/corpus",
            version=1,
            model=model,
            report="r.html",
            leaks=False,
            promoted=promoted,
            reason="worse",
        )
    )
    event = asyncio.run(_event(EVALUATED, f"fsclap.model.told-{promoted}"))
    assert matching(triggers, event) == names


class Hook(BaseHTTPRequestHandler):
    """Somebody's webhook."""

    posted: list[dict[str, Any]] = []  # noqa: RUF012
    arrived = threading.Event()

    def do_POST(self) -> None:
        self.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()
        self.arrived.set()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server whose automations act, unlike that of the session."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    api = f"http://127.0.0.1:{(port := free_port())}/api"
    monkeypatch.setenv("PREFECT_UI_URL", f"http://127.0.0.1:{port}")
    command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("ab") as log, process(command, stdout=log) as server:
        deadline = time.monotonic() + 300
        while not _healthy(api):
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.3)
        with temporary_settings({PREFECT_API_URL: api}):
            yield


def _healthy(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False


@pytest.mark.slow
def test_a_notification_arrives(own_server: None) -> None:
    with HTTPServer(("127.0.0.1", 0), Hook) as hook:
        threading.Thread(target=hook.serve_forever, daemon=True).start()
        webhook(f"http://127.0.0.1:{hook.server_port}/").save("team")
        asyncio.run(told("custom-webhook/team"))
        asyncio.run(_ended("refresh-corpus", Failed(message="no sources to refresh")))
        arrived = Hook.arrived.wait(120)
        hook.shutdown()
    assert arrived
    (posted,) = Hook.posted
    assert posted["subject"].startswith("fsclap: ")
    assert posted["subject"].endswith(" failed")
    assert "no sources to refresh" in posted["body"]
    assert "/runs/flow-run/" in posted["body"]
