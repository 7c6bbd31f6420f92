"""Video downloading (section 3.3): list the episodes behind an address and fetch them."""

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from prefect.runtime import task_run
from prefect.tasks import exponential_backoff

from fsclap.corpus import download as downloads
from fsclap.corpus.addresses import redact
from fsclap.corpus.download import DownloadSettings, Episode, Media
from fsclap.refusal import Refused
from storage.work import WorkStore
from tasks.batches import Batch, Item, Refusal
from tasks.declared import Plan
from tasks.limits import download_slot
from tasks.outputs import DOWNLOAD
from tasks.room import wait_for_room
from tasks.stages import Product, Stage, Stopwatch, run_stage


class TryAgainError(RuntimeError):
    """Some downloads failed in a way that another try may fix; Prefect retries the task."""


def _worth_another_try(task: object, task_run: object, state: object) -> bool:
    try:
        state.result()  # type: ignore[attr-defined]
    except TryAgainError:
        return True
    except Exception:
        return False
    return False


def tries_left() -> bool:
    context = TaskRunContext.get()
    return context is not None and context.task_run.run_count <= context.task.retries


def _listing_name() -> str:
    # An address may contain a token, and the name of a task run is shown and logged.
    return f"list episodes of {redact(task_run.parameters['locator'])}"


@task(
    task_run_name=_listing_name,
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=exponential_backoff(5),
    retry_jitter_factor=0.5,
    retry_condition_fn=_worth_another_try,
    timeout_seconds=3600,  # beyond download.timeout, so that a listing that takes too long is refused with a reason
)
def list_episodes(locator: str, settings: DownloadSettings) -> list[Item]:
    """List the episodes behind one address; an unusable address comes back as one refused item."""
    try:
        return [Item(episode=episode) for episode in downloads.list_episodes(locator, settings)]
    except Refused as refused:
        if _mends_itself(Refusal.of(DOWNLOAD, refused)) and tries_left():
            raise TryAgainError(str(refused)) from refused
        address = downloads.clean_text(redact(locator), longest=2000)
        title = downloads.clean_text(address)
        episode = Episode(downloads.source_id(redact(locator)), address, "(unlisted)", title, title)
        return [Item(episode=episode, refusal=Refusal.of(DOWNLOAD, refused))]


@task(
    task_run_name="download {batch.name}",
    cache_policy=NO_CACHE,  # the work store is the cache, and a failure must not be cached
    retries=2,
    retry_delay_seconds=exponential_backoff(5),
    retry_jitter_factor=0.5,
    retry_condition_fn=_worth_another_try,
)
def download(batch: Batch, work: str, plan: Plan) -> Batch:
    """Fetch the media of a batch into the work store. A retry fetches only what is still missing."""
    store = WorkStore(work)
    wait_for_room(store, plan.settings.disk.reserve_gb)
    done = run_stage(download_stage(store, plan), batch, store)
    missing = [item for item in done.items if item.refusal and _mends_itself(item.refusal)]
    if missing and tries_left():
        raise TryAgainError(
            "; ".join(f"{item.episode.name}: {item.refusal.detail}" for item in missing if item.refusal)
        )
    return done


def _mends_itself(refusal: Refusal) -> bool:
    return refusal.transient and refusal.reason not in downloads.REASONS_OF_SETTINGS


def download_stage(store: WorkStore, plan: Plan) -> Stage:
    return Stage(
        name=DOWNLOAD,
        declared=plan.stages[DOWNLOAD],
        inputs=lambda item: [item.episode.source_id, item.episode.fingerprint],
        produce=lambda items: _fetch_all(items, store, plan.settings.download),
        keeps_refusals=False,
    )


def _fetch_all(items: list[Item], store: WorkStore, settings: DownloadSettings) -> Iterator[Product | Refusal]:
    with store.scratch() as scratch, ThreadPoolExecutor(settings.limits.parallel) as pool:
        yield from pool.map(lambda item: _fetch(item, scratch, settings), items)


def _fetch(item: Item, scratch: Path, settings: DownloadSettings) -> Product | Refusal:
    folder = Path(tempfile.mkdtemp(dir=scratch))
    if not item.episode.is_local:
        download_slot()
    try:
        with Stopwatch() as watch:
            media = downloads.fetch(item.episode, folder, settings)
    except Refused as refused:
        return Refusal.of(DOWNLOAD, refused)
    return Product(
        write=lambda target: _move(media, target),
        seconds={DOWNLOAD: watch.seconds},
        facts={
            "file": media.path.name,
            "megabytes": round(media.path.stat().st_size / 1e6, 2),
            "sha256": media.sha256,
            "title": media.title,
            "served": media.served,
            "licence": media.licence,
        },
    )


def _move(media: Media, folder: Path) -> None:
    shutil.move(media.path, folder / media.path.name)
