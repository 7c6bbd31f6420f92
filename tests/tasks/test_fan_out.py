"""A build that hands its batches out, against a real server; the workers' turn is the parent's sleep."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelled, Completed, Crashed, Failed, Pending, Running, State

from flows.process_batch import process_batch
from fsclap.corpus.settings import BuildSettings
from storage.maintenance import forget
from storage.work import WorkStore
from tasks import commit as commits
from tasks import fan_out
from tasks.batches import Batch, Item
from tasks.declared import Plan, require_same
from tasks.download import download_stage
from tasks.fan_out import batch_key, can_be_handed_out, cancel_batches, hand_out
from tasks.handing_out import HandedOut
from tasks.plan import plan_batch, plan_build
from tasks.stages import run_stage
from tests.tasks.world import World, world

pytestmark = pytest.mark.usefixtures("prefect_server")


@dataclass
class Pool:
    """A build, and the workers of its pool.

    Attributes:
        work: What the workers do when it is their turn: by default, process what is scheduled.
        most: Most runs that were alive at once.
    """

    world: World
    build: UUID = field(default_factory=uuid4)
    work: Callable[["Pool"], None] = lambda pool: pool.process(pool.scheduled())
    most: int = 0

    def hand_out(self, *, ahead: int = 2, name: UUID | None = None) -> HandedOut:
        plan = self.plan(ahead)
        listed = [Item(episode=self.world.episode(name)) for name in sorted(self.world.files)]
        batches = plan_build.fn(listed, self.world.corpus.location, self.world.work, plan)
        return hand_out(batches, self.world.corpus.location, self.world.work, plan, lambda _: None)

    def plan(self, ahead: int) -> Plan:
        settings = BuildSettings(fan_out="pool", batch_episodes=2, batches_ahead=ahead)
        return self.world.plan().model_copy(update={"settings": settings})

    def runs(self, *states: StateType) -> list[FlowRun]:
        wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=[f"build:{self.build}"]))
        with get_client(sync_client=True) as client:
            runs = client.read_flow_runs(flow_run_filter=wanted, limit=200)
        return [run for run in runs if not states or (run.state and run.state.type in states)]

    def scheduled(self) -> list[FlowRun]:
        return self.runs(StateType.SCHEDULED)

    def turn(self, _: float) -> None:
        self.most = max(self.most, len(self.runs(*fan_out.ALIVE)))
        self.work(self)

    def process(self, runs: list[FlowRun]) -> None:
        """Do what process-batch does, with this world's stages."""
        for run in runs:
            given = run.parameters
            batch, plan = Batch.model_validate(given["batch"]), Plan.model_validate(given["plan"])
            todo = plan_batch.fn(batch, given["corpus"], given["work"], plan)
            store = WorkStore(given["work"])
            fetched = run_stage(download_stage(store, plan), todo, store)
            done = run_stage(self.world.separation(store), fetched, store)
            commits.commit.fn(done, given["corpus"], given["work"], plan)
            self.set(run, Completed())

    def set(self, run: FlowRun, *states: State) -> None:
        with get_client(sync_client=True) as client:
            for state in (Pending(), Running(), *states):
                client.set_flow_run_state(run.id, state, force=True)


@pytest.fixture(scope="module")
def deployment(prefect_server: None) -> None:
    async def deploy() -> None:
        async with get_client() as client:
            flow = await client.create_flow(process_batch)
            await client.create_deployment(flow_id=flow, name="process-batch", work_pool_name="fsclap-batches")

    asyncio.run(deploy())


@pytest.fixture
def pool(deployment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    with world(tmp_path) as made:
        for number in range(6):
            made.put(f"e{number}", f"good {number}")
        pool = Pool(made)
        monkeypatch.setattr(fan_out, "this_run", SimpleNamespace(root_flow_run_id=pool.build))
        monkeypatch.setattr(fan_out, "GIVEN_UP", -1.0)
        time = SimpleNamespace(sleep=pool.turn, monotonic=fan_out.time.monotonic)
        monkeypatch.setattr(fan_out, "time", time)
        yield pool


def test_every_source_is_done_once_and_a_bounded_number_of_batches_is_out(pool: Pool) -> None:
    pool.world.put("e6", "bad: it is cut off")
    handed = pool.hand_out()
    assert handed.undone == []
    assert sorted(row.episode for row in handed.done if row.status == "kept") == [f"e{n}" for n in range(6)]
    (refused,) = [row for row in handed.done if row.status == "rejected"]
    assert (refused.why, refused.changed) == ("it ends early", True)
    assert len(pool.runs()) == 4
    assert pool.most == 2
    assert sorted(pool.world.fetched) == [f"e{n}" for n in range(7)]


def test_a_batch_whose_run_crashed_for_good_or_was_deleted_is_handed_out_again(pool: Pool) -> None:
    def once(pool: Pool) -> None:
        first, second, *_ = pool.scheduled()
        pool.set(first, Crashed())
        with get_client(sync_client=True) as client:
            client.delete_flow_run(second.id)
        pool.work = Pool.work

    pool.work = once
    assert pool.hand_out().undone == []
    assert len(pool.world.kept()) == 6
    assert len(pool.runs()) == 4


def test_a_batch_that_crashes_each_time_is_given_up_and_the_others_are_done(pool: Pool) -> None:
    def crash_the_first(pool: Pool) -> None:
        poison, rest = [], []
        for run in pool.scheduled():
            (poison if "e0" in str(run.parameters["batch"]) else rest).append(run)
        pool.process(rest)
        for run in poison:
            pool.set(run, Crashed())

    pool.work = crash_the_first
    (undone,) = pool.hand_out().undone
    assert undone.startswith("The Show e0 to e1: its run ")
    assert undone.endswith("crashed for good, in 3 tries")
    assert len(pool.world.kept()) == 4


def test_a_run_that_completed_without_its_sources_in_the_ledger_is_not_done(pool: Pool) -> None:
    pool.work = lambda pool: [pool.set(run, Completed()) for run in pool.scheduled()] and None
    handed = pool.hand_out()
    assert handed.done == []
    assert all("the corpus lacks it, in 3 tries" in undone for undone in handed.undone)
    assert len(handed.undone) == 3


def test_a_failed_batch_is_named_with_its_reason_and_after_five_in_a_row_no_more_are_handed_out(pool: Pool) -> None:
    for number in range(6, 16):
        pool.world.put(f"e{number:02d}", f"good {number}")
    pool.work = lambda pool: [pool.set(run, Failed(message="no disk left")) for run in pool.scheduled()] and None
    handed = pool.hand_out(ahead=1)
    assert len(pool.runs()) == 5
    assert all("no disk left" in undone for undone in handed.undone[:5])
    assert handed.undone[5:] == ["3 more were not handed out, since 5 failed in a row"]


def test_two_builds_at_once_share_runs(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(pool, build=uuid4())

    def second_build(pool: Pool) -> None:
        pool.work = Pool.work  # for the turns in which the second build waits
        monkeypatch.setattr(fan_out, "this_run", SimpleNamespace(root_flow_run_id=other.build))
        assert other.hand_out(ahead=3).undone == []

    pool.work = second_build
    assert pool.hand_out(ahead=3).undone == []
    assert len(pool.runs()) == 3
    assert other.runs() == []
    assert sorted(pool.world.fetched) == [f"e{n}" for n in range(6)]


def test_what_was_forgotten_is_built_again_although_its_batch_was_done_before(pool: Pool) -> None:
    pool.hand_out()
    forget(pool.world.corpus, [pool.world.id("e0"), pool.world.id("e1")])
    assert len(pool.world.kept()) == 4
    assert pool.hand_out().undone == []
    assert len(pool.world.kept()) == 6
    assert len(pool.runs()) == 4


def test_batches_of_a_cancelled_build_are_cancelled(pool: Pool) -> None:
    def cancel(pool: Pool) -> None:
        first, second, _ = pool.runs()
        pool.set(first)
        pool.set(second, Crashed())
        cancel_batches(flow=None, flow_run=FlowRun(id=pool.build, flow_id=uuid4()), state=None)
        states = [run.state.name for run in pool.runs() if run.state]
        assert sorted(states) == ["Cancelled", "Cancelled", "Cancelling"]  # a worker stops the last
        pool.set(first, Cancelled())

    pool.work = cancel
    handed = pool.hand_out(ahead=3)
    assert [undone.partition(": ")[2] for undone in handed.undone] == ["its run was cancelled"] * 3


def test_a_batch_with_a_secret_address_is_no_parameter_of_a_run(pool: Pool) -> None:
    episode = pool.world.episode("e0")
    secret = replace(episode, address="https://example.org/e0?token=x")
    assert can_be_handed_out(Batch(name="b", items=(Item(episode=episode),)))
    assert not can_be_handed_out(Batch(name="b", items=(Item(episode=episode), Item(episode=secret))))


def test_a_key_stands_for_corpus_recipe_and_sources(pool: Pool) -> None:
    batch = Batch(name="b", items=(Item(episode=pool.world.episode("e0")),))
    plan = pool.world.plan()
    faster = plan.model_copy(update={"settings": BuildSettings(batch_episodes=3)})
    assert batch_key(batch, "c", plan) == batch_key(batch.model_copy(update={"name": "x"}), "c", faster)
    changed = plan.stages | {"captioning": plan.stages["captioning"].model_copy(update={"version": 2})}
    others = [
        batch_key(batch, "d", plan),
        batch_key(batch, "c", plan.model_copy(update={"stages": changed})),
        batch_key(Batch(name="b", items=(Item(episode=pool.world.episode("e1")),)), "c", plan),
    ]
    assert batch_key(batch, "c", plan) not in others


def test_a_worker_with_another_version_of_a_stage_refuses(pool: Pool) -> None:
    plan: Any = pool.world.plan()
    pool.world.ffmpeg = "4"  # which only decides what is refused
    require_same(pool.world.plan(), plan)
    older = plan.stages | {"diarization": plan.stages["diarization"].model_copy(update={"engine": "y@2"})}
    with pytest.raises(ValueError, match=r"other stages than the build \(diarization: .*y@2.* here, .*release"):
        require_same(plan.model_copy(update={"stages": older}), plan)
