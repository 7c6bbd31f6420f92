"""Plan a build: the episodes that the corpus lacks, holds by another recipe, or refused for what may have changed."""

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from fsclap.corpus import download as downloads
from fsclap.refusal import Refused
from storage.corpus import Corpus
from storage.erasure import erased_digest, read_erased
from storage.requests import Requests, add_requests, read_requests
from storage.work import WorkStore
from tasks.batches import Batch, Item, make_batches
from tasks.declared import Plan
from tasks.download import download_stage
from tasks.limits import download_slot
from tasks.outputs import DOWNLOAD, DUPLICATE
from tasks.stages import outcome

log = logging.getLogger("fsclap.tasks")


@dataclass(frozen=True)
class _Known:
    """What the corpus knows of its sources."""

    ledger: dict[str, dict[str, Any]]
    refusals: dict[str, tuple[str, str, str]]
    requests: Requests


def recognised(listed: list[Item], corpus: str) -> list[Item]:
    """Give episodes that the corpus knows by the id of an earlier version that id; create the corpus if there is none.

    Otherwise every episode of a feed would be built a second time.
    """
    ledger = Corpus.open(corpus, create=True).ledger()

    def named(item: Item) -> Item:
        episode = item.episode
        if episode.source_id in ledger or episode.earlier_id not in ledger:
            return item
        return item.model_copy(update={"episode": replace(episode, source_id=episode.earlier_id)})

    return [named(item) for item in listed]


@task(task_run_name="plan build of {corpus}", cache_policy=NO_CACHE)
def plan_build(listed: list[Item], corpus: str, work: str, plan: Plan) -> list[Batch]:
    """Batch the episodes to be done.

    Done is what the corpus keeps by this recipe, and what it refused by it, as long as what decided that is the same:
    programs and limits, and for a remote recording the file that its server has.
    """
    table, store = Corpus.open(corpus), WorkStore(work)
    erased = read_erased(table)
    unique = [item for item in _unique(listed) if erased_digest(item.episode.source_id) not in erased]
    with table.lock():
        if plan.settings.download.limits.fetch_again:
            add_requests(table, [item.episode.source_id for item in unique if item.alive], fetch=True)
        known = _Known(table.ledger(), table.refusals(), read_requests(table))
    doubtful = [item for item in unique if item.alive and _may_have_changed(item, known, plan)]
    changed = _changed(doubtful, store, plan)
    to_do = [item for item in unique if item.episode.source_id in changed or not _up_to_date(item, known, plan)]
    to_do = [
        item.model_copy(update={"fetch": item.episode.source_id in changed | known.requests.fetch}) for item in to_do
    ]
    _forget_downloads(to_do, store, plan)
    batches = _batches(to_do, known, plan)
    log.info(
        "%d sources listed, %d already in %s, %d to do in %d batches",
        len(unique), len(unique) - len(to_do), corpus, len(to_do), len(batches),
    )  # fmt: skip
    return batches


@task(task_run_name="plan {batch.name}", cache_policy=NO_CACHE)
def plan_batch(batch: Batch, corpus: str, work: str, plan: Plan) -> Batch:
    """Leave out of a batch what the corpus holds by now; forget the downloads of what is to be fetched again.

    Another build of the corpus may have done a part of it, or the run that had the batch before this one.
    """
    table, store = Corpus.open(corpus), WorkStore(work)
    known = _Known(table.ledger(), table.refusals(), read_requests(table))
    # What was refused is decided again: the build asked its server, and it may have another file by now.
    held = {source for source, row in known.ledger.items() if row["status"] == "kept"}
    items = tuple(
        item for item in batch.items if item.episode.source_id not in held or not _up_to_date(item, known, plan)
    )
    _forget_downloads(items, store, plan)
    log.info("%d of %d episodes of the batch are still to be done", len(items), len(batch.items))
    return batch.model_copy(update={"items": items})


@task(task_run_name="plan orphans of {corpus}", cache_policy=NO_CACHE)
def plan_orphans(listed: list[Item], corpus: str, plan: Plan) -> list[Batch]:
    """Batch the episodes that were refused as duplicates of a recording that the corpus has no more.

    After the others: their twins may have been replaced or refused in this build.
    """
    table = Corpus.open(corpus)
    ledger, refusals = table.ledger(), table.refusals()
    kept = {row["media_sha256"] for row in ledger.values() if row["status"] == "kept"}
    orphans = [
        item
        for item in _unique(listed)
        if item.alive
        and refusals.get(item.episode.source_id, ("", "", ""))[1] == DUPLICATE
        and ledger[item.episode.source_id]["media_sha256"] not in kept
    ]
    if orphans:
        log.info("%d episodes were duplicates of a recording that %s has no more", len(orphans), corpus)
    return _batches(orphans, None, plan)


def _forget_downloads(items: Iterable[Item], store: WorkStore, plan: Plan) -> None:
    for item in items:
        if item.alive and item.fetch:
            store.discard(download_stage(store, plan).step(item))


def _unique(listed: list[Item]) -> list[Item]:
    return list({item.episode.source_id: item for item in reversed(listed)}.values())[::-1]


def _batches(to_do: Iterable[Item], known: _Known | None, plan: Plan) -> list[Batch]:
    asked = frozenset() if known is None else known.requests.all
    items = [item.model_copy(update={"again": item.episode.source_id in asked}) for item in to_do]
    unlisted = tuple(item for item in items if not item.alive)
    batches = make_batches([item for item in items if item.alive], plan.settings.batch_episodes)
    return [*([Batch(name="addresses that cannot be used", items=unlisted)] if unlisted else []), *batches]


def _up_to_date(item: Item, known: _Known, plan: Plan) -> bool:
    episode = item.episode
    row = known.ledger.get(episode.source_id)
    if row is None or episode.source_id in known.requests.all:
        return False
    if row["status"] == "kept":
        return bool(row["recipe"] == plan.recipe(episode))
    if row["status"] != "rejected" or episode.source_id not in known.refusals:
        return False
    stage, reason, _ = known.refusals[episode.source_id]
    if reason == DUPLICATE:
        return bool(row["recipe"] == plan.recipe(episode))
    if stage == DOWNLOAD and reason not in downloads.REASONS_OF_ADDRESSES:
        return False
    return bool(row["recipe"] == plan.refusal_recipe(episode, stage))


def _may_have_changed(item: Item, known: _Known, plan: Plan) -> bool:
    """Whether an episode was refused for the bytes of its file, which its server may have replaced since."""
    stage, reason, _ = known.refusals.get(item.episode.source_id, (DOWNLOAD, "", ""))
    row = known.ledger.get(item.episode.source_id)
    refused = row is not None and row["status"] == "rejected" and stage != DOWNLOAD and reason != DUPLICATE
    return refused and not item.episode.is_local and _up_to_date(item, known, plan)


def _changed(items: list[Item], store: WorkStore, plan: Plan) -> set[str]:
    """Find the episodes whose server has another file than the one that was refused, or does not say."""
    if not items:
        return set()
    with ThreadPoolExecutor(plan.settings.download.limits.parallel) as pool:
        changed = pool.map(lambda item: _is_replaced(item, store, plan), items)
        return {item.episode.source_id for item, other in zip(items, changed, strict=True) if other}


def _is_replaced(item: Item, store: WorkStore, plan: Plan) -> bool:
    step = download_stage(store, plan).step(item)
    before = "" if store.folder(step) is None else outcome(store, step).facts.get("served", "")
    if not before:
        return True
    download_slot()
    try:
        now = downloads.served(item.episode, plan.settings.download)
    except Refused as refused:
        log.info("%s: what its server has now is unknown (%s)", item.episode.locator, refused.reason)
        return False
    if now != before:
        log.info("%s: its server has another file now (%s, not %s)", item.episode.locator, now, before)
    return now != before
