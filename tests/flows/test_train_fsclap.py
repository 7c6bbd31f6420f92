"""From a committed corpus version to a model, its report and the decision about it, through a real Prefect server."""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from flows.evaluate_fsclap import evaluate_fsclap
from flows.index_corpus import index_corpus
from flows.train_fsclap import train_fsclap
from fsclap.data.splits import Split
from fsclap.evaluation.results import Evaluation
from fsclap.retrieval.search import Searcher
from fsclap.training.settings import TrainSettings
from storage.card import escape_markdown
from storage.corpus import Corpus
from storage.models import HISTORY, Decision, ModelStore
from storage.schema import UTTERANCE
from tasks.indexing import EVALUATED
from tasks.training import TrainedModel, announce_trained
from tests.fsclap.training.conftest import corpus as sampled
from tests.fsclap.training.conftest import tiny

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]
__all__ = ["sampled"]

COLUMNS = {
    "episode": "e01", "title": "Episode 1", "url": "https://example.org/e01.mp4", "language": "en", "similarity": 0.9,
    "tagger_text": None, "quality": None, "overlap": 0.0,
    "events": [], "attributes": {}, "style": [], "caption_source": "grammar", "sample_rate": 24000, "recipe": "r",
    "separation_engine": "s@1", "diarization_engine": "d@1", "captioning_engine": "c@1", "start": 0.0,
    "emotion": None, "emotion_confidence": None,
}  # fmt: skip


FEW = {"min_train_clips": 8, "min_eval_clips": 8}


def commit(corpus: Corpus, clips: list[dict[str, Any]], source_id: str) -> None:
    """Commit clips as the kept utterances of one source."""
    rows = [
        COLUMNS | clip | {"source_id": source_id, "end": clip["duration"], "utterance_id": f"{source_id}-{number:05d}"}
        for number, clip in enumerate(clips)
    ]
    source = {name: COLUMNS[name] for name in ("episode", "title", "url", "recipe")} | {
        "source_id": source_id, "series": clips[0]["series"], "status": "kept", "media_sha256": "0" * 64,
        "duration": 60.0, "turns_found": len(rows), "turns_kept": len(rows), "turns_rejected": 0, "stage_seconds": {},
    }  # fmt: skip
    corpus.commit_source(source, utterances=pa.Table.from_pylist(rows, schema=UTTERANCE))


@dataclass(frozen=True)
class Place:
    """A corpus of two sources, and folders for what comes of it."""

    corpus: str
    models: str
    work: str

    def train(self, settings: TrainSettings, version: int | None = None) -> Any:
        return train_fsclap(self.corpus, version, self.models, self.work, settings, return_state=True)

    def evaluate(self, trained: TrainedModel) -> Any:
        return evaluate_fsclap(trained.model, trained.corpus, trained.version, self.work, return_state=True)


def decisions(models: Path | str) -> list[Decision]:
    return [Decision.model_validate_json(line) for line in (Path(models) / HISTORY).read_text().splitlines()]


@pytest.fixture(scope="module")
def sources(sampled: pa.Table) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in sampled.to_pylist():
        found.setdefault("a" * 16 if row["series"] == "Lines" else "b" * 16, []).append(row)
    return found


@pytest.fixture(scope="module")
def first(
    sources: dict[str, list[dict[str, Any]]], prefect_server: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Place, TrainedModel]:
    folder = tmp_path_factory.mktemp("train")
    place = Place(*(str(folder / name) for name in ("corpus", "models", "work")))
    corpus = Corpus.open(place.corpus, create=True)
    for source_id, clips in sources.items():
        commit(corpus, clips, source_id)
    state = place.train(tiny())
    assert state.name == "Completed"
    return place, state.result()


@pytest.fixture
def place(first: tuple[Place, TrainedModel], tmp_path: Path) -> tuple[Place, TrainedModel]:
    """A copy that a test may change; the work folder is shared."""
    found, trained = first
    models = tmp_path / "models"
    shutil.copytree(found.models, models)
    return (
        Place(found.corpus, str(models), found.work),
        trained.model_copy(update={"model": str(models / Path(trained.model).name)}),
    )


def artifacts(state: Any) -> dict[str, Any]:
    async def read() -> dict[str, Any]:
        async with get_client() as client:
            run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
            # Without a key: where Prefect keeps the flow's result.
            return {found.key: found.data for found in await client.read_artifacts(artifact_filter=run) if found.key}

    return asyncio.run(read())


def changed(folder: str) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path(folder).rglob("*") if path.is_file()}


def test_a_finished_training_is_not_repeated(place: tuple[Place, TrainedModel]) -> None:
    where, trained = place
    before = changed(where.models)
    state = where.train(tiny())
    assert state.result() == trained.model_copy(update={"new": False})
    assert changed(where.models) == before
    assert set(artifacts(state)) == {"training-report", "training-epochs"}
    other = where.train(tiny(epochs=1)).result()
    assert (other.model != trained.model, other.new) == (True, True)


def test_a_model_is_evaluated_reported_and_judged(place: tuple[Place, TrainedModel]) -> None:
    where, trained = place
    assert announce_trained(trained)
    state = where.evaluate(trained)
    evaluated = state.result()
    report = Path(evaluated.report)
    assert report.is_relative_to(trained.model)
    assert "map.png" in {path.name for path in report.parent.iterdir()}
    evaluation = Evaluation.load(report.parent / "evaluation.json")
    assert evaluation.clips == trained.clips["test"]
    assert not evaluated.leaks
    shown = artifacts(state)
    assert set(shown) == {"evaluation-report", "evaluation-metrics", "evaluation-page"}
    assert escape_markdown(evaluated.reason) in shown["evaluation-report"]
    assert "data:image/png;base64," in shown["evaluation-report"]
    assert report.resolve().as_uri() in shown["evaluation-page"]
    (decision,) = decisions(where.models)
    assert (decision.model, decision.against, decision.promoted) == (Path(trained.model).name, None, evaluated.promoted)
    assert decision.reason == evaluated.reason
    assert (ModelStore.open(where.models).promoted() is not None) == evaluated.promoted
    assert not announce_trained(trained), "an evaluated model is not announced again"


def test_a_corpus_is_indexed_with_the_model_and_found_by_it(place: tuple[Place, TrainedModel], tmp_path: Path) -> None:
    where, trained = place
    asked = (where.corpus, None, where.models, str(tmp_path / "index"))
    state = index_corpus(*asked, return_state=True)
    indexed = state.result()
    assert (indexed.model, indexed.version, indexed.left_out) == (trained.model, trained.version, 0)
    assert indexed.clips == Corpus.open(where.corpus).totals().turns_kept
    shown = artifacts(state)["search-index"]
    assert "No model was promoted yet" in shown
    assert "fsclap search" in shown
    hits = Searcher.open(indexed.index).search("a low voice", top=3)
    assert len(hits) == 3
    before = changed(indexed.index)
    assert index_corpus(*asked) == indexed
    assert changed(indexed.index) == before


def test_an_evaluation_starts_the_index_of_its_corpus(place: tuple[Place, TrainedModel]) -> None:
    where, trained = place
    where.evaluate(trained)
    announced = asyncio.run(_events(EVALUATED, f"fsclap.model.{Path(trained.model).name}"))
    assert announced[0]["payload"]["models"] == where.models
    assert announced[0]["payload"]["corpus"] == where.corpus
    assert announced[0]["payload"]["version"] == trained.version


async def _events(name: str, resource: str) -> list[dict[str, Any]]:
    asked = {"filter": {"event": {"name": [name]}, "any_resource": {"id": [resource]}, "order": "DESC"}}
    async with get_client() as client:
        answer = await client.request("POST", "/events/filter", json=asked)
    found: list[dict[str, Any]] = answer.json()["events"]
    return found


def test_a_leaking_model_fails_the_run_and_is_not_promoted(first: tuple[Place, TrainedModel], tmp_path: Path) -> None:
    where = Place(first[0].corpus, str(tmp_path / "models"), first[0].work)
    settings = tiny(epochs=8)
    paired = settings.model_copy(update={"model": settings.model.model_copy(update={"fusion": "paired"})})
    trained = where.train(paired).result()
    state = where.evaluate(trained)
    assert state.is_failed()
    assert "embeddings leak" in state.message
    assert not asyncio.run(_events(EVALUATED, f"fsclap.model.{Path(trained.model).name}")), "nothing to search with"
    assert "This model leaks" in artifacts(state)["evaluation-report"]
    (report,) = Path(trained.model).rglob("report.html")
    assert "This model leaks" in report.read_text()
    (decision,) = decisions(where.models)
    assert (decision.promoted, decision.reason) == (False, "it leaks")


def test_what_the_current_model_was_tested_on_stays_test(
    first: tuple[Place, TrainedModel], sources: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    where = Place(*(str(tmp_path / name) for name in ("corpus", "models", "work")))
    corpus = Corpus.open(where.corpus, create=True)
    commit(corpus, sources["a" * 16], "a" * 16)
    one = where.train(tiny(split=FEW | {"seed": 3})).result()
    promote(where, one)
    commit(corpus, sources["b" * 16], "b" * 16)
    two = where.train(tiny(split=FEW | {"seed": 4})).result()
    before, after = (Split.load(Path(model.model) / "split.json") for model in (one, two))
    for part in ("validation", "test"):
        assert not set(before.ids(part)) & set(after.train)  # type: ignore[arg-type]
    assert len(after.train) > len(before.train)
    evaluated = where.evaluate(two).result()
    (_, decision) = decisions(where.models)
    assert decision.against == Path(one.model).name
    assert decision.clips == len(set(after.validation) - set(before.train))
    assert (
        decision.promoted == evaluated.promoted == (decision.difference is not None and decision.difference["low"] > 0)
    )


def promote(place: Place, trained: TrainedModel) -> None:
    ModelStore.open(place.models).record(
        Decision(
            model=Path(trained.model).name,
            against=None,
            promoted=True,
            reason="it beats chance",
            figure=None,
            difference=None,
            clips=0,
            date="2026-11-23",
        )
    )


def test_a_corpus_that_is_too_small_ends_the_run_with_a_message(
    sources: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    where = Place(*(str(tmp_path / name) for name in ("corpus", "models", "work")))
    commit(Corpus.open(where.corpus, create=True), sources["a" * 16][:6], "a" * 16)
    state = where.train(TrainSettings())
    assert (state.name, state.is_completed()) == ("Too small", True)
    assert "too small to train on" in state.message
    assert "too small to train on" in artifacts(state)["training-report"]
    assert ModelStore.open(where.models).names() == []


def test_a_version_or_a_model_that_is_not_there_is_named(first: tuple[Place, TrainedModel]) -> None:
    where, trained = first
    assert "version" in where.train(tiny(), 99).message
    missing = where.evaluate(trained.model_copy(update={"model": f"{where.models}/nothing"}))
    assert Path(trained.model).name in missing.message
