"""Where a model goes and what its clips are, without Prefect."""

from pathlib import Path

import pyarrow as pa
import pytest

from fsclap.training.settings import ComputeSettings, TrainSettings
from storage.corpus import Corpus
from storage.models import ModelStore
from tasks.training import open_clips, run_name, train_model
from tests.fsclap.training.test_model_card import record
from tests.storage.conftest import rows_of


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    made = Corpus.open(tmp_path / "corpus", create=True)
    add(made, "e01")
    return made


def add(corpus: Corpus, episode: str) -> int:
    """Commit an episode of three clips; the version that has it."""
    rows = rows_of(episode, kept=3)
    clips = [
        row | {"style": [{"attribute": key, "word": row["style"][key]} for key in row["style"]]}
        for row in rows["utterances"]
    ]
    corpus.commit_source(rows["source"], utterances=clips, rejects=rows["rejects"])
    return corpus.version()


def test_a_run_is_named_by_what_the_model_depends_on(corpus: Corpus, tmp_path: Path) -> None:
    store, version = ModelStore.open(tmp_path / "models"), corpus.version()
    name = run_name(store, corpus, version, TrainSettings())
    assert name.startswith(f"corpus-v{version}-")
    faster = TrainSettings(compute=ComputeSettings(workers=2, checkpoint_minutes=1.0))
    assert run_name(store, corpus, version, faster) == name, "how it is computed is no other run"
    assert run_name(store, corpus, version, TrainSettings(epochs=11)) != name
    assert run_name(store, corpus, version + 1, TrainSettings()) != name
    rebuilt = Corpus.open(tmp_path / "again" / "corpus", create=True)
    assert run_name(store, rebuilt, version, TrainSettings()) != name, "another corpus of the same name"


def test_the_clips_of_the_last_two_versions_stay(corpus: Corpus, tmp_path: Path) -> None:
    work = str(tmp_path / "work")
    versions = [corpus.version(), *(add(corpus, episode) for episode in ("e02", "e03"))]
    opened = [open_clips(corpus, version, work) for version in versions]
    assert [len(clips) for clips in opened[1:]] == [6, 9]
    (folder,) = Path(work, "clips").iterdir()
    assert {path.name for path in folder.iterdir()} == {f"v{version}" for version in versions[1:]}
    again = open_clips(corpus, versions[0], work)
    assert len(again) == 3
    assert len(open_clips(corpus, versions[2], work)) == 9


def test_a_version_is_read_as_it_was(corpus: Corpus, tmp_path: Path) -> None:
    version = corpus.version()
    add(corpus, "e02")
    clips = open_clips(corpus, version, str(tmp_path / "work"))
    wanted: pa.Table = corpus.utterances(version=version, columns=["utterance_id", "audio"])
    for row in wanted.to_pylist():
        assert clips.audio(clips.rows[row["utterance_id"]]) == row["audio"]["bytes"]


def test_a_finished_model_without_a_card_gets_one(corpus: Corpus, tmp_path: Path) -> None:
    """A run may have been killed between its record and its card."""
    store = ModelStore.open(tmp_path / "models")
    folder = store.folder(run_name(store, corpus, corpus.version(), TrainSettings()))
    folder.mkdir(parents=True)
    record().save(folder / "training.json")
    paths = (str(tmp_path / "models"), str(tmp_path / "work"))
    trained = train_model.fn(corpus.location, None, *paths, TrainSettings())
    assert not trained.new
    card = folder / "README.md"
    assert "Not evaluated yet" in card.read_text()
    written = card.stat().st_mtime_ns
    train_model.fn(corpus.location, None, *paths, TrainSettings())
    assert card.stat().st_mtime_ns == written
