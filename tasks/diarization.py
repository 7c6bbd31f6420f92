"""Speaker recognition (section 3.3): who speaks when, and what they say."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from prefect import task

from fsclap import Hertz
from fsclap.audio import map_wave
from fsclap.corpus.diarization import load_diarizer
from fsclap.corpus.turns import Turn, read_turns, write_turns
from storage.work import WorkStore
from tasks.batches import Batch, Item, Refusal
from tasks.declared import Plan
from tasks.separation import STAGE as SEPARATION
from tasks.separation import VOCALS, seconds_of
from tasks.stages import Product, Stage, Stopwatch, folder, pieces, run_stage, stage_cache_key

STAGE = "diarization"
TURNS = "turns.parquet"


def diarization_stage(store: WorkStore, plan: Plan) -> Stage:
    diarizer = load_diarizer(plan.settings.diarization, plan.settings.device)

    def produce(items: list[Item]) -> Iterator[Product | Refusal]:
        for piece in pieces(items, lambda item: seconds_of(item, store)):
            with store.scratch() as scratch:
                rate = diarizer.sample_rate
                vocals = [map_vocals(item, store, rate, scratch / f"{n}.f32") for n, item in enumerate(piece)]
                diarized = diarizer.diarize(vocals)
                for _ in piece:
                    with Stopwatch() as watch:
                        turns = next(diarized)
                    yield _product(turns, watch.seconds)

    return Stage(
        name=STAGE,
        declared=plan.stages[STAGE],
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
    """Find the turns of a batch: speaker, text and speaker embedding of each."""
    store = WorkStore(work)
    return run_stage(diarization_stage(store, plan), batch, store)


def map_vocals(item: Item, store: WorkStore, sample_rate: Hertz, destination: Path) -> np.ndarray:
    """(samples,) float32 vocals of an episode at the rate a model wants: a memory map of `destination`."""
    return map_wave(folder(store, item.steps[SEPARATION]) / VOCALS, destination, sample_rate=sample_rate)


def turns_of(item: Item, store: WorkStore) -> list[Turn]:
    return read_turns(folder(store, item.steps[STAGE]) / TURNS)


def _product(turns: list[Turn], seconds: float) -> Product | Refusal:
    if not turns:
        detail = "no speech was found in the vocals of this recording; is it in the video's first audio track?"
        return Refusal(stage=STAGE, reason="no_speech", detail=detail)
    return Product(
        write=lambda target: write_turns(target / TURNS, turns),
        seconds={STAGE: seconds},
        facts={"turns": len(turns), "speakers": len({turn.speaker for turn in turns})},
    )
