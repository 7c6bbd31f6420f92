"""Builds on a Ray cluster of this machine, in a real installation: a worker dies, a build is cancelled."""

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.orchestration import make_episodes
from deployments.processes import PREFECT
from fsclap.corpus.cluster import ray_is_installed
from harness.faults.compare import corpus_content, lost_and_doubled
from harness.faults.stand import FINAL, Stand, stand, until
from storage.corpus import Corpus
from storage.verify import verify

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ray_is_installed(), reason="Ray is not installed: pip install -e '.[ray]'"),
]

EPISODES = 6
BATCHES = 4
"""Of two at most: the episodes are of two series."""
SLEEP = 5.0
PATIENCE = 900.0
Build = Callable[..., str]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # or Ray writes one into the home of the user
        patch.delenv("RAY_ADDRESS", raising=False)
        with stand(tmp_path_factory.mktemp("stand"), sleep=SLEEP) as made:
            yield made


@pytest.fixture(scope="module")
def build(installation: Stand, tmp_path_factory: pytest.TempPathFactory) -> Build:
    source = tmp_path_factory.mktemp("episodes")
    make_episodes(source, EPISODES, 3.0)

    def start(corpus: str, **settings: Any) -> str:
        folders = {"corpus": str(installation.data / corpus), "work": str(installation.data / f"work-{corpus}")}
        return installation.run("build-dataset/build-dataset", sources=[str(source)], **folders, settings=settings)

    return start


def ended(installation: Stand, run: str) -> dict[str, Any]:
    """Wait for a run to end; the state it ended in."""
    found: dict[str, Any] = {}

    def is_final() -> bool:
        found.update((installation.get(f"flow_runs/{run}") or {}).get("state") or {})
        return found.get("type") in FINAL

    until(is_final, patience=PATIENCE, what="the build ends")
    return found


def tasks_of(installation: Stand, run: str) -> list[tuple[str, str]]:
    """Name and state of each batch that a build handed to Ray."""
    body = {"flow_runs": {"id": {"any_": [run]}}, "task_runs": {"name": {"like_": "process"}}}
    found = installation.post("task_runs/filter", body) or []
    return [(task["name"], task["state_name"]) for task in found if task["name"].startswith("process ")]


def ray_processes(installation: Stand) -> list[str]:
    """Titles of the processes of Ray that this installation started."""
    return [
        title.decode().partition("\0")[0]
        for _, _, title in installation.processes()
        if title.startswith(b"ray::") or b"raylet" in title
    ]


def test_the_corpus_is_the_same_when_a_worker_dies_between_two_tables_of_a_commit(
    installation: Stand, build: Build
) -> None:
    alone = ended(installation, build("alone", batch_episodes=2))
    assert alone["type"] == "COMPLETED", alone
    point = {
        "id": "dies",
        "action": "kill",
        "module": "storage.corpus",
        "function": "Corpus._replace",
        "when": "after",
        "call": 1,
        "argument": "utterances",
    }
    (installation.faults / "dies.json").write_text(json.dumps(point))
    run = build("on-ray", batch_episodes=2, fan_out="ray", batches_ahead=2)
    state = ended(installation, run)
    assert state["type"] == "COMPLETED", state
    assert (installation.faults / "dies.reached").exists()
    states = sorted(state for _, state in tasks_of(installation, run))
    assert states == ["Completed"] * BATCHES + ["Crashed"], "the batch was handed out again, and nothing seems to run"
    locations = [installation.data / name for name in ("alone", "on-ray")]
    assert lost_and_doubled(*map(corpus_content, locations)) == (0, 0)
    corpus = Corpus.open(locations[1])
    assert len(corpus.ledger()) == EPISODES
    assert verify(corpus).problems == []
    until(lambda: not ray_processes(installation), patience=60, what="the cluster of the build ends with it")


def test_a_cancelled_build_takes_its_tasks_with_it(installation: Stand, build: Build) -> None:
    run = build("cancelled", batch_episodes=EPISODES, fan_out="ray")
    until(lambda: "ray::process_on_ray" in ray_processes(installation), patience=PATIENCE, what="a batch runs")
    installation.command([*PREFECT, "flow-run", "cancel", run])
    until(lambda: not ray_processes(installation), patience=120, what="the tasks end")
    assert ended(installation, run)["type"] == "CANCELLED"
    assert Corpus.open(installation.data / "cancelled").ledger() == {}
