"""Speaker aggregation (section 3.3, Eq. 4 and 5): turns that sound like their speaker's other turns stay."""

import json
from collections.abc import Iterator
from dataclasses import asdict

from prefect import task

from fsclap.corpus import consistency
from fsclap.corpus.consistency import Verdict
from fsclap.corpus.settings import BuildSettings, shaping
from fsclap.corpus.turns import read_turns
from storage.work import WorkStore
from tasks.batches import Batch, Item, Refusal
from tasks.diarization import STAGE as DIARIZATION
from tasks.diarization import TURNS
from tasks.stages import Product, Stage, Stopwatch, folder, run_stage, stage_cache_key

STAGE = "consistency"
VERDICTS = "verdicts.json"


def consistency_stage(store: WorkStore, settings: BuildSettings) -> Stage:
    chosen = settings.consistency
    threshold = consistency.effective_threshold(chosen, settings.diarization.engine)

    def produce(items: list[Item]) -> Iterator[Product | Refusal]:
        for item in items:
            turns = read_turns(folder(store, item.steps[DIARIZATION]) / TURNS)
            with Stopwatch() as watch:
                verdicts = consistency.judge(turns, chosen, engine=settings.diarization.engine)
            yield _product(verdicts, watch.seconds)

    return Stage(
        name=STAGE,
        engine="eq5",
        parameters={**shaping(chosen), "threshold": threshold},
        inputs=lambda item: [item.steps[DIARIZATION].key],
        produce=produce,
    )


@task(
    task_run_name="filter speakers of {batch.name}",
    cache_key_fn=stage_cache_key(consistency_stage),
    persist_result=True,
    timeout_seconds=3600,
)
def filter_speakers(batch: Batch, work: str, settings: BuildSettings) -> Batch:
    """Judge every turn of a batch by its mean similarity to its speaker's other turns."""
    store = WorkStore(work)
    return run_stage(consistency_stage(store, settings), batch, store)


def read_verdicts(item: Item, store: WorkStore) -> list[Verdict]:
    text = (folder(store, item.steps[STAGE]) / VERDICTS).read_text()
    return [Verdict(**row) for row in json.loads(text)]


def _product(verdicts: list[Verdict], seconds: float) -> Product:
    text = json.dumps([asdict(verdict) for verdict in verdicts], indent=0)
    return Product(
        write=lambda target: (target / VERDICTS).write_text(text),
        seconds={STAGE: seconds},
        facts={"kept": sum(verdict.kept for verdict in verdicts), "of": len(verdicts)},
    )
