"""Lets faults happen to a stand, one after another, until the chain has come to its end all the same."""

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

from deployments.local import has_ended
from fsclap.retrieval.index import Index
from harness.faults.compare import corpus_content, lost_and_doubled, models, same_index
from harness.faults.points import Fault, Moment
from harness.faults.site import Site
from harness.faults.stand import FINAL, Stand, small_disk, stand
from storage.corpus import Corpus
from storage.verify import verify

SETTINGS = {
    "batch_episodes": 3,
    "download": {"limits": {"socket_timeout": 3, "parallel": 2}, "private_addresses": True},
}
"""Small batches, so that there is work to lose between them."""
RANDOM_KILLS = (10.0, 40.0)
"""Seconds from one random kill to the next."""
OUTAGE = 12.0
"""Seconds for which the server does not answer, a database is locked, or a disk is full."""
PATIENCE, PATIENCE_A_FAULT = 600.0, 60.0
"""Seconds, and seconds more for each fault, after which a campaign that has not come to its end counts as hanging."""


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
    """What an undisturbed chain makes."""

    content: dict[str, list[dict[str, Any]]]
    models: list[str]
    index: Index
    seconds: float

    @property
    def rows(self) -> int:
        return sum(map(len, self.content.values()))


@dataclass
class Trial:
    """What came of a chain and its faults.

    Attributes:
        struck: The faults, in the order in which they struck.
        started: Runs that were started by hand, the first included.
        restarted: Crashed runs that started again by themselves.
        lost: Rows that an undisturbed chain has and this one has not.
        doubled: Rows that are there too often, or that an undisturbed chain has not.
        left_running: Runs that are not over.
        problems: What `fsclap corpus verify` found.
        models: Digests of the weights of the finished models.
        same_models: They are those of an undisturbed chain.
        same_index: The index has the same clips, with the same vectors.
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
    """An undisturbed chain in an installation of its own."""
    with stand(folder) as undisturbed:
        done = endure(undisturbed, [], videos)
        content, made = corpus_content(undisturbed.data / "corpus"), models(undisturbed.data / "models")
        index = Index.open(undisturbed.data / "corpus-index")
    return Reference(content, made, index, done.seconds)


def trial(folder: Path, videos: Site, planned: Sequence[Strike], undisturbed: Reference) -> Trial:
    """A chain with faults in an installation of its own, and how it compares with the undisturbed one."""
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
    """Build, train, evaluate and index, while the planned faults strike; start again what ended, as a user would.

    Returns:
        When there is an index of the corpus, no run is under way, and every fault has struck.

    Raises:
        TimeoutError: That did not come about; the message says what is missing.
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
    """SIGKILL to all processes of runs that are under way; whether there was one."""
    found = broken.run_processes()
    for process in found:
        os.kill(process, signal.SIGKILL)
    return bool(found)


def start_again(broken: Stand, feed: str) -> None:
    """What a user does who finds no run under way: build, train, or index: whichever is the first that is missing."""
    builds = [run for run in broken.runs() if run["name"].startswith("build ")]
    if not builds or builds[-1]["state"]["type"] != "COMPLETED":
        broken.run("build-dataset/build-dataset", sources=[feed], settings=SETTINGS)
    elif not list((broken.data / "models").glob("*/evaluation/*/evaluation.json")):
        broken.run("train-fsclap/train-fsclap")
    else:
        broken.run("index-corpus/index-corpus")


def is_complete(broken: Stand) -> bool:
    """Whether the last build, training, evaluation and index all ended well."""
    # A run that never began has the name that Prefect drew for it, which is none of the four.
    last = {run["name"].split()[0]: run["state"]["type"] for run in broken.runs()}
    return all(last.get(kind) == "COMPLETED" for kind in ("build", "train", "evaluate", "index"))


def _is_busy(broken: Stand) -> bool:
    """Whether a run is under way, or will start by itself; a server that does not answer may have one."""
    runs = broken.runs()
    if not runs:
        return broken.get("health") is not True
    if any(run["state"]["type"] not in FINAL for run in runs):
        return True
    if is_complete(broken):
        return False
    # An automation acts some moments after what it waits for: it starts what crashed, and what follows upon a success.
    last = max(runs, key=lambda run: run["state"]["timestamp"])
    if has_ended(FlowRun.model_validate(last)):
        return last["state"]["type"] == "COMPLETED" and _age(last["state"]["timestamp"]) < 15
    return _age(last["state"]["timestamp"]) < 60


def _age(timestamp: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(timestamp)).total_seconds()


def _befall(broken: Stand, strike: Strike) -> None:
    """Bring the fault about, and put the world in order again as its keeper would."""
    process = int((broken.faults / f"{strike.id}.reached").read_text() or 0)
    with ExitStack() as stack:
        stack.callback((broken.faults / f"{strike.id}.go").touch)
        match strike.fault:
            case "kill-run" | "kill-at-random" | "drop-connection" | "stall-download":
                return  # it has happened
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
