"""Audio captioning (section 3.3): how each kept turn is spoken, in numbers and in words.

Two stages of the work store. Attributes are measured on every turn, so that another threshold measures
nothing again; the description is made for the turns that were kept.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict

from prefect import task

from fsclap.audio import sample_index
from fsclap.corpus import attributes, captioning
from fsclap.corpus.attributes import Attributes
from fsclap.corpus.captioning import Description, Tags
from fsclap.corpus.settings import BuildSettings, shaping
from fsclap.corpus.turns import Turn, read_turns
from storage.work import WorkStore
from tasks.batches import Batch, Item, Refusal
from tasks.consistency import STAGE as CONSISTENCY
from tasks.consistency import read_verdicts
from tasks.diarization import STAGE as DIARIZATION
from tasks.diarization import TURNS, read_vocals
from tasks.stages import Product, Stage, Stopwatch, folder, run_stage, stage_cache_key

MEASURE = "attributes"
STAGE = "captioning"
ATTRIBUTES = "attributes.json"
DESCRIPTIONS = "descriptions.json"
MEASURE_RATE = 16_000


def attributes_stage(store: WorkStore) -> Stage:
    def produce(items: list[Item]) -> Iterator[Product | Refusal]:
        for item in items:
            vocals = read_vocals(item, store, MEASURE_RATE)
            with Stopwatch() as watch:
                measured = [
                    attributes.measure(
                        vocals[sample_index(turn.start, MEASURE_RATE) : sample_index(turn.end, MEASURE_RATE)],
                        MEASURE_RATE,
                    )
                    for turn in turns_of(item, store)
                ]
            yield _product(ATTRIBUTES, [asdict(one) for one in measured], MEASURE, watch.seconds)

    return Stage(
        name=MEASURE,
        engine="world",
        parameters={"sample_rate": MEASURE_RATE},
        inputs=lambda item: [item.steps[DIARIZATION].key],
        produce=produce,
    )


def captioning_stage(store: WorkStore, settings: BuildSettings) -> Stage:
    measures = attributes_stage(store)

    def produce(items: list[Item]) -> Iterator[Product | Refusal]:
        for item in items:
            with Stopwatch() as watch:
                described = _describe(item, store, settings)
            yield _product(DESCRIPTIONS, [asdict(one) for one in described], STAGE, watch.seconds)

    return Stage(
        name=STAGE,
        engine=captioning_engine(settings),
        parameters=shaping(settings.captioning),
        inputs=lambda item: [measures.step(item).key, item.steps[CONSISTENCY].key, item.episode.source_id],
        produce=produce,
    )


@task(
    task_run_name="caption {batch.name}",
    cache_key_fn=stage_cache_key(captioning_stage),
    persist_result=True,
    timeout_seconds=12 * 3600,
)
def caption(batch: Batch, work: str, settings: BuildSettings) -> Batch:
    """Describe how every kept turn of a batch is spoken."""
    store = WorkStore(work)
    measured = run_stage(attributes_stage(store), batch, store)
    return run_stage(captioning_stage(store, settings), measured, store)


def captioning_engine(settings: BuildSettings) -> str:
    return f"{settings.captioning.engine}@{captioning.revision(settings.captioning)}"


def turns_of(item: Item, store: WorkStore) -> list[Turn]:
    return read_turns(folder(store, item.steps[DIARIZATION]) / TURNS)


def read_attributes(item: Item, store: WorkStore) -> list[Attributes]:
    text = (folder(store, item.steps[MEASURE]) / ATTRIBUTES).read_text()
    return [Attributes(**row) for row in json.loads(text)]


def read_descriptions(item: Item, store: WorkStore) -> list[Description]:
    """One description a kept turn, in order."""
    text = (folder(store, item.steps[STAGE]) / DESCRIPTIONS).read_text()
    return [Description(**row) for row in json.loads(text)]


def utterance_id(source_id: str, turn: int) -> str:
    return f"{source_id}-{turn:05d}"


def _describe(item: Item, store: WorkStore, settings: BuildSettings) -> list[Description]:
    turns = turns_of(item, store)
    measured = read_attributes(item, store)
    kept = [number for number, verdict in enumerate(read_verdicts(item, store)) if verdict.kept]
    return captioning.describe(
        [measured[number] for number in kept],
        speakers=[str(turns[number].speaker) for number in kept],
        tags=[Tags()] * len(kept),
        ids=[utterance_id(item.episode.source_id, number) for number in kept],
        settings=settings.captioning,
    )


def _product(name: str, rows: list[dict[str, object]], stage: str, seconds: float) -> Product:
    text = json.dumps(rows, indent=0)
    return Product(
        write=lambda target: (target / name).write_text(text),
        seconds={stage: seconds},
        facts={"utterances": len(rows)},
    )
