"""Audio captioning (section 3.3): describe in words how each kept turn is spoken."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace

from prefect import task

from fsclap.corpus.captioning.attributes import Attributes
from fsclap.corpus.captioning.describe import Description, describe
from fsclap.corpus.settings import BuildSettings
from fsclap.corpus.turns import Turn
from storage.work import WorkStore
from tasks.batches import Batch, Item, Refusal
from tasks.declared import Plan
from tasks.outputs import (
    ATTRIBUTES,
    CAPTIONING,
    CONSISTENCY,
    DESCRIPTIONS,
    TAGGING,
    read_attributes,
    read_tags,
    read_verdicts,
    turns_of,
    utterance_id,
)
from tasks.stages import Product, Stage, Stopwatch, run_stage, stage_cache_key


def captioning_stage(store: WorkStore, plan: Plan) -> Stage:
    def produce(items: list[Item]) -> Iterator[Product | Refusal]:
        for item in items:
            with Stopwatch() as watch:
                described = _describe(item, store, plan.settings)
            yield _product(described, watch.seconds)

    return Stage(
        name=CAPTIONING,
        declared=plan.stages[CAPTIONING],
        inputs=lambda item: [
            *(item.steps[stage].key for stage in (ATTRIBUTES, TAGGING, CONSISTENCY) if stage in item.steps),
            item.episode.source_id,
        ],
        produce=produce,
    )


@task(
    task_run_name="caption {batch.name}",
    cache_key_fn=stage_cache_key(captioning_stage),
    persist_result=True,
    timeout_seconds=12 * 3600,
)
def caption(batch: Batch, work: str, plan: Plan) -> Batch:
    """Describe how every kept turn of a batch is spoken."""
    store = WorkStore(work)
    return run_stage(captioning_stage(store, plan), batch, store)


def _describe(item: Item, store: WorkStore, settings: BuildSettings) -> list[Description]:
    turns = turns_of(item, store)
    measured, tags = read_attributes(item, store), read_tags(item, store, len(turns))
    kept = [number for number, verdict in enumerate(read_verdicts(item, store)) if verdict.kept]
    return describe(
        [_of_speech(measured[number], turns[number]) for number in kept],
        speakers=[str(turns[number].speaker) for number in kept],
        tags=[tags[number] for number in kept],
        ids=[utterance_id(item.episode.source_id, number) for number in kept],
        settings=settings.captioning,
    )


def _of_speech(attributes: Attributes, turn: Turn) -> Attributes:
    """Leave out the pace of what is no speech."""
    return attributes if turn.kind == "speech" else replace(attributes, speaking_rate=None, pause_ratio=None)


def _product(described: list[Description], seconds: float) -> Product:
    text = json.dumps([asdict(one) for one in described], indent=0)
    return Product(
        write=lambda target: (target / DESCRIPTIONS).write_text(text),
        seconds={CAPTIONING: seconds},
        facts={"utterances": len(described)},
    )
