"""From a corpus to a model, its evaluation, the promotion and the index, as real flows."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client

from flows.index_corpus import index_corpus
from fsclap.data.splits import Split
from fsclap.evaluation.results import Evaluation
from fsclap.retrieval.search import Searcher
from fsclap.training.settings import TrainSettings
from storage.card import escape_markdown
from storage.corpus import Corpus
from storage.models import HISTORY, Decision, ModelStore
from tasks.indexing import EVALUATED
from tasks.outcomes import TrainedModel
from tasks.training import announce_trained
from tests.flows.built import artifacts
from tests.flows.trained import Place, Trained, commit
from tests.fsclap.training.conftest import tiny

FEW = {"min_train_clips": 8, "min_eval_clips": 8}


pytestmark = pytest.mark.usefixtures("prefect_server")


def decisions(models: Path | str) -> list[Decision]:
    return [Decision.model_validate_json(line) for line in (Path(models) / HISTORY).read_text().splitlines()]


@pytest.fixture
def place(trained: Trained, tmp_path: Path) -> tuple[Place, TrainedModel]:
    """A copy of the models that a test may change; corpus and work folder are shared."""
    models = tmp_path / "models"
    shutil.copytree(trained.place.models, models)
    model = trained.model.model_copy(update={"model": str(models / Path(trained.model.model).name)})
    return replace(trained.place, models=str(models)), model


def written(folder: str) -> dict[str, int]:
    """File -> when it was written."""
    return {str(path): path.stat().st_mtime_ns for path in Path(folder).rglob("*") if path.is_file()}


def test_a_finished_training_is_not_repeated(place: tuple[Place, TrainedModel]) -> None:
    where, model = place
    before = written(where.models)
    state = where.train(tiny())
    assert state.result() == model.model_copy(update={"new": False})
    assert written(where.models) == before
    assert set(artifacts(state)) == {"training-report", "training-epochs"}
    other = where.train(tiny(epochs=1)).result()
    assert (other.model != model.model, other.new) == (True, True)


def test_a_model_is_evaluated_reported_and_judged(place: tuple[Place, TrainedModel]) -> None:
    where, model = place
    assert announce_trained(model)
    state = where.evaluate(model)
    evaluated = state.result()
    report = Path(evaluated.report)
    assert report.is_relative_to(model.model)
    assert "map.png" in {path.name for path in report.parent.iterdir()}
    evaluation = Evaluation.load(report.parent / "evaluation.json")
    assert evaluation.clips == model.clips["test"]
    assert not evaluated.leaks
    shown = artifacts(state)
    assert set(shown) == {"evaluation-report", "evaluation-metrics", "evaluation-page"}
    assert escape_markdown(evaluated.reason) in shown["evaluation-report"]
    assert "data:image/png;base64," in shown["evaluation-report"]
    assert report.resolve().as_uri() in shown["evaluation-page"]
    (decision,) = decisions(where.models)
    assert (decision.model, decision.against, decision.promoted) == (Path(model.model).name, None, evaluated.promoted)
    assert decision.reason == evaluated.reason
    assert (ModelStore.open(where.models).promoted() is not None) == evaluated.promoted
    assert not announce_trained(model), "an evaluated model is not announced again"
    announced = asyncio.run(_events(EVALUATED, f"fsclap.model.{Path(model.model).name}"))
    index_request = {name: announced[0]["payload"][name] for name in ("models", "corpus", "version")}
    assert index_request == {"models": where.models, "corpus": where.corpus, "version": model.version}


def test_a_corpus_is_indexed_once_and_its_index_answers(place: tuple[Place, TrainedModel], tmp_path: Path) -> None:
    where, model = place
    parameters = (where.corpus, None, where.models, str(tmp_path / "index"))
    state = index_corpus(*parameters, return_state=True)
    indexed = state.result()
    assert (indexed.model, indexed.version, indexed.left_out) == (model.model, model.version, 0)
    assert indexed.clips == Corpus.open(where.corpus).totals().turns_kept
    shown = artifacts(state)["search-index"]
    assert "No model was promoted yet" in shown
    assert "fsclap search" in shown
    hits = Searcher.open(indexed.index).search("a low voice", top=3)
    assert len(hits) == 3
    before = written(indexed.index)
    assert index_corpus(*parameters) == indexed
    assert written(indexed.index) == before


def test_a_leaking_model_fails_the_run_and_is_not_promoted(trained: Trained, tmp_path: Path) -> None:
    where = replace(trained.place, models=str(tmp_path / "models"))
    settings = tiny()
    paired = settings.model_copy(update={"model": settings.model.model_copy(update={"fusion": "paired"})})
    model = where.train(paired).result()
    state = where.evaluate(model)
    assert state.is_failed()
    assert "embeddings leak" in state.message
    assert not asyncio.run(_events(EVALUATED, f"fsclap.model.{Path(model.model).name}")), "nothing to search with"
    assert "This model leaks" in artifacts(state)["evaluation-report"]
    (report,) = Path(model.model).rglob("report.html")
    assert "This model leaks" in report.read_text()
    (decision,) = decisions(where.models)
    assert (decision.promoted, decision.reason) == (False, "it leaks")


@pytest.mark.slow
def test_test_clips_of_the_current_model_stay_test_clips(trained: Trained, tmp_path: Path) -> None:
    where = Place.within(tmp_path)
    corpus = Corpus.open(where.corpus, create=True)
    commit(corpus, trained.sources["a" * 16], "a" * 16)
    first = where.train(tiny(split=FEW | {"seed": 3})).result()
    promote(where, first)
    commit(corpus, trained.sources["b" * 16], "b" * 16)
    second = where.train(tiny(split=FEW | {"seed": 4})).result()
    before, after = (Split.load(Path(model.model) / "split.json") for model in (first, second))
    for part in ("validation", "test"):
        assert not set(before.ids(part)) & set(after.train)  # type: ignore[arg-type]
    assert len(after.train) > len(before.train)
    evaluated = where.evaluate(second).result()
    (_, decision) = decisions(where.models)
    assert decision.against == Path(first.model).name
    assert decision.clips == len(set(after.validation) - set(before.train))
    assert (
        decision.promoted == evaluated.promoted == (decision.difference is not None and decision.difference["low"] > 0)
    )


def promote(place: Place, model: TrainedModel) -> None:
    ModelStore.open(place.models).record(
        Decision(
            model=Path(model.model).name,
            against=None,
            promoted=True,
            reason="it beats chance",
            figure=None,
            difference=None,
            clips=0,
            date="2026-11-23",
        )
    )


def test_a_corpus_that_is_too_small_ends_the_run_with_a_message(trained: Trained, tmp_path: Path) -> None:
    where = Place.within(tmp_path)
    commit(Corpus.open(where.corpus, create=True), trained.sources["a" * 16][:6], "a" * 16)
    state = where.train(TrainSettings())
    assert (state.name, state.is_completed()) == ("Too small", True)
    assert "too small to train on" in state.message
    assert "too small to train on" in artifacts(state)["training-report"]
    assert ModelStore.open(where.models).names() == []


def test_a_missing_version_or_model_is_named(trained: Trained) -> None:
    where, model = trained.place, trained.model
    assert "version" in where.train(tiny(), 99).message
    missing = where.evaluate(model.model_copy(update={"model": f"{where.models}/nothing"}))
    assert Path(model.model).name in missing.message


async def _events(name: str, resource: str) -> list[dict[str, Any]]:
    """The events of a name about a resource, the newest first."""
    query = {"filter": {"event": {"name": [name]}, "any_resource": {"id": [resource]}, "order": "DESC"}}
    async with get_client() as client:
        answer = await client.request("POST", "/events/filter", json=query)
    events: list[dict[str, Any]] = answer.json()["events"]
    return events
