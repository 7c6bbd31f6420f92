"""Speaker recognition (section 3.3): who speaks when, and what they say."""

from collections.abc import Iterator
from dataclasses import replace

from prefect import task

from fsclap.corpus.diarization import load_diarizer
from fsclap.corpus.turns import Turn, write_turns
from fsclap.timeline import Timeline
from storage.work import WorkStore
from tasks.batches import Batch, Item, Refusal
from tasks.declared import Plan
from tasks.outputs import DIARIZATION, SEPARATION, TURNS, map_vocals, seconds_of, timeline_of
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
                        turns = next(diarized)
                    yield _product(_within_sound(turns, timeline_of(item, store)), watch.seconds)

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


def _within_sound(turns: list[Turn], timeline: Timeline) -> list[Turn]:
    """Cut the silence that stands for a hole in the sound off the ends of turns."""
    trimmed = ((turn, *timeline.trimmed(turn.start, turn.end)) for turn in turns)
    return [replace(turn, start=start, end=end) for turn, start, end in trimmed]


def _product(turns: list[Turn], seconds: float) -> Product | Refusal:
    if not turns:
        detail = "no speech in the vocals of this recording; if it has another audio track, set decode.track"
        return Refusal(stage=DIARIZATION, reason="no_speech", detail=detail)
    return Product(
        write=lambda target: write_turns(target / TURNS, turns),
        seconds={DIARIZATION: seconds},
        facts={"turns": len(turns), "speakers": len({turn.speaker for turn in turns})},
    )
