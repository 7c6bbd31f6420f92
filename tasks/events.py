"""Events that start other deployments, sent so that none is lost."""

import logging
import time
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.events import emit_event

log = logging.getLogger("fsclap.tasks")

PATIENCE = 60.0
"""Seconds until the server must have an event; it writes what it got every five seconds."""


class EventLostError(RuntimeError):
    """The server did not take an event."""


def announce_event(event: str, *, name: str, resource: str, payload: dict[str, Any]) -> None:
    """Emit an event, and return when the server has written it down.

    Emitting alone only puts it into a queue of this process, and a server that dies with the event in its memory has
    lost it: whoever then notes that it was announced has lost it for good.

    Args:
        event: "fsclap.corpus.committed"
        name: Of the resource, for people.
        resource: Its id, which triggers match.
        payload: What JSON can hold.

    Raises:
        EventLostError: The server did not have it after a minute. Nothing was noted: the next run announces again.
    """
    sent = emit_event(event, resource={"prefect.resource.id": resource, "prefect.resource.name": name}, payload=payload)
    deadline = time.monotonic() + PATIENCE
    while sent is not None and time.monotonic() < deadline:
        if _recorded(sent.id):
            log.info("%s was announced for %s", event, name)
            return
        time.sleep(0.5)
    raise EventLostError(
        f"the Prefect server did not take the event {event} for {name} within {PATIENCE:g} s; start the run again: "
        "what it made is committed, and only the announcement is missing"
    )


def _recorded(event: UUID) -> bool:
    asked = {"filter": {"id": {"id": [str(event)]}}, "limit": 1}
    try:
        with get_client(sync_client=True) as client:
            return bool(client.request("POST", "/events/filter", json=asked).json()["events"])
    except httpx.HTTPError as error:
        log.warning("The Prefect server does not answer (%s); asking again", error)
        return False
