"""Inject faults into a stand, one after another, until the chain of flows has completed."""

import json
import os
import random
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import FlowRun

from fsclap.retrieval.index import Index
from harness.faults.compare import corpus_content, lost_and_doubled, models, same_index
from harness.faults.points import Fault, Moment
from harness.faults.site import Site
from harness.faults.stand import FINAL, Stand, small_disk, stand
from storage.corpus import Corpus
from storage.verify import verify
from tasks.waiting import has_ended

SETTINGS = {
    "batch_episodes": 3,
    "download": {"limits": {"socket_timeout": 3, "parallel": 2}, "private_addresses": True},
}
"""Small batches, so that there is work to lose between them."""
RANDOM_KILLS = (10.0, 40.0)
"""Seconds from one random kill to the next."""
OUTAGE = 12.0
"""How many seconds the server does not answer, the database is locked, or the disk is full."""
PATIENCE, PATIENCE_A_FAULT = 600.0, 60.0
"""Seconds, plus seconds for each fault, after which an unfinished campaign counts as hanging."""


@dataclass(frozen=True)
class Strike:
    """A fault at a moment."""

    id: str
    fault: Fault
    moment: Moment

    def arm(self, broken: Stand, videos: Site) -> None:
        if self.fault in ("drop-connection", "stall-download"):
            videos.flaws.append((self.id, self.fault, broken.faults))
            return
        if self.fault == "kill-at-random":
            return
        module, function = self.moment.function.split(":")
        action = "kill" if self.fault == "kill-run" else "wait"
        point = {"id": self.id, "action": action, **asdict(self.moment), "module": module, "function": function}
        (broken.faults / f"{self.id}.json").write_text(json.dumps(point))


@dataclass(frozen=True)
class Reference:
    """The result of an undisturbed chain."""

    content: dict[str, list[dict[str, Any]]]
    models: list[str]
    index: Index
    seconds: float

    @property
    def rows(self) -> int:
        return sum(map(len, self.content.values()))


@dataclass
class Trial:
    """The result of a chain with faults.

    Attributes:
        struck: The faults, in the order in which they struck.
        started: Runs that were started by hand, including the first.
        restarted: Crashed runs that restarted by themselves.
        lost: Rows of an undisturbed chain that are missing here.
        doubled: Rows that are repeated, or that an undisturbed chain does not have.
        left_running: Runs that have not ended.
        problems: Problems reported by `fsclap corpus verify`.
        models: Digests of the weights of the finished models.
        same_models: Whether they equal those of an undisturbed chain.
        same_index: Whether the index has the same clips with the same vectors.
    """

    struck: list[Strike] = field(default_factory=list)
    started: int = 0
    restarted: int = 0
    seconds: float = 0.0
    lost: int = 0
    doubled: int = 0
    left_running: int = 0
    problems: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    same_models: bool = False
    same_index: bool = False

    @property
    def unharmed(self) -> bool:
        return (
            self.same_models
            and self.same_index
            and not (self.lost or self.doubled or self.left_running or self.problems)
        )


def strikes(fault: Fault, moments: Iterable[Moment]) -> list[Strike]:
    return [Strike(f"{fault}-{number:02d}", fault, moment) for number, moment in enumerate(moments)]


def reference(folder: Path, videos: Site) -> Reference:
    """Run an undisturbed chain in a new installation."""
    with stand(folder) as undisturbed:
        done = endure(undisturbed, [], videos)
        content, made = corpus_content(undisturbed.data / "corpus"), models(undisturbed.data / "models")
        index = Index.open(undisturbed.data / "corpus-index")
    return Reference(content, made, index, done.seconds)


def trial(folder: Path, videos: Site, planned: Sequence[Strike], undisturbed: Reference) -> Trial:
    """Run a chain with faults in a new installation, and compare it with the undisturbed one."""
    with ExitStack() as stack:
        small = any(strike.fault == "fill-disk" for strike in planned)
        data = stack.enter_context(small_disk(folder / "disk", megabytes=600)) if small else None
        broken = stack.enter_context(stand(folder, data))
        result = endure(broken, planned, videos)
        corpus = Corpus.open(broken.data / "corpus")
        result.lost, result.doubled = lost_and_doubled(undisturbed.content, corpus_content(broken.data / "corpus"))
        result.problems = [problem.message for problem in verify(corpus).problems]
        result.models = models(broken.data / "models")
        result.same_models = result.models == undisturbed.models
        result.same_index = same_index(undisturbed.index, Index.open(broken.data / "corpus-index"))
        runs = broken.runs()
        result.left_running = sum(run["state"]["type"] not in FINAL for run in runs)
        result.restarted = sum(run["run_count"] - 1 for run in runs if run["run_count"])
    return result


def endure(broken: Stand, planned: Sequence[Strike], videos: Site) -> Trial:
    """Build, train, evaluate and index while faults strike; restart what ended, as a user would.

    Returns:
        The result, once the corpus is indexed, no run is active and every fault has struck.

    Raises:
        TimeoutError: This took too long; the message names what is missing.
    """
    waiting = {strike.id: strike for strike in planned}
    for strike in planned:
        strike.arm(broken, videos)
    result, started, dice = Trial(), time.monotonic(), random.Random(0)
    next_kill = started + dice.uniform(*RANDOM_KILLS)
    patience = PATIENCE + PATIENCE_A_FAULT * len(planned)
    while waiting or not is_complete(broken) or _is_busy(broken):
        now = time.monotonic()
        if now - started > patience:
            raise TimeoutError(
                f"after {patience:g} s: {len(result.struck)} of {len(planned)} faults struck, not yet "
                f"{sorted(waiting)}; runs: {[(run['name'], run['state']['name']) for run in broken.runs()]}"
            )
        drawn = next((one for one in waiting.values() if one.fault == "kill-at-random"), None)
        if drawn and now > next_kill:
            next_kill = now + dice.uniform(*RANDOM_KILLS)
            if kill_a_run(broken):
                (broken.faults / f"{drawn.id}.reached").touch()
        for mark in sorted(broken.faults.glob("*.reached")):
            if mark.stem in waiting:
                _befall(broken, waiting[mark.stem])
                result.struck.append(waiting.pop(mark.stem))
        if not _is_busy(broken) and (waiting or not is_complete(broken)):
            result.started += 1
            start_again(broken, videos.feed)
        time.sleep(0.3)
    result.seconds = time.monotonic() - started
    return result


def kill_a_run(broken: Stand) -> bool:
    """Send SIGKILL to the processes of all active runs, and return whether there were any."""
    processes = broken.run_processes()
    for process in processes:
        os.kill(process, signal.SIGKILL)
    return bool(processes)


def start_again(broken: Stand, feed: str) -> None:
    """Start the first flow that has not completed: build, train, or index."""
    builds = [run for run in broken.runs() if run["name"].startswith("build ")]
    if not builds or builds[-1]["state"]["type"] != "COMPLETED":
        broken.run("build-dataset/build-dataset", sources=[feed], settings=SETTINGS)
    elif not list((broken.data / "models").glob("*/evaluation/*/evaluation.json")):
        broken.run("train-fsclap/train-fsclap")
    else:
        broken.run("index-corpus/index-corpus")


def is_complete(broken: Stand) -> bool:
    """Whether the last build, training, evaluation and indexing all completed."""
    # A run that never began still has the random name that Prefect gave it, which is none of the
    # four.
    last = {run["name"].split()[0]: run["state"]["type"] for run in broken.runs()}
    return all(last.get(kind) == "COMPLETED" for kind in ("build", "train", "evaluate", "index"))


def _is_busy(broken: Stand) -> bool:
    """Whether a run is active or will start by itself; true while the server is silent."""
    runs = broken.runs()
    if not runs:
        return broken.get("health") is not True
    if any(run["state"]["type"] not in FINAL for run in runs):
        return True
    if is_complete(broken):
        return False
    # An automation acts a few seconds after its event: it restarts crashed runs, and starts the
    # next flow.
    last = max(runs, key=lambda run: run["state"]["timestamp"])
    if has_ended(FlowRun.model_validate(last)):
        return last["state"]["type"] == "COMPLETED" and _age(last["state"]["timestamp"]) < 15
    return _age(last["state"]["timestamp"]) < 60


def _age(timestamp: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(timestamp)).total_seconds()


def _befall(broken: Stand, strike: Strike) -> None:
    """Cause the fault, and repair its damage as an operator would."""
    process = int((broken.faults / f"{strike.id}.reached").read_text() or 0)
    with ExitStack() as stack:
        stack.callback((broken.faults / f"{strike.id}.go").touch)
        match strike.fault:
            case "kill-run" | "kill-at-random" | "drop-connection" | "stall-download":
                return  # the process did it by itself
            case "kill-worker":
                broken.kill_worker()
                broken.start_worker()
                return
            case "stop-worker":
                broken.stop_worker()
                broken.start_worker()
                return
            case "kill-machine":
                broken.kill_worker()
                os.kill(process, signal.SIGKILL)
                broken.start_worker()
                return
            case "kill-server":
                broken.kill_server()
                stack.pop_all().close()
                time.sleep(OUTAGE / 4)
                broken.start_server()
                return
            case "freeze-server":
                world = broken.frozen_server()
            case "lock-database":
                world = broken.locked_database()
            case "fill-disk":
                world = broken.full_disk()
        with world:
            stack.pop_all().close()
            time.sleep(OUTAGE)
