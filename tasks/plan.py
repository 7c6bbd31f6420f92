"""Plan a build: the episodes that the corpus lacks, or holds by another recipe."""

import logging

from prefect import task
from prefect.cache_policies import NO_CACHE

from fsclap.corpus.download import Episode
from storage.corpus import Corpus
from tasks.batches import Batch, Item, make_batches
from tasks.declared import Plan

log = logging.getLogger("fsclap.tasks")

FINAL = ("kept", "rejected")
"""Outcomes that the same recipe would only repeat; a "failed" source is tried again."""


@task(task_run_name="plan build of {corpus}", cache_policy=NO_CACHE)
def plan_build(listed: list[Item], corpus: str, plan: Plan) -> list[Batch]:
    """Batch the episodes that are new or were made by another recipe; create the corpus if there is none."""
    ledger = Corpus.open(corpus, create=True).ledger()
    unique = list({item.episode.source_id: item for item in reversed(listed)}.values())[::-1]
    to_do = [item for item in unique if not _up_to_date(item.episode, ledger, plan)]
    unlisted = [item for item in to_do if not item.alive]
    batches = make_batches([item.episode for item in to_do if item.alive], plan.settings.batch_episodes)
    log.info(
        "%d sources listed, %d already in %s, %d to do in %d batches",
        len(unique), len(unique) - len(to_do), corpus, len(to_do), len(batches) + bool(unlisted),
    )  # fmt: skip
    return [*([Batch(name="addresses that cannot be used", items=tuple(unlisted))] if unlisted else []), *batches]


def _up_to_date(episode: Episode, ledger: dict[str, dict[str, object]], plan: Plan) -> bool:
    row = ledger.get(episode.source_id)
    return row is not None and row["status"] in FINAL and row["recipe"] == plan.recipe(episode)
