import numpy as np
import pytest

from fsclap.retrieval import map as corpus_map


def test_clips_beyond_those_that_are_laid_out_lie_among_their_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_map, "LAID_OUT", 60)
    rng = np.random.default_rng(0)
    centres = np.eye(3, 16)
    kinds = rng.integers(3, size=400)
    vectors = centres[kinds] + 0.05 * rng.standard_normal((400, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    asked = []

    def lay_out(some: np.ndarray) -> np.ndarray:
        asked.append(len(some))
        return np.stack([10.0 * some.argmax(axis=1), np.zeros(len(some))], axis=1)

    places = corpus_map._placed(vectors, lay_out)
    assert asked == [60]
    assert np.abs(places[:, 0] - 10 * kinds).max() < 1
