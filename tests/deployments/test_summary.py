"""What `make run` says in the end: the model of the corpus version, its figures, and what a search finds."""

import os
import shutil
from pathlib import Path

import pytest
import soundfile

from deployments import local
from deployments.local import unfinished
from deployments.summary import answers, evaluation_of, model_rows
from fsclap.evaluation.results import Evaluation
from fsclap.evaluation.words import headline
from fsclap.retrieval.search import Searcher
from storage.versions import CorpusVersion
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
    assert model_rows(str(tmp_path), None) == [("model", "no model was evaluated on this version")]


def test_a_search_ends_in_clips_that_can_be_played(index_folder: Path, searcher: Searcher, tmp_path: Path) -> None:
    query = "a low voice"
    for _ in range(2):  # the second time in place of the first
        shown = answers(index_folder, query, tmp_path / "found")
    for hit in searcher.search(query, top=3):
        assert hit.caption in shown
    files = sorted((tmp_path / "found").glob("*.flac"))
    assert len(files) == 3
    for file in files:
        assert str(file) in shown
        assert len(soundfile.read(file)[0])
    assert "http://127.0.0.1:8420/?query=a+low+voice" in shown
    assert "did not beat chance" in shown, "none was promoted"


def test_unfinished_lists_the_flows_that_were_interrupted(
    index_folder: Path, version: CorpusVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "MODELS", str(tmp_path / "models"))
    corpus = str(tmp_path / "corpus")
    assert unfinished(corpus, 8) == ("train-fsclap", "evaluate-fsclap", "index-corpus")
    saved(tmp_path / "models", "corpus-v8-new", examples.evaluation())
    assert unfinished(corpus, 8) == ("index-corpus",)
    shutil.copytree(index_folder, f"{corpus}-index")
    assert unfinished(corpus, 8) == ("index-corpus",), "it holds another version"
    saved(tmp_path / "models", "corpus-v1-new", examples.evaluation()).rename(
        tmp_path / f"models/corpus-v8-new/evaluation/corpus-v{version.version}"
    )
    assert unfinished(corpus, version.version) == ()
