"""Hand batches out to the workers of a pool: one run of process-batch per batch, a bounded number at once.

A run that crashed starts again by itself
(deployments/bootstrap.py); one that stays crashed, or is gone, is handed out again under another key.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.runtime import flow_run as this_run
from prefect.states import Cancelled, Cancelling

from tasks.batches import Batch
from tasks.declared import Plan
from tasks.handing_out import Books, HandedOut

log = logging.getLogger("fsclap.tasks")

DEPLOYMENT = "process-batch/process-batch"
LOOK_EVERY = 5.0
"""Seconds from one look at the runs to the next: one request, however many there are."""
GIVEN_UP = 120.0
"""Seconds after which a crashed run counts as one that nobody starts again."""
OUTAGE = 900.0
"""Seconds without a server after which the build gives up."""
PAGE = 200
"""Most runs in one answer of the server; `batches_ahead` is never more."""
ALIVE = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED)


@dataclass
class _Handed:
    """A batch that was handed out.

    Attributes:
        own: Whether this build made the run, rather than another one.
        crashed_since: When the run was first seen to be crashed.
    """

    batch: Batch
    run: UUID
    own: bool
    crashed_since: float | None = None


def hand_out(
    batches: Iterable[Batch], corpus: str, work: str, plan: Plan, progress: Callable[[int], object]
) -> HandedOut:
    """Have batches processed by runs of process-batch, and wait until all of them have ended.

    Args:
        batches: None of their episodes has an address with secrets (`can_be_handed_out`): parameters of runs are shown.
        corpus: Location of the corpus, as the workers reach it.
        work: Folder of the stages' outputs on each worker's machine.
        plan: What the workers have to declare, too: one with another version of a stage refuses.
        progress: Told how many episodes are done.

    Raises:
        httpx.HTTPError: The server refuses a request, or did not answer for a quarter of an hour.
    """
    return _Parent(Books(batches, corpus), work, plan, progress).run()


def can_be_handed_out(batch: Batch) -> bool:
    """Whether a batch may be a parameter of a run, which the server stores and shows: it holds no secret."""
    return all(item.alive and not item.episode.address for item in batch.items)


def batch_key(batch: Batch, corpus: str, plan: Plan) -> str:
    """Digest of a corpus, and of the sources of a batch with their recipes: the same batch of two builds is one."""
    recipes = [[item.episode.source_id, plan.recipe(item.episode)] for item in batch.items]
    return hashlib.sha256(json.dumps([corpus, recipes]).encode()).hexdigest()


def cancel_batches(flow: object, flow_run: FlowRun, state: object) -> None:
    """Cancel the batches that a build handed out: a hook of the build's cancellation."""
    states = FlowRunFilterStateType(any_=[*ALIVE, StateType.CRASHED])
    wanted = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[_build_tag(flow_run.id)]), state=FlowRunFilterState(type=states)
    )
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=wanted, limit=PAGE)  # a build has no more at once
        for run in runs:
            crashed = run.state is not None and run.state.is_crashed()  # it would start again
            client.set_flow_run_state(run.id, Cancelled() if crashed else Cancelling(), force=crashed)
        log.info("Cancelled %d batches of this build", len(runs))


class _Parent:
    def __init__(self, books: Books, work: str, plan: Plan, progress: Callable[[int], object]) -> None:
        self.books, self.corpus, self.work, self.plan, self.progress = books, books.corpus, work, plan, progress
        self.tag = _build_tag(this_run.root_flow_run_id)
        self.running: list[_Handed] = []

    def run(self) -> HandedOut:
        answered = time.monotonic()
        with get_client(sync_client=True) as client:
            _say_if_nobody_works(client)
            while self.books.waiting or self.running:
                try:
                    self._fill(client)
                    time.sleep(LOOK_EVERY)
                    self._look(client)
                    answered = time.monotonic()
                except httpx.HTTPError as error:
                    refused = isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500
                    if refused or time.monotonic() - answered > OUTAGE:
                        raise
                    log.warning("The Prefect server does not answer (%s); asking again", error)
                    time.sleep(LOOK_EVERY)
        return self.books.outcome()

    def _fill(self, client: SyncPrefectClient) -> None:
        waiting = self.books.waiting
        while waiting and len(self.running) < self.plan.settings.batches_ahead:
            self.running.append(self._hand_out(waiting[0], client))
            waiting.popleft()

    def _hand_out(self, batch: Batch, client: SyncPrefectClient) -> _Handed:
        """Take over the run that another build, or this one before it crashed, gave the batch; else start one."""
        key = batch_key(batch, self.corpus, self.plan)
        tag = f"batch:{key[:16]}"
        earlier = client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[tag])), limit=PAGE)
        for run in earlier:
            if _is_at_work(run):
                log.info("%s is being done by the run %s", batch.name, run.name)
                return _Handed(batch, run.id, own=self.tag in run.tags)
        parameters = {
            "batch": batch.model_dump(mode="json"),
            "corpus": self.corpus,
            "work": self.work,
            "plan": self.plan.model_dump(mode="json"),
        }
        made: Any = run_deployment(
            DEPLOYMENT,
            parameters=parameters,
            tags=[self.tag, tag],
            # Two builds that come here at once get one run. A run that has ended does not stand in the way of the next.
            idempotency_key=f"{key}-{len(earlier)}",
            as_subflow=False,  # a child that is found by its place in the parent could be another batch's
            timeout=0,
        )
        self.books.count(batch)
        return _Handed(batch, made.id, own=self.tag in made.tags)

    def _look(self, client: SyncPrefectClient) -> None:
        ids = [handed.run for handed in self.running]
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)), limit=PAGE)
        runs = {run.id: run for run in found}
        completed = [handed for handed in self.running if _is(runs.get(handed.run), StateType.COMPLETED)]
        lacking = self.books.lacking([handed.batch for handed in completed]) if completed else []
        for handed in list(self.running):
            run = runs.get(handed.run)
            if handed in completed:
                self.running.remove(handed)
                if handed.batch in lacking:
                    self.books.again(handed.batch, "its run has ended, and the corpus lacks it")
                else:
                    self.books.finish(handed.batch)
            else:
                self._look_at(handed, run)
        self.progress(self.books.episodes_done)

    def _look_at(self, handed: _Handed, run: FlowRun | None) -> None:
        """Settle a batch whose run has ended without success."""
        if run is None:
            self._again(handed, "its run was deleted")
        elif _is(run, StateType.CANCELLED):
            if handed.own:
                self.books.give_up(handed.batch, "its run was cancelled")
                self.running.remove(handed)
            else:
                self._again(handed, "its run was cancelled with another build")
        elif _is(run, StateType.FAILED):
            self.running.remove(handed)
            message = run.state.message if run.state is not None else ""
            self.books.fail(handed.batch, f"{message or 'failed'} (run {run.name})")
        elif _is(run, StateType.CRASHED):
            handed.crashed_since = handed.crashed_since or time.monotonic()
            if time.monotonic() - handed.crashed_since > GIVEN_UP:
                self._again(handed, f"its run {run.name} crashed for good")
        else:
            handed.crashed_since = None

    def _again(self, handed: _Handed, problem: str) -> None:
        self.running.remove(handed)
        self.books.again(handed.batch, problem)


def _build_tag(run: object) -> str:
    return f"build:{run}"


def _is(run: FlowRun | None, state: StateType) -> bool:
    return run is not None and run.state is not None and run.state.type == state


def _is_at_work(run: FlowRun) -> bool:
    if run.state is None:
        return False
    if run.state.is_crashed():  # it may be about to start again
        return datetime.now(UTC) - run.state.timestamp < timedelta(seconds=2 * GIVEN_UP)
    return run.state.type in ALIVE


def _say_if_nobody_works(client: SyncPrefectClient) -> None:
    """Log what the batches would wait for."""
    pool = client.read_deployment_by_name(DEPLOYMENT).work_pool_name
    path: Any = "/work_pools/{work_pool_name}/workers/filter"
    workers = client.request("POST", path, path_params={"work_pool_name": pool}, json={}).json()
    if not any(worker["status"] == "ONLINE" for worker in workers):
        log.warning(
            "No worker asks the work pool %s for runs: the batches wait for `prefect worker start --pool %s --limit 2`",
            pool,
            pool,
        )
