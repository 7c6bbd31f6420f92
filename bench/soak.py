"""Build a thousand short episodes with a kill every minute: is anything lost, does anything grow?

    python -m bench.soak [--episodes 1000] [--seconds 3] [--every 60] [--json FILE]

An installation of its own builds the corpus through the deployment. Each minute all processes of
its run are killed by SIGKILL; the run starts again by itself, and by hand when it has used up its
restarts. Watched are the resident memory of worker and server, that of the run's processes against
the episodes that each has done, the size of the server's database, and the calls of its API by
worker and runs.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import FlowRun

from bench import report
from bench.orchestration import make_episodes
from harness.faults.campaign import kill_a_run
from harness.faults.stand import Stand, stand
from storage.corpus import Corpus
from storage.verify import verify
from tasks.waiting import has_ended

PATIENCE = 3 * 3600.0
LOOK_EVERY = 5.0  # reading the ledger of a large corpus takes a part of a second from the build


@dataclass
class Watch:
    """Memory in MiB, after so many committed episodes."""

    worker: list[tuple[int, float]] = field(default_factory=list)
    server: list[tuple[int, float]] = field(default_factory=list)
    run: list[tuple[int, float]] = field(default_factory=list)

    def look(self, installation: Stand, committed: int) -> None:
        assert installation.worker is not None
        assert installation.server is not None
        self.worker.append((committed, resident(installation.worker.pid)))
        self.server.append((committed, resident(installation.server.pid)))
        self.run.append((committed, max(map(resident, installation.run_processes()), default=0.0)))

    def after(self, series: list[tuple[int, float]], committed: int) -> float:
        """Return the first look after so many episodes."""
        return next(memory for done, memory in series if done >= committed)


def measure(episodes: int, seconds: float, every: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "episodes"
        source.mkdir()
        make_episodes(source, episodes, seconds)
        with stand(Path(folder) / "stand", count_calls=True) as installation:
            kills, started, watch, wall = endure(installation, source, episodes, every)
            corpus = Corpus.open(installation.data / "corpus")
            calls = installation.calls.stat().st_size
            database = sum(file.stat().st_size for file in installation.home.glob("prefect.db*"))
            ledger, problems = corpus.ledger(), verify(corpus).problems
            files = {file.resolve().as_uri() for file in source.rglob("*.wav")}
    return {
        "episodes": episodes,
        "seconds_of_audio_an_episode": seconds,
        "wall_seconds": wall,
        "kills": kills,
        "builds_started_by_hand": started,
        "sources_lost": len(files - {row["url"] for row in ledger.values()}),
        "sources_doubled": len(ledger) - len({row["url"] for row in ledger.values()}),
        "problems": len(problems),
        "worker_mib_after_100": watch.after(watch.worker, 100),
        "worker_mib_at_the_end": watch.worker[-1][1],
        "server_mib_after_100": watch.after(watch.server, 100),
        "server_mib_at_the_end": watch.server[-1][1],
        "run_mib_after_100": watch.after(watch.run, 100),
        "run_mib_highest": max(memory for _, memory in watch.run),
        "database_mib": database / 2**20,
        "database_kib_an_episode": database / 2**10 / episodes,
        "api_calls_an_episode": calls / episodes,
    }


def endure(installation: Stand, source: Path, episodes: int, every: float) -> tuple[int, int, Watch, float]:
    """Build, kill and watch; return kills, builds started by hand, memory and seconds."""
    watch, kills, started = Watch(), 0, 0
    begun = next_kill = time.monotonic()
    while time.monotonic() - begun < PATIENCE:
        runs = installation.runs()
        builds = [run for run in runs if run["parameters"].get("sources")]
        if builds and builds[-1]["state"]["type"] == "COMPLETED":
            return kills, started, watch, time.monotonic() - begun
        if not started or (builds and has_ended(FlowRun.model_validate(builds[-1]))):
            installation.run("build-dataset/build-dataset", sources=[str(source)])
            started += 1
            next_kill = time.monotonic() + every
        if time.monotonic() >= next_kill:
            kills += kill_a_run(installation)
            next_kill = time.monotonic() + every
        watch.look(installation, installation.committed())
        time.sleep(LOOK_EVERY)
    raise TimeoutError(f"{installation.committed()} of {episodes} episodes after {PATIENCE:g} s")


def resident(process: int) -> float:
    """Resident memory of a process in MiB, 0 when it is gone."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0.0)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.soak", __doc__)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of an episode")
    parser.add_argument("--every", type=float, default=60.0, help="seconds from kill to kill")
    options = parser.parse_args(arguments)
    figures = measure(options.episodes, options.seconds, options.every)
    print("\n".join(report.name_values(figures)))
    report.write(options.json, figures)


if __name__ == "__main__":
    main()
