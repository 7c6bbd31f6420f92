"""Builds on several workers: how much faster, and is anything lost when workers die?

    python -m bench.fan_out [--episodes 100] [--batch 13] [--sleep 5] [--workers 1,2,4] [--kill-every 60] [--json FILE]

An installation of its own, its server on PostgreSQL, builds the same episodes with fan_out=pool on one worker, on two
and on four; then on four of which one, in turn, is killed with its run each minute and started again. The engines
sleep, so that the cores of one machine can stand for several machines; each worker has its own folder for temporary
files, hence its own locks, and its own folder of work files, as on machines of their own. Compared are the time of the
build from its start to its end, and the corpora, row by row.
"""

import itertools
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from prefect.client.schemas.objects import FlowRun

from bench import report
from bench.orchestration import make_episodes
from deployments.processes import PREFECT, stop
from harness.faults.compare import corpus_content, lost_and_doubled
from harness.faults.stand import Stand, stand
from harness.postgres import postgres
from storage.corpus import Corpus
from storage.verify import verify
from tasks.waiting import has_ended

POOL = "fsclap-batches"
PATIENCE = 3 * 3600.0
AUDIO = 3.0
"""Seconds of sound in an episode."""


@dataclass
class Machine:
    """A worker with what a machine has to itself: its temporary folder, and its work files."""

    name: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {"TMPDIR": str(self.folder / "tmp"), "FSCLAP_WORK": str(self.folder / "work")}

    def start(self, installation: Stand) -> None:
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        command = [*PREFECT, "worker", "start", "--pool", POOL, "--name", self.name, "--limit", "2"]
        self.process = installation.spawn(command, **self.environment)

    def kill(self, installation: Stand) -> None:
        """Kill the worker and its runs at once, as a machine dies."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        for run in installation.run_processes(f"FSCLAP_WORK={self.environment['FSCLAP_WORK']}"):
            os.killpg(os.getpgid(run), signal.SIGKILL)
        self.process.wait()


@dataclass
class Result:
    """One build.

    Attributes:
        share: Its seconds, as a share of those on one worker.
        lost, doubled: Rows that differ from the corpus of the first build, or are repeated.
        overhead: Median seconds between one batch's end and the next one's on a worker that were no sleep.
    """

    workers: int
    seconds: float
    share: float
    kills: int
    runs_of_batches: int
    starts_of_batches: int
    overhead: float
    sources: int
    lost: int
    doubled: int
    problems: int


def measure(workers: Sequence[int], *, episodes: int, batch: int, sleep: float, kill_every: float) -> list[Result]:
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as name, postgres_for_stands(Path(name)):
        folder = Path(name)
        source = folder / "episodes"
        source.mkdir()
        make_episodes(source, episodes, AUDIO)
        with stand(folder / "stand", sleep=sleep) as installation:
            expected: dict[str, Any] = {}
            plans = [*((count, 0.0) for count in workers), *([(workers[-1], kill_every)] if kill_every else [])]
            for number, (count, every) in enumerate(plans):
                corpus = installation.data / f"corpus-{number}"
                with fleet(installation, folder / f"machines-{number}", count) as machines:
                    seconds, kills = build(installation, machines, source, corpus, batch, every)
                found = corpus_content(corpus)
                expected = expected or found
                lost, doubled = lost_and_doubled(expected, found)
                runs = batches_of(installation, corpus)
                results.append(
                    Result(
                        workers=count,
                        seconds=seconds,
                        share=seconds / (results[0].seconds if results else seconds),
                        kills=kills,
                        runs_of_batches=len(runs),
                        starts_of_batches=sum(run["run_count"] for run in runs),
                        overhead=overhead(runs, count) - batch * sleep,
                        sources=len(Corpus.open(corpus).ledger()),
                        lost=lost,
                        doubled=doubled,
                        problems=len(verify(Corpus.open(corpus)).problems),
                    )
                )
                print(results[-1], flush=True)
    return results


@contextmanager
def postgres_for_stands(folder: Path) -> Iterator[None]:
    with postgres(folder / "postgres.log") as address:
        os.environ["FSCLAP_FAULTS_POSTGRES"] = address  # the stand makes a database there
        yield


@contextmanager
def fleet(installation: Stand, folder: Path, count: int) -> Iterator[list[Machine]]:
    machines = [Machine(f"machine-{number}", folder / str(number)) for number in range(count)]
    try:
        for machine in machines:
            machine.start(installation)
        yield machines
    finally:
        for machine in machines:
            if machine.process is not None:
                stop(machine.process)


def build(
    installation: Stand,
    machines: list[Machine],
    source: Path,
    corpus: Path,
    batch: int,
    kill_every: float,
    **settings: Any,
) -> tuple[float, int]:
    """Build a corpus; return the seconds from the start of its run to its end, and how many workers were killed."""
    settings |= {"fan_out": "pool", "batch_episodes": batch, "batches_ahead": 2 * len(machines)}
    run = installation.run("build-dataset/build-dataset", sources=[str(source)], corpus=str(corpus), settings=settings)
    turns, kills = itertools.cycle(machines), 0
    begun = next_kill = time.monotonic()
    next_kill += kill_every
    while time.monotonic() - begun < PATIENCE:
        now = installation.get(f"flow_runs/{run}")
        if now and now["state"]["type"] != "SCHEDULED" and has_ended(FlowRun.model_validate(now)):
            if now["state"]["type"] != "COMPLETED":
                raise RuntimeError(f"the build ended as {now['state']['name']}: {now['state']['message']}")
            return _seconds(now["start_time"], now["end_time"]), kills
        if kill_every and time.monotonic() >= next_kill and now and now["state"]["type"] == "RUNNING":
            machine = next(turns)
            machine.kill(installation)
            machine.start(installation)
            kills += 1
            next_kill = time.monotonic() + kill_every
        time.sleep(1)
    raise TimeoutError(f"no end after {PATIENCE:g} s")


def batches_of(installation: Stand, corpus: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while page := installation.post(
        "flow_runs/filter", {"flows": {"name": {"any_": ["process-batch"]}}, "limit": 200, "offset": len(found)}
    ):
        found += page
    return [run for run in found if run["parameters"]["corpus"] == str(corpus)]


def overhead(runs: list[dict[str, Any]], workers: int) -> float:
    """Median seconds from the end of one batch to the end of the next on one worker, sleep included."""
    ends = sorted(datetime.fromisoformat(run["end_time"]) for run in runs if run["end_time"])
    # With n workers that take turns, a worker's next end is the n-th next of all.
    gaps = [(later - earlier).total_seconds() for earlier, later in zip(ends, ends[workers:], strict=False)]
    return median(gaps) if gaps else 0.0


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.fan_out", __doc__)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--batch", type=int, default=13, help="episodes per batch")
    parser.add_argument("--sleep", type=float, default=5.0, help="seconds that the engines sleep per episode")
    parser.add_argument("--workers", default="1,2,4", help="numbers of workers, separated by commas")
    parser.add_argument("--kill-every", type=float, default=60.0, help="seconds from kill to kill; 0: no kills")
    options = parser.parse_args(arguments)
    results = measure(
        [int(count) for count in options.workers.split(",")],
        episodes=options.episodes,
        batch=options.batch,
        sleep=options.sleep,
        kill_every=options.kill_every,
    )
    print("\n".join(report.table(results)))
    report.write(options.json, {"options": vars(options), "builds": [asdict(result) for result in results]})


if __name__ == "__main__":
    main()
