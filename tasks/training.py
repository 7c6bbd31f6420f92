"""Tasks of the training flow: where the model goes, and what people see of it."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from deltalake import DeltaTable
from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from fsclap.evaluation.results import FILE
from fsclap.evaluation.words import corpus_name
from fsclap.settings import shaping
from fsclap.training.settings import TrainSettings
from storage.captions import captions_digest, read_captions, with_captions
from storage.corpus import Corpus
from storage.models import ModelStore, model_folder
from storage.objects import Place
from storage.rights import consenting, exclusion_key
from tasks import notes
from tasks.events import announce_event
from tasks.outcomes import TooFewClips, TrainedModel

if TYPE_CHECKING:
    from fsclap.data.clips import ClipStore
    from fsclap.data.splits import Split

log = logging.getLogger("fsclap.tasks")

TRAINED = "fsclap.training.finished"
"""The event that starts `evaluate-fsclap`; its payload is a `TrainedModel`."""


@task(task_run_name="train on {corpus} version {version}", cache_policy=NO_CACHE)
def train_model(
    corpus: str, version: int | None, models: str, work: str, settings: TrainSettings
) -> TrainedModel | TooFewClips:
    """Train on a corpus version, resume an interrupted training, or return a finished one."""
    from fsclap.data.splits import TooSmall
    from fsclap.training.loop import train
    from fsclap.training.model_card import CARD, write_model_card
    from fsclap.training.ranks import by_torchrun, is_first
    from fsclap.training.record import Trained

    table = Corpus.open(corpus)
    version = table.version() if version is None else version
    store = ModelStore.open(models)
    name = run_name(store, table, version, settings)
    folder, finished = store.folder(name), store.finished(name)
    if finished:
        log.info("%s is finished: nothing to train", folder)
        trained = Trained.load(folder)
    else:
        try:
            clips = open_clips(table, version, work)
            split = _split(clips, folder, store, settings)
            cache = features_folder(work)
            with store.keeping(name, folder):
                trained = train(
                    clips, split, settings, folder, cache=cache, corpus=corpus, version=version, progress=False
                )
        except TooSmall as error:
            return TooFewClips(reason=str(error))
    if not (folder / CARD).exists() and (
        is_first() or not by_torchrun()
    ):  # an interrupted run may have left a finished model without one
        write_model_card(folder, trained)
        store.keep(name, folder)
    return TrainedModel(
        corpus=corpus,
        version=version,
        model=store.place(name).location,
        validation=trained.validation,
        clips=trained.clips,
        kept=trained.kept,
        new=not finished,
    )


@task(task_run_name="show the training of {trained.model}", cache_policy=NO_CACHE)
def show_training(trained: TrainedModel) -> None:
    """Show the curves, and the epochs as a table, as artifacts."""
    from fsclap.evaluation.plots import curves_figure, png
    from fsclap.training.record import history_of

    history = history_of(model_folder(trained.model))
    create_markdown_artifact(notes.training_text(trained, png(curves_figure(history))), key="training-report")
    create_table_artifact(history, key="training-epochs", description=f"Epochs of {trained.model}")


def show_too_small(corpus: str, refusal: TooFewClips) -> None:
    create_markdown_artifact(f"# No model was trained on `{corpus}`\n\n{refusal.reason}", key="training-report")
    log.warning("%s: %s", corpus, refusal.reason)


def announce_trained(trained: TrainedModel) -> bool:
    """Emit the event that starts the evaluation, unless this version was evaluated."""
    if (Place.at(trained.model) / report_name(trained.corpus, trained.version)).exists(FILE):
        log.info("%s was evaluated before: no event", trained.model)
        return False
    announce_event(
        TRAINED,
        name=trained.model,
        resource=f"fsclap.model.{Place.at(trained.model).name}",
        payload=trained.model_dump(),
    )
    return True


def run_name(store: ModelStore, corpus: Corpus, version: int, settings: TrainSettings) -> str:
    """Name a training by all that shapes the model: corpus version, settings and the weights it starts from."""
    from fsclap.training.initial import start_of

    identity = {"table": _table_id(corpus), "settings": shaping(settings), "start": start_of(settings)}
    if without := exclusion_key(consenting(corpus)):
        identity["without"] = without
    return store.name(corpus.location, version, identity)


def report_name(corpus: str, version: int) -> str:
    """Name the folder of a report within that of its model."""
    return f"evaluation/{corpus_name(corpus)}-v{version}"


def features_folder(work: str) -> Path:
    return Path(work) / "features"


def open_clips(corpus: Corpus, version: int, work: str) -> "ClipStore":
    """Open the clips of a corpus version on local disk; copy them there if they are not.

    Those of sources whose consent is withdrawn are left out.
    """
    from fsclap.data.clips import ClipStore

    folder = Path(work) / "clips" / f"{corpus_name(corpus.location)}-{_table_id(corpus)[:8]}"
    corpus = consenting(corpus)
    batches = corpus.dataset(version=version).to_batches(batch_size=256, batch_readahead=2, fragment_readahead=1)
    key = f"{_table_id(corpus)} version {version}"
    if without := exclusion_key(corpus):
        key = f"{key} without {without}"
    if (several := captions_digest(corpus)) is not None:
        batches, key = with_captions(batches, read_captions(corpus)), f"{key} captions {several}"
    return ClipStore.create_version(folder, version, batches, key=key, progress=False)


def _split(clips: "ClipStore", folder: Path, store: ModelStore, settings: TrainSettings) -> "Split":
    """Reuse an interrupted run's split; otherwise keep each clip and voice on its side."""
    from fsclap.data.splits import Split, make_split

    if (folder / "split.json").is_file():
        return Split.load(folder / "split.json")
    current = store.promoted()
    earlier = Split.load(store.folder(current.model) / "split.json") if current else None
    return make_split(clips.table, settings.split, earlier)


def _table_id(corpus: Corpus) -> str:
    """Identify the corpus: a rebuilt one in the same place repeats version numbers."""
    return str(DeltaTable(corpus.uri("utterances")).metadata().id)
