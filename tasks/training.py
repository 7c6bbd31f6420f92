"""Training, as the flow sees it: where the model goes, what it is trained on, what people get to see of it."""

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from deltalake import DeltaTable
from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict

from fsclap.training.settings import WITHOUT_EFFECT, TrainSettings
from storage.card import data_uri
from storage.corpus import Corpus
from storage.models import ModelStore
from tasks.events import announce_event

if TYPE_CHECKING:
    from fsclap.data.clips import ClipStore
    from fsclap.data.splits import Split

log = logging.getLogger("fsclap.tasks")

TRAINED = "fsclap.training.finished"
"""The event that starts `evaluate-fsclap`; its payload is a `TrainedModel`."""
_KEPT_CLIPS = 2
"""Versions of a corpus whose clips stay in the work folder: the newest, and one that an evaluation may still read."""


class TrainedModel(BaseModel):
    """A finished training, as flows hand it on.

    Attributes:
        model: Folder of the model.
        validation: Mean of both directions' mAP@10 on the validation part, 0 to 1.
        clips: Clips of each part.
        new: Whether it was trained just now, not found finished.
    """

    model_config = ConfigDict(frozen=True)

    corpus: str
    version: int
    model: str
    validation: float
    clips: dict[str, int]
    new: bool


class TooFewClips(BaseModel):
    """A corpus version that is too small to train on, and what would help."""

    model_config = ConfigDict(frozen=True)

    reason: str


@task(task_run_name="train on {corpus} version {version}", cache_policy=NO_CACHE)
def train_model(
    corpus: str, version: int | None, models: str, work: str, settings: TrainSettings
) -> TrainedModel | TooFewClips:
    """Train on a corpus version, go on with a training that was interrupted, or find it finished."""
    from fsclap.data.splits import TooSmall
    from fsclap.training.loop import train
    from fsclap.training.record import Trained

    table = Corpus.open(corpus)
    version = table.version() if version is None else version
    store = ModelStore.open(models)
    name = run_name(store, table, version, settings)
    folder, found = store.folder(name), store.finished(name)
    if found:
        log.info("%s is finished: nothing to train", folder)
        trained = Trained.load(folder)
    else:
        try:
            clips = open_clips(table, version, work)
            split = _split(clips, folder, store, settings)
            cache = features_folder(work)
            trained = train(clips, split, settings, folder, cache=cache, corpus=corpus, version=version, progress=False)
        except TooSmall as error:
            return TooFewClips(reason=str(error))
    return TrainedModel(
        corpus=corpus,
        version=version,
        model=str(folder),
        validation=trained.validation,
        clips=trained.clips,
        new=not found,
    )


@task(task_run_name="show the training of {trained.model}", cache_policy=NO_CACHE)
def show_training(trained: TrainedModel) -> None:
    """Curves, and epochs as a table, as artifacts."""
    from fsclap.evaluation.plots import curves_figure, png
    from fsclap.evaluation.run import history_of

    history = history_of(Path(trained.model))
    curves = f"![Training curves]({data_uri(png(curves_figure(history)), 'image/png')})"
    create_markdown_artifact(_summary(trained) + "\n\n" + curves, key="training-report")
    create_table_artifact(history, key="training-epochs", description=f"Epochs of {trained.model}")


def show_too_small(corpus: str, found: TooFewClips) -> None:
    create_markdown_artifact(f"# No model was trained on `{corpus}`\n\n{found.reason}", key="training-report")
    log.warning("%s: %s", corpus, found.reason)


def announce_trained(trained: TrainedModel) -> bool:
    """Emit the event that starts the evaluation, unless the model was evaluated on this corpus version before."""
    if report_folder(trained.model, trained.corpus, trained.version).joinpath("evaluation.json").is_file():
        log.info("%s was evaluated before, no event", trained.model)
        return False
    announce_event(
        TRAINED,
        name=trained.model,
        resource=f"fsclap.model.{Path(trained.model).name}",
        payload=trained.model_dump(),
    )
    return True


def run_name(store: ModelStore, corpus: Corpus, version: int, settings: TrainSettings) -> str:
    """The name of a training: the same for the same corpus version and settings."""
    shaping = settings.model_dump(mode="json", exclude=set(WITHOUT_EFFECT))
    return store.name(corpus.location, version, {"table": _table_id(corpus), "settings": shaping})


def report_folder(model: str, corpus: str, version: int) -> Path:
    return Path(model) / "evaluation" / f"{_last_part(corpus)}-v{version}"


def features_folder(work: str) -> Path:
    return Path(work) / "features"


def open_clips(corpus: Corpus, version: int, work: str) -> "ClipStore":
    """The clips of a corpus version on local disk, copied there once; the copies of older versions are removed."""
    from fsclap.data.clips import ClipStore

    batches = corpus.dataset(version=version).to_batches(batch_size=256, batch_readahead=2, fragment_readahead=1)
    folder = Path(work) / "clips" / f"{_last_part(corpus.location)}-{_table_id(corpus)[:8]}"
    key = f"{_table_id(corpus)} version {version}"
    clips = ClipStore.create(folder / f"v{version}", batches, key=key, progress=False)
    known = sorted((int(path.name[1:]) for path in folder.glob("v*") if path.name[1:].isdigit()), reverse=True)
    for old in known[_KEPT_CLIPS:]:
        if old != version:
            shutil.rmtree(folder / f"v{old}", ignore_errors=True)
    return clips


def _split(clips: "ClipStore", folder: Path, store: ModelStore, settings: TrainSettings) -> "Split":
    """Of the interrupted run in this folder; else a new one, in which no clip or voice changes sides."""
    from fsclap.data.splits import Split, make_split

    if (folder / "split.json").is_file():
        return Split.load(folder / "split.json")
    current = store.promoted()
    earlier = Split.load(store.folder(current.model) / "split.json") if current else None
    return make_split(clips.table, settings.split, earlier)


def _table_id(corpus: Corpus) -> str:
    """A corpus that was deleted and built anew at the same place is another one, with the same version numbers."""
    return str(DeltaTable(corpus.uri("utterances")).metadata().id)


def _last_part(location: str) -> str:
    return location.rstrip("/").rsplit("/", 1)[-1]


def _summary(trained: TrainedModel) -> str:
    parts = ", ".join(f"{count:,} {part}" for part, count in trained.clips.items())
    return (
        f"# `{trained.model}`\n\nTrained on `{trained.corpus}` version {trained.version} ({parts} clips). "
        f"Validation mAP@10, mean of both directions: {100 * trained.validation:.2f} %."
    )
