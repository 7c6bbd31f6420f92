"""Speaker aggregation (section 3.3, Eq. 4 and 5): turns that sound like their speaker's other turns stay.

Turns that `selection` leaves out go first, so that they have no say in Eq. 5.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict

from prefect import task

from fsclap.corpus.filtering import consistency, selection
from fsclap.corpus.filtering.consistency import Verdict
from fsclap.corpus.settings import BuildSettings
from fsclap.corpus.turns import Turn
from fsclap.timeline import Timeline
from storage.work import WorkStore
from tasks.batches import Batch, Item, Refusal
from tasks.declared import Plan
from tasks.outputs import (
    CONSISTENCY,
    DIARIZATION,
    QUALITY,
    TAGGING,
    VERDICTS,
    read_qualities,
    read_tags,
    timeline_of,
    turns_of,
)
from tasks.stages import Product, Stage, Stopwatch, run_stage, stage_cache_key


def consistency_stage(store: WorkStore, plan: Plan) -> Stage:
    settings = plan.settings

    def produce(items: list[Item]) -> Iterator[Product | Refusal]:
        for item in items:
            turns = turns_of(item, store)
            with Stopwatch() as watch:
                verdicts = consistency.judge(
                    turns,
                    settings.consistency,
                    engine=settings.engine("diarization"),
                    exclusions=_exclusions(item, turns, store, settings),
                )
            yield _product(verdicts, watch.seconds)

    return Stage(
        name=CONSISTENCY,
        declared=plan.stages[CONSISTENCY],
        inputs=lambda item: [item.steps[stage].key for stage in _deciding_stages(settings) if stage in item.steps],
        produce=produce,
    )


@task(
    task_run_name="filter speakers of {batch.name}",
    cache_key_fn=stage_cache_key(consistency_stage),
    persist_result=True,
    timeout_seconds=3600,
)
def filter_speakers(batch: Batch, work: str, plan: Plan) -> Batch:
    """Judge every turn of a batch by its mean similarity to its speaker's other turns."""
    store = WorkStore(work)
    return run_stage(consistency_stage(store, plan), batch, store)


def _deciding_stages(settings: BuildSettings) -> list[str]:
    """List the stages whose output decides: without selection by language, the emotion engine has no say."""
    selected = settings.selection
    return [
        DIARIZATION,
        *([TAGGING] if selected.languages is not None else []),
        *([QUALITY] if selected.min_quality is not None else []),
    ]


def _exclusions(
    item: Item, turns: list[Turn], store: WorkStore, settings: BuildSettings
) -> list[selection.Exclusion | None]:
    tags, qualities = read_tags(item, store, len(turns)), read_qualities(item, store, len(turns))
    selected = selection.select(
        turns,
        languages=[turn.language or tag.language for turn, tag in zip(turns, tags, strict=True)],
        qualities=[None if quality is None else quality.overall for quality in qualities],
        settings=settings.selection,
    )
    timeline = timeline_of(item, store)
    return [_hole(turn, timeline) or exclusion for turn, exclusion in zip(turns, selected, strict=True)]


def _hole(turn: Turn, timeline: Timeline) -> selection.Exclusion | None:
    """Exclude a turn that was not said in one go; which of its words come before the hole is not known."""
    if not timeline.spans_hole(turn.start, turn.end):
        return None
    detail = "sound is missing in the middle of it; a smaller diarization.merge_gap divides it there"
    return selection.Exclusion("spans_hole", detail)


def _product(verdicts: list[Verdict], seconds: float) -> Product:
    text = json.dumps([asdict(verdict) for verdict in verdicts], indent=0)
    return Product(
        write=lambda target: (target / VERDICTS).write_text(text),
        seconds={CONSISTENCY: seconds},
        facts={"kept": sum(verdict.kept for verdict in verdicts), "of": len(verdicts)},
    )
