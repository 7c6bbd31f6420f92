"""Sources that people paused: builds and refreshes skip them, and say so, until they are taken off the list.

The list is a variable of the Prefect server, so it holds for every worker, and is edited in the UI or with
`prefect variable set fsclap_paused_sources '["https://example.org/feed.xml"]' --overwrite`.
"""

import logging
import os
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from prefect.artifacts import create_markdown_artifact
from prefect.variables import Variable

from fsclap.corpus.addresses import redact
from storage.card import escape_markdown
from tasks.batches import Item

log = logging.getLogger("fsclap.tasks")

VARIABLE = "fsclap_paused_sources"


class PausedListError(ValueError):
    """The variable holds something else than a list of sources."""


def paused_sources() -> frozenset[str]:
    """Return the sources that are paused: addresses, files and folders, without a slash at their end.

    Raises:
        PausedListError: The variable holds something else.
    """
    paused: object = Variable.get(VARIABLE, default=[])
    if not isinstance(paused, list) or not all(isinstance(source, str) for source in paused):
        raise PausedListError(
            f'the Prefect variable {VARIABLE} has to be a list of sources, such as ["https://example.org/feed.xml"]; '
            f"it is {paused!r}. Correct it in the UI under Variables"
        )
    return frozenset(_plain(source) for source in paused)


def is_paused(source: str, paused: frozenset[str]) -> bool:
    """Whether a source that a build names is on the list."""
    return _plain(source) in paused


def without_paused(listed: Sequence[Item], paused: frozenset[str]) -> tuple[list[Item], list[str]]:
    """Leave out single episodes that are on the list, of sources that are not; and return their addresses."""
    skipped = [item.episode.locator for item in listed if _of(item) & paused]
    return [item for item in listed if not _of(item) & paused], skipped


def show_paused(skipped: Sequence[str]) -> None:
    """Show what was skipped as an artifact of the run; nothing if nothing was."""
    if skipped:
        log.warning("%d sources are paused, and skipped", len(skipped))
        lines = [f"- {escape_markdown(redact(source))}" for source in skipped]
        create_markdown_artifact(
            f"# Paused\n\nSkipped, since the variable `{VARIABLE}` has them:\n\n" + "\n".join(lines),
            key="build-paused",
            description=f"{len(skipped)} paused sources were skipped",
        )


def _of(item: Item) -> set[str]:
    episode = item.episode
    return {_plain(address) for address in (episode.locator, episode.address) if address}


def _plain(source: str) -> str:
    """Return one form for the ways to name a source: a path for a file: URI, no slash at the end."""
    if source.startswith("file:///"):
        source = os.fsdecode(unquote_to_bytes(source.removeprefix("file://")))
    return source.rstrip("/") or source
