"""The whole chain on a real S3 server: build, train, evaluate, index, search."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli import main as cli
from flows.build_dataset import build_dataset
from flows.evaluate_fsclap import evaluate_fsclap
from flows.index_corpus import index_corpus
from flows.train_fsclap import train_fsclap
from harness.samples import cut, sample_episodes
from storage.build_record import read_announced
from storage.card import PAGE, README
from storage.copies import cache
from storage.corpus import SPEAKERS, Corpus
from storage.models import ModelStore
from storage.objects import Place
from storage.verify import verify
from tests.flows.built import local_settings
from tests.flows.trained import commit
from tests.fsclap.training.conftest import clip_table, tiny

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


def test_build_train_evaluate_index_and_search(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    corpus, models, work = f"{bucket}/corpus", f"{bucket}/models", str(tmp_path / "work")
    episode = cut(sample_episodes()[0], tmp_path / "videos" / "e1.mp4", start=0, seconds=30)
    published = build_dataset([str(episode.parent)], corpus, work, local_settings(disk={"work_files": "drop"}))
    assert list(Path(work).glob("*/*/*/manifest.json")) == [], "the corpus keeps it, so its work files are gone"
    place = Place.at(corpus)
    assert published.utterances > 0
    assert published.card == f"{corpus}/{PAGE}"
    assert all(place.exists(name) for name in (README, PAGE, SPEAKERS, "build.json"))
    assert read_announced(Corpus.open(corpus)) == published.version
    again = build_dataset([str(episode.parent)], corpus, work, local_settings(disk={"work_files": "drop"}))
    assert again.changed_sources == 0
    assert list(Path(work).glob("*/*/*/manifest.json")) == []

    # More clips, as if the same engine had found them: thirty seconds are too few to train on.
    made = Corpus.open(corpus).utterances(columns=["diarization_engine", "speaker_embedding"]).to_pylist()[0]
    clips: dict[str, list[dict[str, Any]]] = {}
    for row in clip_table(tmp_path / "decoded").to_pylist():
        voice = np.resize(row["speaker_embedding"], len(made["speaker_embedding"])).tolist()
        source_id = "a" * 16 if row["series"] == "Lines" else "b" * 16
        clips.setdefault(source_id, []).append(row | made | {"speaker_embedding": voice})
    for source_id, rows in clips.items():
        commit(Corpus.open(corpus), rows, source_id)
    trained = train_fsclap(corpus, None, models, work, tiny())
    assert trained.new
    assert trained.model.startswith(f"{models}/")
    assert not train_fsclap(corpus, None, models, work, tiny()).new, "it is finished, also for another machine"
    evaluated = evaluate_fsclap(trained.model, corpus, None, work)
    model = Place.at(trained.model)
    assert evaluated.report.startswith(f"{model}/evaluation/")
    assert model.exists(evaluated.report.removeprefix(f"{model}/"))
    assert ModelStore.open(models).to_search_with() == model.name
    indexed = index_corpus(corpus, None, models)
    assert indexed.index == f"{bucket}/corpus-index"
    assert indexed.clips == Corpus.open(corpus).utterances(columns=["utterance_id"]).num_rows

    for folder in cache().iterdir():  # as on another machine
        folder.rename(tmp_path / f"gone-{folder.name}")
    capsys.readouterr()
    assert cli.main(["search", "a low voice", "--index", indexed.index, "--top", "3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    report = verify(Corpus.open(corpus))
    assert [problem.code for problem in report.problems if problem.code not in ("recording_duplicate", "audio")] == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("s3")) == []
