"""A page that runs while its index is rebuilt."""

import logging
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from fsclap.retrieval.app import make_app
from fsclap.retrieval.build import build_index
from fsclap.retrieval.index import RECORD
from fsclap.retrieval.live import live_app
from fsclap.retrieval.search import Searcher
from harness.faults.stand import until
from storage.corpus import Corpus
from storage.objects import Place
from storage.versions import CorpusVersion
from tests.fsclap.retrieval.fixtures import commit
from tests.fsclap.retrieval.serving import served


@pytest.fixture
def corpus(corpus_folder: Path, tmp_path: Path) -> Corpus:
    """A copy that a test may add to."""
    return Corpus.open(shutil.copytree(corpus_folder, tmp_path / "corpus"))


@pytest.fixture
def index(index_folder: Path, tmp_path: Path) -> Path:
    """A copy of the index of `corpus`."""
    return shutil.copytree(index_folder, tmp_path / "index")


def page(index: Path, corpus: Corpus) -> FastAPI:
    def make() -> FastAPI:
        version = CorpusVersion.open(str(corpus.folder))
        return make_app(Searcher.open(index, sound=version.audio, device="cpu"), version.audio, None)

    return live_app(make, lambda: Place(str(index)).version(RECORD), every=0.05)


def test_a_page_shows_what_was_added_while_it_ran(
    corpus: Corpus, index: Path, model_folder: Path, waves: dict[str, np.ndarray]
) -> None:
    with served(page(index, corpus)) as address, httpx.Client(base_url=address, timeout=60) as client:
        assert client.get("/api/corpus").json()["clips"] == 40
        commit(corpus, "Dvě ryby, druhý díl", waves["Dvě ryby"], clips=3)
        build_index(index, model_folder, CorpusVersion.open(str(corpus.folder)), device="cpu", progress=False)
        until(lambda: client.get("/api/corpus").json()["clips"] == 43, patience=60, what="the page shows the new clips")
        found = client.get("/api/search", params={"query": "a voice", "where": "series~druhý"}).json()["clips"]
        assert len(found) == 3
        heard = client.get(f"/api/clips/{found[0]['utterance_id']}/audio")
        assert heard.status_code == 200
        assert client.get("/").status_code == client.get("/static/page.css").status_code == 200


def test_a_page_stays_with_its_index_when_the_new_one_can_not_be_used(
    corpus: Corpus, index: Path, model_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "fsclap")
    with served(page(index, corpus)) as address, httpx.Client(base_url=address, timeout=60) as client:
        record = (index / RECORD).read_text()
        (index / RECORD).write_text("{")
        until(lambda: "still shows the old index" in caplog.text, patience=60, what="the record is refused")
        assert "damaged" in caplog.text
        assert client.get("/api/search", params={"query": "a voice"}).json()["clips"]
        (index / RECORD).write_text(record.replace('"clips": 40', '"clips": 39'))
        until(lambda: caplog.text.count("still shows the old index") >= 2, patience=60, what="and so is the next")
        assert client.get("/api/corpus").json()["clips"] == 40


def test_a_page_that_can_not_be_made_is_not_served(index: Path, corpus: Corpus) -> None:
    (index / RECORD).unlink()
    with pytest.raises(RuntimeError, match="holds no index"):
        page(index, corpus)
