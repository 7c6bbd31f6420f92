import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from fsclap.retrieval import map as corpus_map
from fsclap.retrieval.app import make_app
from fsclap.retrieval.index import Index, SearchError
from fsclap.retrieval.map import CorpusMap, make_map, sample
from fsclap.retrieval.search import Searcher
from storage.versions import CorpusVersion


@pytest.fixture
def index(index_folder: Path, tmp_path: Path) -> Index:
    """One that a test may change."""
    shutil.copytree(index_folder, tmp_path / "index")
    return Index.open(tmp_path / "index")


def few(index: Index) -> Index:
    """The first 10 clips: too few for UMAP, so that their map is made at once."""
    return replace(index, vectors=index.vectors[:10], rows=index.rows.slice(0, 10))


def file_of(index: Index) -> Path:
    return index.folder / index.record.build / "map.npy"


def test_a_map_lies_in_the_unit_square_and_is_made_once(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    small = few(index)
    make_map(small)
    places = np.load(file_of(small))
    assert places.shape == (10, 2)
    assert places.min(axis=0) == pytest.approx([0, 0])
    assert places.max() == pytest.approx(1)
    monkeypatch.setattr("fsclap.evaluation.plots.umap_2d", None)  # would fail if it was called
    make_map(small)
    assert not list(file_of(small).parent.glob(".map*"))


def test_a_large_corpus_is_sampled_for_the_map(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sample(index).tolist() == list(range(40))
    monkeypatch.setattr(corpus_map, "MOST", 12)
    rows = sample(index)
    assert len(rows) == len(set(rows.tolist())) == 12
    assert (np.diff(rows) > 0).all()
    make_map(index)
    assert np.load(file_of(index)).shape == (12, 2)


def test_the_map_can_be_coloured_by_columns(index: Index, version: CorpusVersion, searcher: Searcher) -> None:
    np.save(file_of(index), np.zeros((40, 2), dtype=np.float32))
    client = TestClient(make_app(Searcher(index, searcher.model), version.audio, None), base_url="http://127.0.0.1")
    answer = client.get("/api/map").json()
    assert answer["ids"] == index.rows["utterance_id"].to_pylist()
    assert answer["of"] == 40
    assert {"emotion", "series", "speaker", "duration", "attributes.pitch_hz"} <= set(answer["columns"])

    emotions = client.get("/api/map/values", params={"column": "emotion"}).json()
    told = [None if code < 0 else emotions["names"][code] for code in emotions["codes"]]
    assert told == index.rows["emotion"].to_pylist()
    pitches = client.get("/api/map/values", params={"column": "attributes.pitch_hz"}).json()
    assert pitches["values"] == [row["pitch_hz"] for row in index.rows["attributes"].to_pylist()]
    assert 100 <= pitches["low"] < pitches["high"] <= 195
    assert "attributes.pitch_slope_st" not in answer["columns"]  # null in all clips
    wrong = client.get("/api/map/values", params={"column": "text"})
    assert wrong.status_code == 400
    assert "can't be coloured by 'text'" in wrong.json()["error"]


def test_rare_names_share_a_colour() -> None:
    names = [name for number, name in enumerate("abcdefghi") for _ in range(9 - number)]
    told = corpus_map._named(pa.array([*names, None]))
    assert told["names"] == ["a", "b", "c", "d", "e", "f", "others"]
    assert told["codes"][0] == 0
    assert told["codes"][-2:] == [6, -1]


def test_one_clip_is_no_map(index: Index) -> None:
    alone = replace(index, vectors=index.vectors[:1], rows=index.rows.slice(0, 1))
    with pytest.raises(SearchError, match="at least two clips"):
        CorpusMap(alone).places()


def test_a_failed_map_is_an_error_and_tried_again(index: Index, version: CorpusVersion, searcher: Searcher) -> None:
    app = make_app(Searcher(index, searcher.model), version.audio, None)
    record = index.folder / "index.json"
    record.rename(index.folder / "away")
    map_ = CorpusMap(index)
    assert map_.places() is None
    assert map_._process is not None
    map_._process.wait()
    with pytest.raises(SearchError, match="holds no index"):
        map_.places()
    assert map_.places() is None  # another try
    map_.stop()
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert client.get("/api/map").status_code == 202  # which leaving the client ends


@pytest.mark.slow
def test_the_page_makes_the_map_aside(index: Index) -> None:
    map_ = CorpusMap(index)
    assert map_.places() is None
    assert map_._process is not None
    assert map_._process.wait() == 0
    places = map_.places()
    assert places is not None
    assert places.shape == (40, 2)
    assert len(np.unique(places, axis=0)) == 40
