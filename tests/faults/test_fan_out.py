"""Builds on several workers of a real installation: a worker that dies, and a build that is cancelled."""

from pathlib import Path

import pytest

from bench.fan_out import fleet, measure, postgres_for_stands
from bench.orchestration import make_episodes
from deployments.processes import PREFECT
from harness.faults.stand import stand, until
from harness.postgres import programs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed"),
]


def test_a_corpus_is_the_same_when_workers_are_killed() -> None:
    undisturbed, disturbed = measure([2], episodes=12, batch=2, sleep=6, kill_every=30)
    assert disturbed.kills
    assert disturbed.starts_of_batches > undisturbed.starts_of_batches
    assert (disturbed.sources, disturbed.lost, disturbed.doubled, disturbed.problems) == (12, 0, 0, 0)


def test_a_cancelled_build_takes_its_batches_with_it(tmp_path: Path) -> None:
    (tmp_path / "episodes").mkdir()
    make_episodes(tmp_path / "episodes", 6, 3.0)
    with postgres_for_stands(tmp_path), stand(tmp_path / "stand", sleep=300) as installation:

        def batches() -> list[str]:
            runs = installation.post("flow_runs/filter", {"flows": {"name": {"any_": ["process-batch"]}}}) or []
            return sorted(run["state"]["type"] for run in runs)

        with fleet(installation, tmp_path / "machines", 1):
            settings = {"fan_out": "pool", "batch_episodes": 1, "batches_ahead": 4}
            build = installation.run(
                "build-dataset/build-dataset", sources=[str(tmp_path / "episodes")], settings=settings
            )
            until(lambda: batches().count("RUNNING") == 2 and len(batches()) == 4, patience=240, what="batches run")
            installation.command([*PREFECT, "flow-run", "cancel", build])
            until(lambda: set(batches()) == {"CANCELLED"}, patience=180, what="the batches are cancelled")
            assert len(batches()) == 4, "and no more were handed out"
