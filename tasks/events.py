"""Send the events that start other deployments, so that none is lost."""

import logging
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.events import emit_event

log = logging.getLogger("fsclap.tasks")

PATIENCE = 60.0
"""Seconds until the server must have recorded an event; it writes every five seconds."""


class EventLostError(RuntimeError):
    """The server did not record an event."""


def announce_event(
    event: str, *, name: str, resource: str, payload: dict[str, Any], labels: Mapping[str, str] | None = None
) -> None:
    """Emit an event, and return when the server has written it down.

    Emitting alone only queues it in this process, and a server that dies with the event in memory loses it. A caller
    that had already recorded the announcement would then lose it for good.

    Args:
        event: "fsclap.corpus.committed"
        name: The resource's name, for people.
        resource: The resource's id, which triggers match.
        payload: JSON values.
        labels: What else triggers can match; they do not see the payload.

    Raises:
        EventLostError: The server did not have it after a minute. Nothing was recorded: the next run announces again.
    """
    described = {"prefect.resource.id": resource, "prefect.resource.name": name, **(labels or {})}
    sent = emit_event(event, resource=described, payload=payload)
    deadline = time.monotonic() + PATIENCE
    while sent is not None and time.monotonic() < deadline:
        if _recorded(sent.id):
            log.info("%s was announced for %s", event, name)
            return
        time.sleep(0.5)
    raise EventLostError(
        f"the Prefect server did not record the event {event} for {name} within {PATIENCE:g} s. Start the run again: "
        "its output is committed, only the announcement is missing"
    )


def _recorded(event: UUID) -> bool:
    query = {"filter": {"id": {"id": [str(event)]}}, "limit": 1}
    try:
        with get_client(sync_client=True) as client:
            return bool(client.request("POST", "/events/filter", json=query).json()["events"])
    except httpx.HTTPError as error:
        log.warning("The Prefect server does not answer (%s); asking again", error)
        return False
