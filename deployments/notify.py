"""Tell people what needs them: automations that send notifications through a block of the Prefect server.

    python -m deployments.notify slack-webhook/team

The block is one of Prefect's for notifications (Slack, Teams, e-mail by SendGrid, PagerDuty, a webhook of your
own, ...), made in the UI under "Blocks". Run it again to use another block. Automations can be switched off in
the UI.
"""

import argparse
import asyncio
import logging
import sys
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from deployments.bootstrap import make_automations
from tasks.indexing import EVALUATED, NOT_PROMOTED, PROMOTION
from tasks.publish import REFUSED
from tasks.waiting import RESTARTS

FAILED = "fsclap: tell that a run failed"
CRASHED = "fsclap: tell that a run crashed too often"
MANY_REFUSED = "fsclap: tell that much was refused"
UNPROMOTED = "fsclap: tell that a model was not promoted"
DEPLOYMENTS = (
    "build-dataset", "refresh-corpus", "import-corpus", "train-fsclap", "evaluate-fsclap", "index-corpus",
    "compare-systems",
)  # fmt: skip
"""Those that people and schedules start. A batch or a cell that fails is reported by the run that waits for it."""
RUN = "{{ flow_run.name }}: {{ flow_run.state.message }}{% if flow_run|ui_url %}\n{{ flow_run|ui_url }}{% endif %}"
"""The link needs PREFECT_UI_URL in the server's environment."""


class BlockError(ValueError):
    """There is no such block, or it sends no notifications."""


async def notify(client: PrefectClient, block: str) -> None:
    """Create the automations, or point them at another block.

    Args:
        client: Of the server.
        block: "TYPE/NAME" of a notification block.

    Raises:
        BlockError: There is no such block, or it sends no notifications.
    """
    await make_automations(client, notifications(await block_id(client, block)))


async def block_id(client: PrefectClient, block: str) -> UUID:
    """Find a notification block.

    Raises:
        BlockError: There is no such block, or it sends no notifications.
    """
    kind, _, name = block.partition("/")
    if not kind or not name:
        raise BlockError(f"{block!r} is no block: write TYPE/NAME, such as slack-webhook/team")
    try:
        found = await client.read_block_document_by_name(name, kind)
    except ObjectNotFound:
        raise BlockError(
            f"the Prefect server has no block {block}. Create it in the UI under Blocks, or with Python: "
            f"`SlackWebhook(url=...).save({name!r})` of prefect.blocks.notifications. {await _known(client)}"
        ) from None
    schema = found.block_schema
    if schema is None or "notify" not in (schema.capabilities or []):
        raise BlockError(f"the block {block} sends no notifications. {await _known(client)}")
    return found.id


async def _known(client: PrefectClient) -> str:
    """Name the blocks of the server that could be used."""
    documents = await client.read_block_documents()
    able = [
        f"{document.block_type.slug}/{document.name}"
        for document in documents
        if document.block_type and document.block_schema and "notify" in (document.block_schema.capabilities or [])
    ]
    return f"Notification blocks that are there: {', '.join(able) or 'none'}"


def notifications(block: UUID) -> list[AutomationCore]:
    """Define the automations that send notifications through a block."""
    of_people = {"prefect.resource.role": "deployment", "prefect.resource.name": list(DEPLOYMENTS)}
    return [
        _automation(
            FAILED,
            EventTrigger(
                expect={"prefect.flow-run.Failed"},
                match={"prefect.resource.id": "prefect.flow-run.*"},
                match_related=of_people,
                posture=Posture.Reactive,
            ),
            block,
            subject="fsclap: {{ flow_run.name }} failed",
            body=RUN,
        ),
        _automation(
            CRASHED,
            EventTrigger(
                expect={"prefect.flow-run.Crashed"},
                # One that crashed less often starts again by itself.
                match={"prefect.resource.id": "prefect.flow-run.*", "prefect.run-count": str(RESTARTS + 1)},
                match_related=of_people,
                posture=Posture.Reactive,
            ),
            block,
            subject="fsclap: {{ flow_run.name }} crashed too often",
            body=f"It does not start again by itself.\n{RUN}",
        ),
        _automation(
            MANY_REFUSED,
            EventTrigger(expect={REFUSED}, match={"prefect.resource.id": "fsclap.corpus.*"}, posture=Posture.Reactive),
            block,
            subject="fsclap: much was refused for {{ event.payload.corpus }}",
            body="{{ event.payload.message }}",
        ),
        _automation(
            UNPROMOTED,
            EventTrigger(
                expect={EVALUATED},
                match={"prefect.resource.id": "fsclap.model.*", PROMOTION: NOT_PROMOTED},
                posture=Posture.Reactive,
            ),
            block,
            subject="fsclap: {{ event.payload.model }} was not promoted",
            body="{{ event.payload.reason }}\nReport: {{ event.payload.report }}",
        ),
    ]


def _automation(name: str, trigger: EventTrigger, block: UUID, *, subject: str, body: str) -> AutomationCore:
    action = SendNotification(block_document_id=block, subject=subject, body=body)
    return AutomationCore(name=name, trigger=trigger, actions=[action])


async def _main(block: str) -> None:
    async with get_client() as client:
        await notify(client, block)


def main() -> int:
    """Create the automations; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("block", help="TYPE/NAME of a notification block, such as slack-webhook/team")
    try:
        asyncio.run(_main(parser.parse_args().block))
    except BlockError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
