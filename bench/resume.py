"""How soon a killed build is at work again, and what it has to do twice.

    python -m bench.resume [--episodes 200] [--seconds 3] [--json FILE]

An installation of its own (server, worker and deployments, as `make ui` starts them) builds a
corpus of many short
episodes. When half of them are committed, the run is killed with SIGKILL. It starts again by
itself; measured is the time until a stage has an output that was not there before, and when the
server noted each state on the way.
"""

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import report
from bench.orchestration import make_episodes
from harness.faults.campaign import kill_a_run
from harness.faults.stand import Stand, stand, until

PATIENCE = 3600.0


def measure(episodes: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        make_episodes(_made(Path(folder) / "episodes"), episodes, seconds)
        with stand(Path(folder) / "stand") as installation:
            return _kill_and_watch(installation, Path(folder) / "episodes", episodes)


def _kill_and_watch(installation: Stand, source: Path, episodes: int) -> dict[str, Any]:
    run = installation.run("build-dataset/build-dataset", sources=[str(source)])
    until(lambda: installation.committed() >= episodes // 2, patience=PATIENCE, what="half of them are committed")
    committed, outputs = installation.committed(), _outputs(installation)
    assert kill_a_run(installation)
    killed = datetime.now(UTC)
    until(lambda: bool(_outputs(installation) - outputs), patience=PATIENCE, what="a stage has a new output")
    at_work = (datetime.now(UTC) - killed).total_seconds()
    until(lambda: _states(installation) == ["COMPLETED"], patience=PATIENCE, what="the build completes")
    return {
        "episodes": episodes,
        "committed_when_killed": committed,
        **{f"seconds_to_{state}": seconds for state, seconds in _states_since(killed, run, installation)},
        "seconds_to_the_first_new_output": at_work,
        "sources_at_the_end": installation.committed(),
    }


def _states_since(moment: datetime, run: str, installation: Stand) -> list[tuple[str, float]]:
    states = installation.get(f"flow_run_states/?flow_run_id={run}") or []
    times = [(state["name"], (datetime.fromisoformat(state["timestamp"]) - moment).total_seconds()) for state in states]
    return sorted(((name, seconds) for name, seconds in times if seconds > 0), key=lambda each: each[1])


def _outputs(installation: Stand) -> set[Path]:
    return {path.parent for path in (installation.data / "work").glob("*/*/*/manifest.json")}


def _states(installation: Stand) -> list[str]:
    return [run["state"]["type"] for run in installation.runs() if run["parameters"].get("sources")]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.resume", __doc__)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of an episode")
    options = parser.parse_args(arguments)
    figures = measure(options.episodes, options.seconds)
    print("\n".join(report.name_values(figures)))
    report.write(options.json, figures)


if __name__ == "__main__":
    main()
