"""How every stage of the corpus runs over a batch: reuse what is there, compute the rest, lose nothing.

A stage's output for one episode is a folder of the work store under a key made from the content it was
computed from, the stage's version, the engine and the parameters it depends on. The store is the cache;
Prefect's cache key (`stage_cache_key`) is the digest of the same things, so that the UI says Cached.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from prefect.context import TaskRunContext
from pydantic import BaseModel

from fsclap import Seconds
from storage.work import Step, WorkStore
from tasks.batches import Batch, Item, Refusal
from tasks.declared import Declared

log = logging.getLogger("fsclap.tasks")
T = TypeVar("T")

OUTCOME = "outcome.json"
AT_ONCE: Seconds = 600.0
"""Sound that an engine gets at once: enough to fill its batches, little enough to lose to a kill."""


class Outcome(BaseModel):
    """What a stage records about one episode, besides its files."""

    seconds: dict[str, float]
    """Compute time by stage name; one task may cover two (decode and separation)."""
    facts: dict[str, Any] = {}
    refusal: Refusal | None = None


@dataclass(frozen=True)
class Product:
    """Output of a stage for one episode: `write` puts its files into a folder."""

    write: Callable[[Path], object]
    seconds: dict[str, float]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A stage of one run: what it declares, what it reads, how it computes.

    Attributes:
        declared: What its output depends on, besides its input.
        inputs: Digests and keys of what the stage reads for an episode.
        produce: Yields one Product or Refusal per item, in order.
    """

    name: str
    declared: Declared
    inputs: Callable[[Item], Sequence[str]]
    produce: Callable[[list[Item]], Iterator["Product | Refusal"]]
    keeps_refusals: bool = True
    """Whether a refusal is an output of the store. A download's is not: the next run asks again."""

    def step(self, item: Item) -> Step:
        return Step(self.name, self.declared.version, self.declared.engine, self.declared.parameters, self.inputs(item))

    def refusal_step(self, item: Item) -> Step:
        """Return the step under which a refusal lies: its key holds what decided it, too."""
        declared = self.declared
        decided_by = {"decided_by": declared.decided_by} if declared.decided_by else {}
        return Step(
            self.name, declared.version, declared.engine, {**declared.parameters, **decided_by}, self.inputs(item)
        )


def run_stage(stage: Stage, batch: Batch, store: WorkStore) -> Batch:
    """Take every episode of the batch that is still alive through one stage.

    A refused episode is recorded in the store like any other outcome. An unforeseen failure marks its episode, is
    logged with its traceback, and does not stop the others.
    """
    steps = {item.episode.source_id: step for item in batch.alive if (step := _found(stage, store, item)) is not None}
    missing = [item for item in batch.alive if item.episode.source_id not in steps]
    log.info("%s: %d episodes, %d of them already done", stage.name, len(batch.alive), len(steps))
    failures: dict[str, Refusal] = {}
    for item, product in _products(stage, missing):
        if isinstance(product, Refusal) and (product.transient or not stage.keeps_refusals):
            failures[item.episode.source_id] = product
        else:
            step = stage.refusal_step(item) if isinstance(product, Refusal) else stage.step(item)
            _record(stage, store, step, product)
            steps[item.episode.source_id] = step
        _log_outcome(stage, item, product)

    def settle(item: Item) -> Item:
        source = item.episode.source_id
        if not item.alive:
            return item
        if source in failures:
            return item.refused(failures[source])
        return item.done(steps[source], outcome(store, steps[source]).refusal)

    return batch.map(settle)


def _found(stage: Stage, store: WorkStore, item: Item) -> Step | None:
    """Find the step whose output for an item is in the store and counts; forget a refusal that doesn't."""
    refusal_step = stage.refusal_step(item)
    for step in (stage.step(item), refusal_step):
        if store.folder(step) is None:
            continue
        counts = step.key == refusal_step.key and stage.keeps_refusals and not item.again
        if counts or outcome(store, step).refusal is None:
            return step
        store.discard(step)
    return None


def outcome(store: WorkStore, step: Step) -> Outcome:
    return Outcome.model_validate_json((folder(store, step) / OUTCOME).read_text())


def folder(store: WorkStore, step: Step) -> Path:
    """Return the folder with the output of a step.

    Raises:
        FileNotFoundError: It is gone; starting the run again makes a new one.
    """
    output = store.folder(step)
    if output is None:
        raise FileNotFoundError(f"{store.root}: an output of stage {step.stage} is gone; start the run again")
    return output


def stage_cache_key(*make_stages: Callable[..., Stage | None]) -> Callable[[TaskRunContext, dict[str, Any]], str]:
    """Make a Prefect `cache_key_fn` for a task with the arguments `batch`, `work` and `plan`.

    The key stands for content, engine and parameters, not for path strings. A result that Prefect recorded is no hit
    when its files have been deleted since, or what decided a refusal in it has changed.

    Args:
        make_stages: Each makes a stage that the task takes its batch through, or None for one that is off.
    """

    def key(context: TaskRunContext, arguments: dict[str, Any]) -> str:
        batch: Batch = arguments["batch"]
        store = WorkStore(arguments["work"])
        stages = [stage for make in make_stages if (stage := make(store, arguments["plan"])) is not None]
        keys = [stage.step(item).key for stage in stages for item in batch.alive]
        material = json.dumps([keys, batch.model_dump(mode="json")], sort_keys=True)
        cache_key = f"fsclap-{stages[0].name}-{hashlib.sha256(material.encode()).hexdigest()[:32]}"
        results = context.result_store
        if results.exists(cache_key) and not _still_true(results.read(cache_key).result, stages, batch, store):
            return f"{cache_key}-{context.task_run.id}"
        return cache_key

    return key


def _still_true(recorded: Batch, stages: Sequence[Stage], batch: Batch, store: WorkStore) -> bool:
    """Whether every output that a recorded result names is there, and every refusal in it still counts."""
    alive = {item.episode.source_id: item for item in batch.alive}
    for done in recorded.items:
        before = alive.get(done.episode.source_id)
        for stage in stages if before is not None else ():
            step = done.steps.get(stage.name)
            if step is None or before is None or before.again or _found(stage, store, before) != step:
                return False
            if outcome(store, step).refusal is not None:
                break
    return True


def pieces(recordings: Iterable[T], seconds: Callable[[T], Seconds]) -> Iterator[list[T]]:
    """Group neighbours into pieces of at least `AT_ONCE` seconds, lazily.

    A stage records an engine's output for one piece before it starts the next, so a kill or a full disk costs at most
    one piece of the batch: several short recordings, or a single long one.
    """
    piece: list[T] = []
    length = 0.0
    for recording in recordings:
        piece.append(recording)
        length += seconds(recording)
        if length >= AT_ONCE:
            yield piece
            piece, length = [], 0.0
    if piece:
        yield piece


def _products(stage: Stage, items: list[Item]) -> Iterator[tuple[Item, Product | Refusal]]:
    """Yield each item with its product or refusal.

    An engine that takes all files at once may fail on the first because of the last. After an unforeseen error the
    remaining items go through one by one, and only those that fail alone have failed.
    """
    products = stage.produce(items)
    for position, item in enumerate(items):
        try:
            product = next(products)
        except TimeoutError:
            raise  # the task's own time limit
        except Exception as error:
            log.exception("%s: failed at %s", stage.name, item.episode.locator)
            if len(items) == 1:
                detail = f"{type(error).__name__}: {error}"
                yield item, Refusal(stage=stage.name, reason="internal_error", detail=detail, transient=True)
            else:
                for alone in items[position:]:
                    yield from _products(stage, [alone])
            return
        yield item, product


def _record(stage: Stage, store: WorkStore, step: Step, product: Product | Refusal) -> None:
    with store.write(step) as folder:
        if isinstance(product, Refusal):
            result = Outcome(seconds={}, refusal=product)
        else:
            product.write(folder)
            result = Outcome(seconds=product.seconds, facts=product.facts)
        (folder / OUTCOME).write_text(result.model_dump_json(indent=1))


def _log_outcome(stage: Stage, item: Item, product: Product | Refusal) -> None:
    name = f"{item.episode.series} {item.episode.name}"
    if isinstance(product, Refusal):
        log.warning("%s: %s refused (%s): %s", product.stage, name, product.reason, product.detail)
    else:
        facts = ", ".join(f"{key} {value}" for key, value in product.facts.items() if isinstance(value, int | float))
        log.info("%s: %s in %.1f s%s", stage.name, name, sum(product.seconds.values()), f" ({facts})" if facts else "")


class Stopwatch:
    """The seconds spent in its `with` blocks, added up."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> "Stopwatch":
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start
