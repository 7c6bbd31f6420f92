from pathlib import Path

import numpy as np
import pytest

from bench.search import WAYS, WIDTH, line, make_vectors, measure, timed


@pytest.mark.parametrize("kind", ["random", "clusters"])
def test_vectors_are_those_of_the_kind(kind: str, tmp_path: Path) -> None:
    make_vectors(kind, 2000, 30, tmp_path)
    vectors, queries = np.load(tmp_path / "vectors.npy"), np.load(tmp_path / "queries.npy")
    assert (vectors.shape, queries.shape) == ((2000, WIDTH), (30, WIDTH))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    nearest = (queries @ vectors.T).max(axis=1).mean()
    assert (nearest > 0.5) == (kind == "clusters")


@pytest.mark.parametrize("way", ["exact", "faiss"])
def test_a_way_finds_what_numpy_finds(way: str, tmp_path: Path) -> None:
    make_vectors("clusters", 3000, 20, tmp_path)
    truth, found = (timed(one, tmp_path)["found"] for one in ("numpy", way))
    hits = sum(len(set(true) & set(ids)) for true, ids in zip(truth, found, strict=True))
    assert hits / sum(map(len, truth)) > (0.999 if way == "exact" else 0.95)


@pytest.mark.slow
def test_a_measurement_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    rows = measure([1000], 5, ["numpy", "exact"], ["clusters"])
    assert [(row["way"], row["recall"]) for row in rows] == [("numpy", 1.0), ("exact", 1.0)]
    assert capsys.readouterr().out == "".join(f"{line(row)}\n" for row in rows)
    assert set(WAYS) >= {"numpy", "exact", "faiss"}
