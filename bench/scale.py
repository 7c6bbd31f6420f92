"""What the orchestration of a large build costs, with engines that sleep.

    python -m bench.scale [--episodes 17000] [--batch 12] [--work 29] [--faster 100] [--workers 4] [--json FILE]

17,000 episodes of 2.4 minutes are the paper's 333 dramas. A build with fan_out=pool takes them through a real server
on PostgreSQL, real workers and a real corpus. Only the engines do nothing: an episode that would compute for --work
seconds (2.4 minutes at a real-time factor of 0.2) sleeps for a --faster part of that. Its sound is three seconds long.

Counted are the runs and the calls of the API, the growth of the database, memory and processor time of server and
database, and a worker's seconds per batch that were no sleep: as a share of the work that the batch stands for, they
are what the orchestration costs at most. (Where engines do not sleep, the next batch starts meanwhile.)
"""

import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg

from bench import report
from bench.fan_out import AUDIO, batches_of, build, fleet, postgres_for_stands
from bench.orchestration import make_episodes
from bench.soak import resident
from harness.faults.stand import Stand, stand
from storage.corpus import Corpus

TICKS = os.sysconf("SC_CLK_TCK")


def measure(episodes: int, batch: int, work: float, faster: float, workers: int) -> dict[str, Any]:
    """Build a corpus of sleeping episodes; see the module."""
    sleep = work / faster
    with tempfile.TemporaryDirectory() as name, postgres_for_stands(Path(name)):
        folder = Path(name)
        source = folder / "episodes"
        source.mkdir()
        make_episodes(source, episodes, AUDIO)
        with stand(folder / "stand", sleep=sleep, count_calls=True) as installation:
            corpus = installation.data / "corpus"
            before = _state(installation)
            with fleet(installation, folder / "machines", workers) as machines:
                # 2 MB of outputs per episode, which nobody asks for again.
                disk = {"work_files": "drop"}
                seconds, _ = build(installation, machines, source, corpus, batch, 0.0, disk=disk)
            after = _state(installation)
            runs = batches_of(installation, corpus)
            committed = len(Corpus.open(corpus).ledger())
    extra = (seconds * workers - episodes * sleep) / len(runs)
    return {
        "episodes": episodes,
        "committed": committed,
        "workers": workers,
        "seconds": seconds,
        "seconds_asleep_per_episode": sleep,
        "runs": len(runs),
        "runs_per_second": len(runs) / seconds,
        "task_runs_per_episode": (after["task_runs"] - before["task_runs"]) / episodes,
        "api_calls_per_episode": (after["calls"] - before["calls"]) / episodes,
        "api_calls_per_second": (after["calls"] - before["calls"]) / seconds,
        "database_kib_per_episode": (after["database"] - before["database"]) / 1024 / episodes,
        "server_mib_before": before["server_mib"],
        "server_mib_after": after["server_mib"],
        "server_cpu_seconds_per_run": (after["server_cpu"] - before["server_cpu"]) / len(runs),
        "database_cpu_seconds_per_run": (after["database_cpu"] - before["database_cpu"]) / len(runs),
        "seconds_of_a_batch_that_were_no_sleep": extra,
        "orchestration_share_of_the_work": extra / (episodes / len(runs) * work),
    }


def _state(installation: Stand) -> dict[str, float]:
    assert installation.server is not None
    assert installation.postgres is not None
    size, rows = asyncio.run(_database(installation.postgres))
    return {
        "calls": installation.calls.stat().st_size,
        "database": size,
        "task_runs": rows,
        "server_mib": resident(installation.server.pid),
        "server_cpu": _cpu_seconds(str(installation.port)),
        "database_cpu": _cpu_seconds("postgres: ") + _cpu_seconds("bin/postgres"),
    }


async def _database(address: str) -> tuple[int, int]:
    connection = await asyncpg.connect(address)
    try:
        size = await connection.fetchval("SELECT pg_database_size(current_database())")
        return size, await connection.fetchval("SELECT count(*) FROM task_run")
    finally:
        await connection.close()


def _cpu_seconds(part_of_command: str) -> float:
    """Add up the processor time of all processes whose command has this part; ended children count."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if part_of_command in command:
            total += sum(map(int, fields[11:15]))
    return total / TICKS


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.scale", __doc__)
    parser.add_argument("--episodes", type=int, default=17_000)
    parser.add_argument("--batch", type=int, default=12, help="episodes per batch")
    parser.add_argument("--work", type=float, default=29.0, help="seconds of computing that an episode stands for")
    parser.add_argument("--faster", type=float, default=100.0, help="how much faster than that it sleeps")
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args(arguments)
    figures = measure(options.episodes, options.batch, options.work, options.faster, options.workers)
    print("\n".join(report.name_values(figures)))
    report.write(options.json, figures)


if __name__ == "__main__":
    main()
