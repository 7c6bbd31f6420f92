"""How a stage runs over a batch: what is reused, what is computed, and what becomes of what fails."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fsclap.corpus.download import Episode
from storage.work import WorkStore
from tasks.batches import Batch, Item, Refusal, make_batches
from tasks.declared import Declared
from tasks.stages import AT_ONCE, Product, Stage, outcome, pieces, run_stage


def episode(number: int, series: str = "series") -> Episode:
    return Episode(f"{number:016x}", f"https://example.org/{number}", series, f"e{number:02d}", f"Episode {number}")


@pytest.fixture
def batch() -> Batch:
    return Batch(name="test", items=tuple(Item(episode=episode(number)) for number in range(4)))


@pytest.fixture
def store(tmp_path: Path) -> WorkStore:
    return WorkStore(tmp_path)


class Counter:
    """A stage that writes its input's name and remembers for whom it was called."""

    def __init__(self, *, bad: dict[str, object] | None = None) -> None:
        self.bad = bad or {}
        self.asked: list[list[str]] = []

    def stage(self, **parameters: object) -> Stage:
        declared = Declared(engine="engine@1", parameters=parameters, version=1)
        return Stage("diarization", declared, lambda item: [item.episode.source_id], self.produce)

    def produce(self, items: list[Item]) -> Iterator[Product | Refusal]:
        self.asked.append([item.episode.name for item in items])
        for item in items:
            found = self.bad.get(item.episode.name)
            if isinstance(found, Exception):
                raise found
            if isinstance(found, Refusal):
                yield found
                continue
            yield Product(self.writer(item.episode.name), {"diarization": 1.5}, {"turns": 3})

    @staticmethod
    def writer(name: str):
        return lambda folder: (folder / "name.txt").write_text(name)


def test_an_output_is_computed_once(batch: Batch, store: WorkStore) -> None:
    counter = Counter()
    first = run_stage(counter.stage(), batch, store)
    second = run_stage(counter.stage(), batch, store)
    assert first == second
    assert counter.asked == [["e00", "e01", "e02", "e03"]]
    step = second.items[2].steps["diarization"]
    assert (store.folder(step) / "name.txt").read_text() == "e02"
    assert outcome(store, step).seconds == {"diarization": 1.5}


def test_another_parameter_is_another_output(batch: Batch, store: WorkStore) -> None:
    counter = Counter()
    one = run_stage(counter.stage(threshold=0.1), batch, store)
    other = run_stage(counter.stage(threshold=0.2), batch, store)
    assert len(counter.asked) == 2
    assert one.items[0].steps["diarization"].key != other.items[0].steps["diarization"].key


@pytest.mark.parametrize("changed", [{"engine": "engine@2"}, {"version": 2}, {"parameters": {"threshold": 0.1}}])
def test_an_output_depends_on_everything_that_the_stage_declares(changed: dict[str, object]) -> None:
    stage = Counter().stage()
    other = replace(stage, declared=stage.declared.model_copy(update=changed))
    item = Item(episode=episode(1))
    assert other.step(item).key != stage.step(item).key


def test_only_what_is_missing_is_computed(batch: Batch, store: WorkStore) -> None:
    counter = Counter()
    run_stage(counter.stage(), batch.model_copy(update={"items": batch.items[1:3]}), store)
    run_stage(counter.stage(), batch, store)
    assert counter.asked == [["e01", "e02"], ["e00", "e03"]]


def test_a_refusal_is_remembered_and_goes_no_further(batch: Batch, store: WorkStore) -> None:
    refusal = Refusal(stage="diarization", reason="no_speech", detail="nobody speaks")
    counter = Counter(bad={"e01": refusal})
    run_stage(counter.stage(), batch, store)
    done = run_stage(counter.stage(), batch, store)
    assert [item.refusal for item in done.items] == [None, refusal, None, None]
    assert len(counter.asked) == 1
    following = run_stage(Counter().stage(again=True), done, store)
    assert following.items[1] == done.items[1]


def test_an_unforeseen_error_takes_one_episode_and_no_other(batch: Batch, store: WorkStore) -> None:
    counter = Counter(bad={"e01": RuntimeError("out of luck")})
    done = run_stage(counter.stage(), batch, store)
    assert [item.alive for item in done.items] == [True, False, True, True]
    refusal = done.items[1].refusal
    assert refusal is not None
    assert (refusal.reason, refusal.transient) == ("internal_error", True)
    assert "out of luck" in refusal.detail
    assert counter.asked == [["e00", "e01", "e02", "e03"], ["e01"], ["e02"], ["e03"]]
    assert run_stage(Counter().stage(), batch, store).items[1].alive, "the next run tries again"


def test_an_engine_that_fails_on_the_first_because_of_the_last_costs_only_the_last(
    batch: Batch, store: WorkStore
) -> None:
    class AllAtOnce(Counter):
        def produce(self, items: list[Item]) -> Iterator[Product | Refusal]:
            if any(item.episode.name == "e03" for item in items):
                raise RuntimeError("e03 is too much")
            yield from super().produce(items)

    done = run_stage(AllAtOnce().stage(), batch, store)
    assert [item.alive for item in done.items] == [True, True, True, False]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([], []),
        ([0.1] * 5, [[0.1] * 5]),
        ([0.5, 0.5, 0.5], [[0.5, 0.5], [0.5]]),
        ([6.0, 0.2, 7.0, 0.1], [[6.0], [0.2, 7.0], [0.1]]),
    ],
)
def test_an_engine_is_given_short_recordings_together_and_long_ones_alone(
    lengths: list[float], expected: list[list[float]]
) -> None:
    assert list(pieces(lengths, lambda length: length * AT_ONCE)) == expected


def test_no_recording_is_taken_before_it_is_wanted() -> None:
    taken: list[float] = []
    first = next(pieces((taken.append(length) or length for length in (1.0, 1.0)), lambda length: length * AT_ONCE))
    assert first == taken == [1.0]


def test_a_time_limit_ends_the_whole_task(batch: Batch, store: WorkStore) -> None:
    with pytest.raises(TimeoutError):
        run_stage(Counter(bad={"e01": TimeoutError()}).stage(), batch, store)


def test_batches_hold_neighbours_of_one_series() -> None:
    episodes = [episode(number, series) for series in ("one", "two") for number in range(5)]
    batches = make_batches([Item(episode=episode) for episode in episodes], 2)
    assert [batch.name for batch in batches] == [
        "one e00 to e01", "one e02 to e03", "one e04",
        "two e00 to e01", "two e02 to e03", "two e04",
    ]  # fmt: skip
    assert [item.episode for batch in batches for item in batch.items] == episodes


def test_a_batch_survives_its_way_through_prefect(batch: Batch, store: WorkStore) -> None:
    done = run_stage(Counter(bad={"e01": ValueError("bad")}).stage(a=1), batch, store)
    assert Batch.model_validate_json(done.model_dump_json()) == done
