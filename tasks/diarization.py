"""Speaker recognition (section 3.3): who speaks when, and what they say."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

from prefect import task

from fsclap.corpus.diarization import load_diarizer
from fsclap.corpus.turns import Diarized, Dropped, Turn, write_turns
from fsclap.timeline import Timeline
from storage.work import WorkStore
from tasks.batches import Batch, Item, Refusal
from tasks.declared import Plan
from tasks.outputs import DIARIZATION, DROPPED, SEPARATION, TURNS, map_vocals, seconds_of, timeline_of
from tasks.stages import Product, Stage, Stopwatch, pieces, run_stage, stage_cache_key


def diarization_stage(store: WorkStore, plan: Plan) -> Stage:
    diarizer = load_diarizer(plan.settings.diarization, plan.settings.device)

    def produce(items: list[Item]) -> Iterator[Product | Refusal]:
        for piece in pieces(items, lambda item: seconds_of(item, store)):
            with store.scratch() as scratch:
                rate = diarizer.sample_rate
                vocals = [map_vocals(item, store, rate, scratch / f"{n}.f32") for n, item in enumerate(piece)]
                diarized = diarizer.diarize(vocals)
                for item in piece:
                    with Stopwatch() as watch:
                        found = next(diarized)
                    yield _product(_within_sound(found, timeline_of(item, store)), watch.seconds)

    return Stage(
        name=DIARIZATION,
        declared=plan.stages[DIARIZATION],
        inputs=lambda item: [item.steps[SEPARATION].key],
        produce=produce,
    )


@task(
    task_run_name="diarize {batch.name}",
    cache_key_fn=stage_cache_key(diarization_stage),
    persist_result=True,
    timeout_seconds=12 * 3600,
)
def diarize(batch: Batch, work: str, plan: Plan) -> Batch:
    """Split a batch into turns, each with its speaker, text and speaker embedding."""
    store = WorkStore(work)
    return run_stage(diarization_stage(store, plan), batch, store)


def _within_sound(found: Diarized, timeline: Timeline) -> Diarized:
    """Cut the silence that stands for a hole in the sound off the ends of turns."""
    return Diarized(
        [_trimmed(turn, timeline) for turn in found.turns], [_trimmed(one, timeline) for one in found.dropped]
    )


Stretch = TypeVar("Stretch", Turn, Dropped)


def _trimmed(stretch: Stretch, timeline: Timeline) -> Stretch:
    start, end = timeline.trimmed(stretch.start, stretch.end)
    return replace(stretch, start=start, end=end)


def _product(found: Diarized, seconds: float) -> Product | Refusal:
    if not found.turns:
        return Refusal(stage=DIARIZATION, reason="no_speech", detail=_nothing(found.dropped))

    def write(target: Path) -> None:
        write_turns(target / TURNS, found.turns)
        (target / DROPPED).write_text(json.dumps([asdict(one) for one in found.dropped], indent=0))

    return Product(
        write=write,
        seconds={DIARIZATION: seconds},
        facts={
            "turns": len(found.turns),
            "speakers": len({turn.speaker for turn in found.turns}),
            "dropped": len(found.dropped),
        },
    )


def _nothing(dropped: list[Dropped]) -> str:
    if not dropped:
        return "no speech in the vocals of this recording; if it has another audio track, set decode.track"
    longest = max(dropped, key=lambda one: one.end - one.start)
    where = f"the longest of {len(dropped)} stretches begins at {longest.start:.2f} s"
    return f"no speech that makes a turn; {where}: {longest.detail}"
