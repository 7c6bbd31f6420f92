"""Index tasks: build the index of a corpus with the current model, and show it."""

import logging
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict

from storage.card import escape_markdown
from storage.models import ModelStore
from storage.versions import CorpusVersion
from tasks.evaluation import EvaluatedModel
from tasks.events import announce_event

log = logging.getLogger("fsclap.tasks")

EVALUATED = "fsclap.evaluation.finished"
"""Event that starts `index-corpus`; its payload: an `EvaluatedModel`, and `models`, their folder."""


class Indexed(BaseModel):
    """An index, as flows pass it on.

    Attributes:
        index: Folder of the index.
        clips, captions: Number of vectors.
        left_out: Number of clips that could not be decoded.
        current: True if the model is the current one; otherwise none was promoted yet, and it is
            the newest.
    """

    model_config = ConfigDict(frozen=True)

    corpus: str
    version: int
    model: str
    index: str
    clips: int
    captions: int
    left_out: int
    current: bool


def announce_evaluated(evaluated: EvaluatedModel) -> None:
    """Emit the event that starts the index: the current model or the corpus may have changed."""
    announce_event(
        EVALUATED,
        name=evaluated.model,
        resource=f"fsclap.model.{Path(evaluated.model).name}",
        payload={**evaluated.model_dump(), "models": str(Path(evaluated.model).parent)},
    )


@task(task_run_name="embed {corpus}", cache_policy=NO_CACHE)  # the index knows what it holds
def build_index(corpus: str, version: int | None, models: str, index: str | None) -> Indexed:
    """Embed what the index lacks, with the current model."""
    from fsclap.retrieval import build
    from fsclap.retrieval.index import index_folder

    store = ModelStore.open(models)
    name = store.to_search_with()
    if name is None:
        raise ValueError(f"{models} has no finished model; run train-fsclap first")
    folder = Path(index) if index else index_folder(corpus)
    found = build.build_index(folder, store.folder(name), CorpusVersion.open(corpus, version), progress=False).record
    current = store.promoted()
    return Indexed(
        corpus=found.corpus,
        version=found.version,
        model=found.model,
        index=str(folder),
        clips=found.clips,
        captions=found.captions,
        left_out=len(found.left_out),
        current=current is not None and current.model == name,
    )


@task(task_run_name="show the index {indexed.index}", cache_policy=NO_CACHE)
def show_index(indexed: Indexed) -> None:
    """Show the contents of the index and the commands to search it, as an artifact."""
    lines = [
        f"# {escape_markdown(indexed.index)}",
        f"{indexed.clips:,} clips and {indexed.captions:,} captions of {escape_markdown(indexed.corpus)} version "
        f"{indexed.version}, embedded with {escape_markdown(indexed.model)}.",
    ]
    if not indexed.current:
        lines.append("**No model was promoted yet**: this is the newest one. Do not trust its results.")
    if indexed.left_out:
        lines.append(f"{indexed.left_out:,} clips could not be decoded; `index.json` names them.")
    lines.append(
        f'```\nfsclap search "a weary voice, speaking slowly" --index {indexed.index}\n'
        f"fsclap app --index {indexed.index}\n```"
    )
    create_markdown_artifact("\n\n".join(lines), key="search-index")
