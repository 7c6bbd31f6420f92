"""A small comparison as real flows: every cell trained and evaluated, one report; again, and nothing is done."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.states import Completed, Failed

from flows.compare_systems import compare_systems
from flows.evaluate_fsclap import evaluate_fsclap
from flows.train_fsclap import train_fsclap
from fsclap.comparison.settings import ComparedCorpus, ComparisonSettings
from fsclap.model.settings import CodebookSettings, ModelSettings, SystemsSettings
from storage.models import HISTORY, PROMOTED
from tasks import comparing
from tests.flows.built import artifacts
from tests.flows.trained import Trained
from tests.fsclap.comparison.test_report import records

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

SMALL = {"width": 16, "heads": 2, "embedding": 16}
TRAINING = {
    "epochs": 1, "batch": 16, "accelerator": "cpu", "texts": {"queries": 0}, "compute": {"workers": 0},
}  # fmt: skip


def test_a_comparison_is_resumed_and_reported(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    fail = {"mga_clap"}

    def work(_: float) -> None:
        """In the place of a worker: run what is scheduled in this process."""
        due = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
        with get_client(sync_client=True) as client:
            for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(state=due)):
                if not run.name.startswith(("train ", "evaluate ")):
                    continue
                started.append(run.name)
                state = Failed(message="no room")
                if not any(name in run.name for name in fail):
                    flow = train_fsclap if run.name.startswith("train") else evaluate_fsclap
                    ended = flow(**run.parameters, return_state=True)
                    state = Completed() if ended.is_completed() else Failed(message=ended.message)
                client.set_flow_run_state(run.id, state, force=True)

    with get_client(sync_client=True) as client:
        for flow, name in ((train_fsclap, "train-cell"), (evaluate_fsclap, "evaluate-cell")):
            client.create_deployment(flow_id=client.create_flow(flow), name=name, work_pool_name="fsclap-cpu")
    monkeypatch.setattr(comparing, "time", SimpleNamespace(sleep=work))
    codes = SystemsSettings(mga=CodebookSettings(codes=32, temperature=100.0))
    settings = ComparisonSettings(
        systems=("clap_laion", "mga_clap"), seeds=1, resamples=1000, training=TRAINING,
        models={"clap_laion": ModelSettings(system="clap_laion", **SMALL),
                "mga_clap": ModelSettings(system="mga_clap", systems=codes, **SMALL)},
    )  # fmt: skip
    corpus = ComparedCorpus(corpus=trained.place.corpus, version=trained.model.version, name="lines")
    out, models = tmp_path / "out", tmp_path / "models"
    parameters = {"out": str(out), "models": str(models), "work": trained.place.work, "settings": settings}
    state = compare_systems([corpus], **parameters, return_state=True)
    assert state.is_failed()
    assert "1 of 2 cells have no figures" in state.message
    shown = artifacts(state)
    assert set(shown) == {"comparison", "comparison-missing", "comparison-page"}
    assert "training: Failed: no room" in shown["comparison-missing"]
    assert "CLAP-LAION" in (out / "report.html").read_text()

    fail.clear()
    started.clear()
    again = compare_systems([corpus], **parameters, return_state=True)
    assert again.is_completed()
    assert started == ["train mga_clap on lines, seed 0", "evaluate mga_clap on lines, seed 0"]
    assert (again.result().cells, again.result().missing) == (2, 0)
    cells = records(out / "cells.csv")
    assert [cell["missing"] for cell in cells] == ["", ""]
    assert all(int(cell["parameters"]) > 0 and float(cell["seconds"]) > 0 for cell in cells)
    assert not (models / PROMOTED).exists()
    assert not (models / HISTORY).exists()
