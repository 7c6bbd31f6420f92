"""The table at the end of `make run`: the model of the corpus version and its figures."""

import os
from pathlib import Path

from deployments.summary import evaluation_of, model_rows
from fsclap.evaluation.report import headline
from fsclap.evaluation.results import Evaluation
from tests.fsclap.evaluation import examples


def saved(models: Path, name: str, evaluation: Evaluation, *, age: int = 0) -> Path:
    folder = models / name / "evaluation" / "corpus-v8"
    folder.mkdir(parents=True)
    file = folder / "evaluation.json"
    evaluation.save(file)
    os.utime(file, (1e9 - age, 1e9 - age))
    return folder


def test_the_newest_evaluation_of_the_version_is_shown(tmp_path: Path) -> None:
    saved(tmp_path, "corpus-v8-old", examples.evaluation(), age=100)
    newest = saved(tmp_path, "corpus-v8-new", examples.evaluation())
    assert evaluation_of(str(tmp_path), "data/corpus", 8) == newest
    assert evaluation_of(str(tmp_path), "data/corpus", 9) is None
    assert evaluation_of(str(tmp_path / "none"), "data/corpus", 8) is None


def test_the_figures_come_with_interval_chance_and_pool(tmp_path: Path) -> None:
    evaluation = examples.evaluation(model="data/models/corpus-v8-new")
    folder = saved(tmp_path, "corpus-v8-new", evaluation)
    rows = dict(model_rows(str(tmp_path), folder))
    assert rows["model"] == "data/models/corpus-v8-new, not the current one"
    assert rows["report"] == (folder / "report.html").resolve().as_uri()
    row = headline(evaluation)
    assert row is not None
    found = row.metrics["mAP@10"]
    for figure in (found.value, found.low, found.high, row.chance["mAP@10"]):
        assert f"{100 * figure:.1f}" in rows["mAP@10"]
    assert "1000 clips" in rows["mAP@10"]


def test_a_leaking_model_has_no_figures(tmp_path: Path) -> None:
    folder = saved(tmp_path, "m", examples.evaluation(leak=examples.LEAKING))
    rows = dict(model_rows(str(tmp_path), folder))
    assert rows["figures"] == "none: the model leaks"
    assert "mAP@10" not in rows
    assert model_rows(str(tmp_path), None) == [("model", "none was evaluated on this version")]
