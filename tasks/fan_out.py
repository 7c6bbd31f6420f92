"""Hand batches out to workers: one run of process-batch per batch, a bounded number at once.

What is done is what the ledger of the corpus has, not what a run returned. A run that crashed starts again by itself
(deployments/bootstrap.py); one that stays crashed, or is gone, is handed out again under another key.
"""

import hashlib
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
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

from storage.corpus import Corpus
from tasks.batches import Batch
from tasks.declared import Plan
from tasks.outcomes import Committed

log = logging.getLogger("fsclap.tasks")

DEPLOYMENT = "process-batch/process-batch"
LOOK_EVERY = 5.0
"""Seconds from one look at the runs to the next: one request, however many there are."""
GIVEN_UP = 120.0
"""Seconds after which a crashed run counts as one that nobody starts again."""
TRIES = 3
"""How many runs a build gives a batch; each of them starts again by itself when it crashes."""
IN_A_ROW = 5
"""Batches that fail one after the other, after which no more are handed out."""
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


@dataclass
class HandedOut:
    """What became of batches.

    Attributes:
        done: The sources that are in the ledger now.
        undone: One sentence per batch that is not done, with the reason.
    """

    done: list[Committed] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)


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
    return _Parent(corpus, work, plan, progress).run(batches)


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
    def __init__(self, corpus: str, work: str, plan: Plan, progress: Callable[[int], object]) -> None:
        self.corpus, self.work, self.plan, self.progress = corpus, work, plan, progress
        self.tag = _build_tag(this_run.root_flow_run_id)
        self.before = Corpus.open(corpus).ledger()
        self.waiting: deque[Batch] = deque()
        self.running: list[_Handed] = []
        self.finished: list[Batch] = []
        self.tries: dict[str, int] = {}
        self.undone: list[str] = []
        self.failures = 0

    def run(self, batches: Iterable[Batch]) -> HandedOut:
        self.waiting.extend(batches)
        answered = time.monotonic()
        with get_client(sync_client=True) as client:
            _say_if_nobody_works(client)
            while self.waiting or self.running:
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
        return HandedOut(self._committed(), self.undone)

    def _fill(self, client: SyncPrefectClient) -> None:
        while self.waiting and len(self.running) < self.plan.settings.batches_ahead:
            self.running.append(self._hand_out(self.waiting[0], client))
            self.waiting.popleft()

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
        self.tries[batch.name] = self.tries.get(batch.name, 0) + 1
        return _Handed(batch, made.id, own=self.tag in made.tags)

    def _look(self, client: SyncPrefectClient) -> None:
        ids = [handed.run for handed in self.running]
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)), limit=PAGE)
        runs = {run.id: run for run in found}
        completed = [handed for handed in self.running if _is(runs.get(handed.run), StateType.COMPLETED)]
        ledger = Corpus.open(self.corpus).ledger() if completed else {}
        for handed in list(self.running):
            run = runs.get(handed.run)
            if handed in completed:
                self._settle(
                    handed, None if _in(ledger, handed.batch) else "its run has ended, and the corpus lacks it"
                )
            elif run is None:
                self._settle(handed, "its run was deleted")
            elif _is(run, StateType.CANCELLED):
                if handed.own:
                    self._give_up(handed.batch, "its run was cancelled")
                    self.running.remove(handed)
                else:
                    self._settle(handed, "its run was cancelled with another build")
            elif _is(run, StateType.FAILED):
                self._fail(handed, run)
            elif _is(run, StateType.CRASHED):
                handed.crashed_since = handed.crashed_since or time.monotonic()
                if time.monotonic() - handed.crashed_since > GIVEN_UP:
                    self._settle(handed, f"its run {run.name} crashed for good")
            else:
                handed.crashed_since = None
        self.progress(sum(len(batch.items) for batch in self.finished))

    def _settle(self, handed: _Handed, problem: str | None) -> None:
        self.running.remove(handed)
        if problem is None:
            self.failures = 0
            self.finished.append(handed.batch)
        elif self.tries.get(handed.batch.name, 0) < TRIES:
            log.warning("%s: %s; handing it out again", handed.batch.name, problem)
            self.waiting.append(handed.batch)
        else:
            self._give_up(handed.batch, f"{problem}, in {TRIES} tries")

    def _fail(self, handed: _Handed, run: FlowRun) -> None:
        """Give up a batch whose run failed: it met an error of its own, which another try would meet again."""
        self.running.remove(handed)
        message = run.state.message if run.state is not None else ""
        self._give_up(handed.batch, f"{message or 'failed'} (run {run.name})")
        self.failures += 1
        if self.failures >= IN_A_ROW and self.waiting:
            self.undone.append(f"{len(self.waiting)} more were not handed out, since {self.failures} failed in a row")
            self.waiting.clear()

    def _give_up(self, batch: Batch, why: str) -> None:
        log.error("%s is not done: %s", batch.name, why)
        self.undone.append(f"{batch.name}: {why}")

    def _committed(self) -> list[Committed]:
        table = Corpus.open(self.corpus)
        ledger, refusals = table.ledger(), table.refusals()
        ids = [item.episode.source_id for batch in self.finished for item in batch.items]
        return [_outcome(ledger[name], self.before.get(name), refusals) for name in ids if name in ledger]


def _outcome(
    row: dict[str, Any], before: dict[str, Any] | None, refusals: dict[str, tuple[str, str, str]]
) -> Committed:
    return Committed.of(row, why=refusals.get(row["source_id"], ("", "", ""))[2], committed=row != before)


def _build_tag(run: object) -> str:
    return f"build:{run}"


def _in(ledger: dict[str, Any], batch: Batch) -> bool:
    return all(item.episode.source_id in ledger for item in batch.items)


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
