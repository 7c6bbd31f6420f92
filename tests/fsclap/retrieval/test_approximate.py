import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from fsclap.retrieval import By, approximate
from fsclap.retrieval.build import build_index
from fsclap.retrieval.filters import Condition
from fsclap.retrieval.index import Index
from fsclap.retrieval.nearest import nearest
from fsclap.retrieval.search import Searcher
from storage.versions import CorpusVersion

WIDTH = 32


@pytest.fixture(scope="module")
def clustered() -> tuple[np.ndarray, np.ndarray]:
    """20,000 vectors in 200 clusters, and a query near each of 50 of them."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((200, WIDTH))
    vectors = centres[np.arange(20_000) % 200] + 0.3 * rng.standard_normal((20_000, WIDTH))
    queries = centres[:50] + 0.3 * rng.standard_normal((50, WIDTH))
    return unit(vectors), unit(queries)


def unit(rows: np.ndarray) -> np.ndarray:
    found: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return found


@pytest.mark.parametrize("share", [None, 0.3])
def test_approximate_search_finds_nearly_all_exact_results(
    clustered: tuple[np.ndarray, np.ndarray], tmp_path: Path, share: float | None
) -> None:
    vectors, queries = clustered
    approximate.build(vectors, tmp_path / "index")
    index = approximate.load(tmp_path / "index")
    among = None if share is None else np.random.default_rng(1).random(len(vectors)) < share
    found = 0
    for query in queries:
        rows = approximate.candidates(index, query, 100, among)
        assert among is None or among[rows].all()
        found += len(set(rows) & set(nearest(vectors, query, 10, among)[0]))
    assert found / (10 * len(queries)) > 0.99


def test_a_large_corpus_is_searched_approximately(
    small_index: Path, model_folder: Path, version: CorpusVersion, searcher: Searcher, tmp_path: Path
) -> None:
    shutil.copytree(small_index, tmp_path / "i")  # half of the vectors are computed already
    build_index(tmp_path / "i", model_folder, version, device="cpu", approximate_above=10, progress=False)
    assert Index.open(tmp_path / "i").approximate is not None
    assert searcher.index.approximate is None, "40 clips are few"
    large = Searcher.open(tmp_path / "i", device="cpu")
    where = [Condition.parse("language=en")]
    for conditions in ([], where):
        exact, found = (one.search("a low voice", top=5, where=conditions, by="model") for one in (searcher, large))
        assert [hit.utterance_id for hit in found] == [hit.utterance_id for hit in exact]
        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in exact], abs=1e-5)
    for by in get_args(By):
        exact, found = (one.search("a low voice", top=40, by=by, where=where) for one in (searcher, large))
        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in exact], abs=1e-4)
