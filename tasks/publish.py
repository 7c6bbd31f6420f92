"""Publish a build: artifacts, the corpus card, and the event that starts training."""

import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from prefect import task
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE

from fsclap.corpus.addresses import has_credentials
from fsclap.corpus.settings import BuildSettings
from fsclap.settings import complete
from storage.build_record import Record, change_build, read_announced, write_announced
from storage.card import PAGE, README, data_uri, write_card
from storage.copies import upload
from storage.corpus import Corpus
from storage.objects import Place
from storage.rights import Rights
from tasks import notes
from tasks.declared import Plan
from tasks.events import EventLostError, announce_event
from tasks.outcomes import Committed, Published
from tasks.rights import ALL

log = logging.getLogger("fsclap.tasks")

COMMITTED = "fsclap.corpus.committed"
"""The event of a new corpus version; its payload is a `Published`."""
REFUSED = "fsclap.corpus.refused"
"""The event of a build that refused much; its payload has `corpus` and a `message` (deployments/notify.py)."""
FEW = 5
"""Of fewer episodes a share says nothing: a refresh tries a dead link every night."""


class Progress:
    """The build's progress bar in the UI, in episodes."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._artifact = create_progress_artifact(0.0, key="build-progress", description="Episodes done")

    def update(self, done: int) -> None:
        share = 100.0 * done / self._total if self._total else 100.0
        update_progress_artifact(self._artifact, progress=share)  # type: ignore[arg-type]


@task(task_run_name="publish {corpus}", cache_policy=NO_CACHE, retries=1, timeout_seconds=3600)
def publish(corpus: str, done: list[Committed], plan: Plan) -> Published:
    """Write the corpus card and show this run's outcome as artifacts."""
    table = Corpus.open(corpus)
    # Two builds of one local corpus would overwrite each other's card; in an object store the last one stays.
    with TemporaryDirectory() as scratch, table.lock():
        totals, version = table.totals(), table.version()
        card = write_card(
            table,
            title=f"Emotional speech: {table.place.name}",
            settings=complete(plan.settings),
            threshold=plan.threshold,
            folder=Path(scratch),
        )
        upload(Path(scratch), table.place, last=[README])
        create_markdown_artifact(notes.card_text(card), key="corpus-card", description=f"Card of {corpus}")
        retention = card.plots["retention"].read_bytes() if "retention" in card.plots else None
    create_table_artifact(notes.episodes_table(done), key="build-episodes", description=notes.build_summary(done))
    rejects = notes.rejects_table(table.rejects().to_pylist())
    create_table_artifact(rejects, key="build-rejects", description="Refused so far, by stage and reason")
    if retention is not None:
        create_image_artifact(
            data_uri(retention, "image/png"),
            key="corpus-retention",
            description="Share of turns kept against the threshold of Eq. 5",
        )
    return Published(
        corpus=corpus,
        version=version,
        utterances=totals.turns_kept,
        hours=totals.hours_out,
        changed_sources=sum(row.changed for row in done),
        new=version != read_announced(table) and totals.turns_kept > 0,
        card=f"{table.location}/{PAGE}",
    )


def announce(published: Published) -> None:
    """Emit the event that starts training, once everything is committed and if anything is new."""
    if not published.new:
        log.info("Nothing new: version %d was already announced", published.version)
        return
    announce_event(
        COMMITTED,
        name=published.corpus,
        resource=f"fsclap.corpus.{Place.at(published.corpus).name}",
        payload=published.model_dump(),
    )
    # After the event: a run that dies in between announces again, and training is idempotent.
    write_announced(Corpus.open(published.corpus), published.version)


def tell_refused(corpus: str, done: list[Committed], most: float) -> None:
    """Emit an event if a run refused more than a share of its episodes, or of the turns in them.

    Args:
        corpus: Location of the corpus.
        done: What became of the run's episodes.
        most: The share, 0 to 1.
    """
    shares = notes.refused_shares(done)
    if len(done) < FEW or max(shares.values()) <= most:
        return
    message = notes.refused_text(done, most)
    log.warning("%s: %s", corpus, message)
    try:
        announce_event(
            REFUSED,
            name=corpus,
            resource=f"fsclap.corpus.{Place.at(corpus).name}",
            payload={"corpus": corpus, "message": message, **shares},
        )
    except EventLostError as error:
        log.warning("Nobody is told of it: %s", error)


def _repeatable(settings: BuildSettings) -> BuildSettings:
    """Leave out what was asked of one build alone."""
    limits = settings.download.limits.model_copy(update={"fetch_again": False})
    return settings.model_copy(update={"download": settings.download.model_copy(update={"limits": limits})})


def _plain(rights: Rights | None) -> dict[str, Any]:
    return {} if rights is None else rights.model_dump(mode="json", exclude_none=True)


def remember_build(
    corpus: str,
    sources: list[str],
    work: str,
    settings: BuildSettings,
    rights: Mapping[str, Rights] = MappingProxyType({}),
) -> None:
    """Record the sources and settings in the corpus, so that a refresh can repeat the build.

    An address that contains a password was refused and is left out: it must not be stored.
    """
    table = Corpus.open(corpus)
    sources = [source for source in sources if not has_credentials(source)]
    # What is stated of all sources of this build says nothing of those of other builds.
    own = {source: {**_plain(rights.get(ALL)), **_plain(rights.get(source))} for source in sources}
    stated = {source: row for source, row in own.items() if row}

    def to(known: Record | None) -> Record:
        before = known["sources"] if known else []
        return {
            "sources": list(dict.fromkeys([*before, *sources])),
            "work": work,
            "settings": complete(_repeatable(settings)),
            "rights": {**(known or {}).get("rights", {}), **stated},
        }

    change_build(table, to)
