"""Index tasks: build the index of a corpus with the current model, and show it."""

import logging

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from storage.copies import local_copy, upload
from storage.models import ModelStore
from storage.objects import Place
from storage.versions import CorpusVersion
from tasks import notes
from tasks.events import announce_event
from tasks.outcomes import EvaluatedModel, Indexed

log = logging.getLogger("fsclap.tasks")

EVALUATED = "fsclap.evaluation.finished"
"""Event that starts `index-corpus`; its payload: an `EvaluatedModel`, and `models`, their folder."""
PROMOTION, NOT_PROMOTED = "fsclap.promoted", "no"
"""Label of that event, and its value for a model that did not become the current one (deployments/notify.py)."""


def announce_evaluated(evaluated: EvaluatedModel) -> None:
    """Emit the event that starts the index: the current model or the corpus may have changed."""
    model = Place.at(evaluated.model)
    announce_event(
        EVALUATED,
        name=evaluated.model,
        resource=f"fsclap.model.{model.name}",
        payload={**evaluated.model_dump(), "models": model.parent.location},
        labels={PROMOTION: "yes" if evaluated.promoted else NOT_PROMOTED},
    )


@task(task_run_name="embed {corpus}", cache_policy=NO_CACHE)  # the index knows what it holds
def build_index(corpus: str, version: int | None, models: str, index: str | None) -> Indexed:
    """Embed what the index lacks, with the current model."""
    from fsclap.retrieval import build
    from fsclap.retrieval.index import RECORD, index_location
    from fsclap.retrieval.status import model_status

    store = ModelStore.open(models)
    name = store.to_search_with()
    if name is None:
        raise ValueError(f"{models} has no finished model; run train-fsclap first")
    place = Place.at(index or index_location(corpus))
    folder, model = local_copy(place), store.folder(name)
    current = store.promoted()
    status = model_status(model, promoted=current is not None and current.model == name)
    found = build.build_index(
        folder,
        model,
        CorpusVersion.open(corpus, version),
        model_location=store.place(name).location,
        status=status,
        progress=False,
    ).record
    upload(folder, place, last=[RECORD])
    return Indexed(
        corpus=found.corpus,
        version=found.version,
        model=found.model,
        index=place.location,
        clips=found.clips,
        captions=found.captions,
        left_out=len(found.left_out),
        current=status.promoted,
    )


@task(task_run_name="show the index {indexed.index}", cache_policy=NO_CACHE)
def show_index(indexed: Indexed) -> None:
    """Show the contents of the index and the commands to search it, as an artifact."""
    create_markdown_artifact(notes.index_text(indexed), key="search-index")
