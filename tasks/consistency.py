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
from storage.work import WorkStore
from tasks.batches import Batch, Item, Refusal
from tasks.declared import Plan
from tasks.outputs import CONSISTENCY, DIARIZATION, QUALITY, TAGGING, VERDICTS, read_qualities, read_tags, turns_of
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
    return selection.select(
        turns,
        languages=[turn.language or tag.language for turn, tag in zip(turns, tags, strict=True)],
        qualities=[None if quality is None else quality.overall for quality in qualities],
        settings=settings.selection,
    )


def _product(verdicts: list[Verdict], seconds: float) -> Product:
    text = json.dumps([asdict(verdict) for verdict in verdicts], indent=0)
    return Product(
        write=lambda target: (target / VERDICTS).write_text(text),
        seconds={CONSISTENCY: seconds},
        facts={"kept": sum(verdict.kept for verdict in verdicts), "of": len(verdicts)},
    )
