"""Measure every turn: acoustic attributes, emotion and events, quality of the sound.

Each is a stage of the work store of its own, over all turns, so that another threshold or wording measures nothing
again. What a build does not ask for is not measured.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task

from fsclap import Hertz
from fsclap.audio import sample_index
from fsclap.corpus.captioning import attributes, load_tagger
from fsclap.corpus.filtering import load_scorer
from storage.work import WorkStore
from tasks.batches import Batch, Item, Refusal
from tasks.declared import Plan
from tasks.outputs import ATTRIBUTES, DIARIZATION, QUALITY, TAGGING, map_vocals, seconds_of, turns_of
from tasks.stages import Product, Stage, Stopwatch, pieces, run_stage, stage_cache_key

Measure = Callable[[Sequence[np.ndarray]], Iterator[dict[str, Any]]]


def attributes_stage(store: WorkStore, plan: Plan) -> Stage:
    rate = attributes.RATE
    return _stage(
        ATTRIBUTES, plan, store, rate, lambda clips: (asdict(attributes.measure(clip, rate)) for clip in clips)
    )


def tagging_stage(store: WorkStore, plan: Plan) -> Stage | None:
    """None when no engine tags emotion."""
    tagger = load_tagger(plan.settings.captioning, plan.settings.device)
    if tagger is None:
        return None
    return _stage(TAGGING, plan, store, tagger.sample_rate, lambda clips: map(asdict, tagger.tag(clips)))


def quality_stage(store: WorkStore, plan: Plan) -> Stage | None:
    """None when the quality of the sound is not rated."""
    scorer = load_scorer(plan.settings.quality)
    if scorer is None:
        return None
    return _stage(QUALITY, plan, store, scorer.sample_rate, lambda clips: map(asdict, scorer.score(clips)))


STAGES = (attributes_stage, tagging_stage, quality_stage)


@task(
    task_run_name="measure {batch.name}",
    cache_key_fn=stage_cache_key(*STAGES),
    persist_result=True,
    timeout_seconds=12 * 3600,
)
def measure(batch: Batch, work: str, plan: Plan) -> Batch:
    """Measure how every turn of a batch is spoken, in numbers and tags."""
    store = WorkStore(work)
    for stage in filter(None, (make(store, plan) for make in STAGES)):
        batch = run_stage(stage, batch, store)
    return batch


def _stage(name: str, plan: Plan, store: WorkStore, rate: Hertz, measured: Measure) -> Stage:
    def produce(items: list[Item]) -> Iterator[Product | Refusal]:
        # The engine gets all clips of a piece at once and sorts them by length; its time is shared out by theirs.
        for piece in pieces(items, lambda item: seconds_of(item, store)):
            with store.scratch() as scratch:
                clips = [clips_of(item, store, rate, scratch / f"{number}.f32") for number, item in enumerate(piece)]
                with Stopwatch() as watch:
                    rows = list(measured([clip for own in clips for clip in own]))
            a_sample = watch.seconds / max(1, sum(len(clip) for own in clips for clip in own))
            left = iter(rows)
            for own in clips:
                yield _product(name, list(islice(left, len(own))), a_sample * sum(map(len, own)))

    return Stage(name, plan.stages[name], lambda item: [item.steps[DIARIZATION].key], produce)


def clips_of(item: Item, store: WorkStore, rate: Hertz, destination: Path) -> list[np.ndarray]:
    """Cut the vocals into turns: (samples,) float32 each at the given rate, views of a memory map."""
    vocals = map_vocals(item, store, rate, destination)
    return [vocals[sample_index(turn.start, rate) : sample_index(turn.end, rate)] for turn in turns_of(item, store)]


def _product(stage: str, rows: list[dict[str, Any]], seconds: float) -> Product:
    text = json.dumps(rows, indent=0)
    return Product(
        write=lambda target: (target / f"{stage}.json").write_text(text),
        seconds={stage: seconds},
        facts={"turns": len(rows)},
    )
