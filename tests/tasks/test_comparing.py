"""Cells as runs of deployments: each is done once, those that fail are given up, and only they are done again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import AwaitingRetry, Completed, Crashed, Failed, State

from flows.evaluate_fsclap import evaluate_fsclap
from flows.train_fsclap import train_fsclap
from fsclap.comparison.grid import Cell, ComparisonError, Grid
from fsclap.comparison.settings import ComparedCorpus, ComparisonSettings
from fsclap.evaluation.vectors import FILE
from storage.corpus import Corpus
from storage.models import Decision, ModelStore
from tasks import comparing
from tasks.comparing import TRAIN, complete_cells, plan_cells, require_deployments
from tests.fsclap.comparison import made
from tests.storage.conftest import rows_of

SETTINGS = ComparisonSettings(systems=("clap_laion", "fs_clap"), seeds=1, resamples=1000)
Play = Callable[[FlowRun], State[Any] | None]


class Worker:
    """Stands in for the workers and for time: between two looks at the runs it ends those that are scheduled.

    Attributes:
        cells: The cells that it trains and evaluates.
        ends: Name of a run -> how its tries end; one that is not there does its work and completes.
        started: Names of the runs that it took, in order.
    """

    def __init__(self, cells: list[Cell], **ends: list[State[Any]]) -> None:
        self.cells, self.ends, self.started = cells, ends, list[str]()

    def __call__(self, _: float) -> None:
        due = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
        cells = DeploymentFilter(name=DeploymentFilterName(any_=["train-cell", "evaluate-cell"]))
        with get_client(sync_client=True) as client:
            for run in client.read_flow_runs(flow_run_filter=due, deployment_filter=cells):
                self.started.append(run.name)
                tries = self.ends.get(run.name, [])
                state = tries.pop(0) if tries else self.work(run)
                client.set_flow_run_state(run.id, state, force=True)

    def work(self, run: FlowRun) -> State[Any]:
        for cell in self.cells:
            if run.name == f"train {cell.name}":
                made.finish(cell)
                shutil.move(cell.report, f"{cell.model}/later")
            elif run.name == f"evaluate {cell.name}":
                shutil.move(f"{run.parameters['model']}/later", cell.report)
        return Completed()


@pytest.fixture
def deployed(prefect_server: None) -> None:
    with get_client(sync_client=True) as client:
        for flow, name in ((train_fsclap, "train-cell"), (evaluate_fsclap, "evaluate-cell")):
            client.create_deployment(flow_id=client.create_flow(flow), name=name, work_pool_name="fsclap-cpu")


@pytest.fixture
def grid(tmp_path: Path, deployed: None) -> Grid:
    everything = [(row, corpus, 0) for row in SETTINGS.rows() for corpus in ("style", "TextrolSpeech")]
    return made.grid(tmp_path, SETTINGS, unfinished=everything)


@pytest.fixture
def by(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Worker]:
    def work(cells: list[Cell], **ends: list[State[Any]]) -> Worker:
        worker = Worker(cells, **ends)
        monkeypatch.setattr(comparing, "time", SimpleNamespace(sleep=worker))
        return worker

    return work


def status(code: int) -> httpx.HTTPStatusError:
    answer = httpx.Response(code, request=httpx.Request("POST", "http://server/"))
    return httpx.HTTPStatusError(f"answer {code}", request=answer.request, response=answer)


def test_a_cell_whose_run_is_refused_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = made.grid(tmp_path, SETTINGS, unfinished=[("fs_clap", "style", 0)])

    def refuse(*_: Any) -> Any:
        raise status(409)

    monkeypatch.setattr(comparing, "_run", refuse)
    reasons = [cell.missing() for cell in complete_cells(grid, "work", every=0).cells]
    assert [reason for reason in reasons if reason] == ["its run could not be started: answer 409"]


def test_each_cell_is_trained_and_evaluated_once(
    grid: Grid, by: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = grid.cells[0].model_copy(update={"row": "fs_clap", "seed": 7})  # another row with the same model
    grid = grid.model_copy(update={"cells": [*grid.cells, twin]})
    worker = by(grid.cells)
    read, lost = comparing._read, ["the server restarts"]

    def sometimes(by: Any, values: Any) -> Any:
        if by is FlowRunFilterId and lost:
            raise httpx.ConnectError(lost.pop())
        return read(by, values)

    begin, refused = comparing.run_deployment, [httpx.ReadTimeout("busy"), status(503)]

    def busy(*given: Any, **options: Any) -> Any:
        if refused:
            raise refused.pop()
        return begin(*given, **options)

    monkeypatch.setattr(comparing, "_read", sometimes)
    monkeypatch.setattr(comparing, "run_deployment", busy)
    done = complete_cells(grid, "work")
    assert not lost
    assert not refused
    assert [cell.missing() for cell in done.cells] == [None] * 5
    assert sorted(worker.started) == sorted(
        f"{step} {cell.name}" for step in ("train", "evaluate") for cell in grid.cells[:4]
    )
    again = by(grid.cells)
    assert complete_cells(grid, "work") == done
    assert again.started == []


def test_a_run_gets_what_its_flow_needs(grid: Grid, by: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}
    begin = comparing.run_deployment

    def seen(name: str, *, parameters: dict[str, Any], **options: Any) -> Any:
        given[options["flow_run_name"]] = parameters
        return begin(name, parameters=parameters, **options)

    monkeypatch.setattr(comparing, "run_deployment", seen)
    by(grid.cells)
    complete_cells(grid, "work")
    cell = grid.cells[1]
    assert cell.corpus == "TextrolSpeech"
    train = given[f"train {cell.name}"]
    checked = train_fsclap.validate_parameters(train)
    assert checked["settings"] == SETTINGS.train_settings("clap_laion", 0)
    assert (train["corpus"], train["version"], train["work"], train["announce"]) == ("data/ts", 1, "work", False)
    evaluate = given[f"evaluate {cell.name}"]
    assert evaluate_fsclap.validate_parameters(evaluate)["promote"] is False
    assert (evaluate["model"], evaluate["version"]) == (cell.model, 1)


def test_a_cell_that_fails_is_given_up_and_alone_done_again(grid: Grid, by: Callable[..., Worker]) -> None:
    first, second, third, _ = grid.cells
    ends = {
        f"train {first.name}": [Failed(message="no space\nleft on the disk")],
        f"evaluate {second.name}": [Completed()],
        f"train {third.name}": [Completed(name="Too small", message="8 clips are too few")],
    }
    by(grid.cells, **ends)
    done = complete_cells(grid, "work")
    reasons = [cell.missing() for cell in done.cells]
    assert reasons[0] == "training: Failed: no space left on the disk"
    assert reasons[1] is not None
    assert reasons[1].startswith(f"its evaluation completed, but {second.report} is not here")
    assert reasons[2] == "training: Too small: 8 clips are too few"
    assert reasons[3] is None
    again = by(grid.cells)
    repaired = complete_cells(done, "work")
    assert [cell.missing() for cell in repaired.cells] == [None] * 4
    assert len(again.started) == 5
    assert not any(grid.cells[3].name in name for name in again.started)
    assert f"train {second.name}" not in again.started


@pytest.mark.slow
def test_a_crashed_run_starts_again_by_itself(
    grid: Grid, by: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"train {grid.cells[0].name}"
    worker = by(grid.cells)
    play = worker.__call__

    def crash_first(seconds: float) -> None:
        with get_client(sync_client=True) as client:
            for run in client.read_flow_runs():
                if run.state is not None and run.state.is_crashed():  # what the automation does
                    client.set_flow_run_state(run.id, AwaitingRetry(), force=True)
        play(seconds)

    worker.ends[name] = [Crashed(message="the worker was killed")]
    monkeypatch.setattr(comparing, "time", SimpleNamespace(sleep=crash_first))
    assert [cell.missing() for cell in complete_cells(grid, "work").cells] == [None] * 4
    assert worker.started.count(name) == 2


@pytest.mark.slow
def test_what_is_under_way_is_waited_for(grid: Grid, by: Callable[..., Worker]) -> None:
    by(grid.cells)
    begun = {comparing._begin(cell, grid, "work")[1] for cell in grid.cells}  # by a comparison that was then killed
    assert {comparing._begin(cell, grid, "work")[1] for cell in grid.cells} == begun
    worker = by(grid.cells)
    complete_cells(grid, "work")
    assert len(worker.started) == 8


@pytest.mark.slow
def test_a_run_that_was_deleted_is_given_up(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    def delete(_: float) -> None:
        with get_client(sync_client=True) as client:
            for run in client.read_flow_runs():
                client.request("DELETE", "/flow_runs/{id}", path_params={"id": run.id})

    monkeypatch.setattr(comparing, "time", SimpleNamespace(sleep=delete))
    done = complete_cells(grid, "work")
    assert {cell.missing() for cell in done.cells} == {"the run of its training was deleted"}


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    made_ = Corpus.open(tmp_path / "corpus", create=True)
    made_.commit_source(**rows_of("e01"))
    return made_


def test_a_plan_names_each_cell_by_all_that_shapes_it(corpus: Corpus, tmp_path: Path) -> None:
    place = {"models": str(tmp_path / "models"), "out": str(tmp_path / "out")}
    compared = [ComparedCorpus(corpus=corpus.location)]
    settings = SETTINGS.model_copy(update={"seeds": 2})
    grid = plan_cells.fn(compared, settings, run="one", **place)
    assert len({cell.model for cell in grid.cells}) == len(grid.cells) == 4
    assert Grid.load(tmp_path / "out") == grid
    version = grid.corpora[0].version
    corpus.commit_source(**rows_of("e02"))
    assert plan_cells.fn(compared, settings, run="one", **place) == grid, "it keeps the version that it began with"
    assert plan_cells.fn(compared, settings, run="two", **place).corpora[0].version != version
    other = plan_cells.fn([compared[0].model_copy(update={"version": version})], settings, run="three", **place)
    assert [cell.model for cell in other.cells] == [cell.model for cell in grid.cells]
    with pytest.raises(ComparisonError, match="several corpora are called corpus"):
        plan_cells.fn(compared * 2, settings, run="one", **place)
    with pytest.raises(ComparisonError, match="no corpus"):
        plan_cells.fn([], settings, run="one", **place)


def test_models_are_not_put_beside_a_current_one(corpus: Corpus, tmp_path: Path) -> None:
    store = ModelStore.open(tmp_path / "models")
    store.root.write("m/training.json", b"{}")
    decision = {"model": "m", "against": None, "promoted": True, "reason": "", "figure": None, "difference": None}
    store.record(Decision(**decision, clips=0, date="2026-11-26"))
    with pytest.raises(ComparisonError, match="has a current model"):
        plan_cells.fn(
            [ComparedCorpus(corpus=corpus.location)], SETTINGS, store.root.location, str(tmp_path / "out"), None
        )


def test_cells_that_could_never_start_are_refused(deployed: None) -> None:
    with get_client(sync_client=True) as client:
        own = client.read_deployment_by_name(TRAIN).id  # of the same pool as the cells
        require_deployments(str(own))
        client.request("PATCH", "/work_pools/{name}", path_params={"name": "fsclap-cpu"}, json={"concurrency_limit": 1})
        with pytest.raises(ComparisonError, match="holds the only slot of the work pool fsclap-cpu"):
            require_deployments(str(own))
        require_deployments(None)
        client.request("PATCH", "/work_pools/{name}", path_params={"name": "fsclap-cpu"}, json={"concurrency_limit": 2})
        client.request("DELETE", "/deployments/{id}", path_params={"id": own})
    with pytest.raises(ComparisonError, match="no deployment train-fsclap/train-cell"):
        require_deployments(None)


def test_the_files_that_a_cell_needs_are_those_of_an_evaluation(grid: Grid) -> None:
    made.finish(grid.cells[0])
    assert grid.cells[0].missing() is None
    Path(grid.cells[0].report, FILE).unlink()  # an evaluation of an earlier version of the project
    assert grid.cells[0].missing() == "not evaluated yet"
