import itertools

import numpy as np
import pytest

from fsclap import clustering
from fsclap.clustering import best_path, cluster, connected, in_order, most_alike, normalized


def voices(*, speakers: int, each: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around random directions, shuffled, and who each belongs to."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(speakers), each))
    centers = rng.normal(size=(speakers, 64))
    return normalized(centers[truth] + spread * rng.normal(size=(len(truth), 64))), in_order(truth)


@pytest.mark.parametrize("speakers", [1, 2, 5])
def test_finds_the_speakers(speakers: int) -> None:
    embeddings, truth = voices(speakers=speakers, each=12, spread=0.3)
    np.testing.assert_array_equal(cluster(embeddings, threshold=0.5, max_clusters=20), truth)


def test_blocks_give_the_partition_of_one_dendrogram(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, truth = voices(speakers=4, each=50, spread=0.4)
    monkeypatch.setattr(clustering, "MAX_LINKAGE", 30)
    np.testing.assert_array_equal(cluster(embeddings, threshold=0.5, max_clusters=20), truth)


def test_blocks_that_nothing_merges_still_end(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = normalized(np.random.default_rng(0).normal(size=(50, 64)))
    monkeypatch.setattr(clustering, "MAX_LINKAGE", 10)
    labels = cluster(embeddings, threshold=0.01, max_clusters=20)
    assert 1 <= labels.max() + 1 <= 20


def test_never_more_than_the_most_clusters() -> None:
    embeddings, _ = voices(speakers=5, each=10, spread=0.3)
    assert set(cluster(embeddings, threshold=0.5, max_clusters=3)) == {0, 1, 2}
    assert set(cluster(embeddings, threshold=0.5, max_clusters=1)) == {0}


def test_one_point_and_equal_points_are_one_cluster() -> None:
    point = normalized(np.ones((1, 8)))
    assert cluster(point, threshold=0.3, max_clusters=5).tolist() == [0]
    assert cluster(np.repeat(point, 4, axis=0), threshold=0.3, max_clusters=5).tolist() == [0] * 4


@pytest.mark.parametrize("similarity", [0.0, 0.2, 0.3, 0.5, 1.0])
def test_groups_are_the_connected_components(similarity: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "TILE", 7)
    monkeypatch.setattr(clustering, "MAX_PAIRS", 20)
    embeddings, _ = voices(speakers=12, each=5, spread=0.9)
    groups = connected(embeddings, similarity=similarity)
    reached = np.eye(60, dtype=bool) | (embeddings @ embeddings.T >= similarity)
    for _ in range(6):  # chains of up to 2^6 points
        reached = (reached.astype(np.int64) @ reached) > 0
    np.testing.assert_array_equal(groups, in_order(reached.argmax(axis=1)))


@pytest.mark.parametrize("spread", [0.3, 0.6, 0.9])
def test_a_cluster_lies_within_a_group(spread: float) -> None:
    embeddings, truth = voices(speakers=8, each=10, spread=spread)
    groups = connected(embeddings, similarity=0.5)
    clusters = cluster(embeddings, threshold=0.5, max_clusters=80)
    assert all(len(set(groups[clusters == label])) == 1 for label in set(clusters.tolist()))
    if spread == 0.3:
        np.testing.assert_array_equal(groups, clusters)
        np.testing.assert_array_equal(groups, truth)


def test_no_points_are_no_groups() -> None:
    assert connected(np.empty((0, 4)), similarity=0.5).tolist() == []


def test_most_alike_is_the_highest_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "TILE", 7)
    points, others = (voices(speakers=5, each=5, spread=0.9, seed=seed)[0] for seed in (1, 2))
    highest, nearest = most_alike(points, others)
    np.testing.assert_allclose(highest, (points @ others.T).max(axis=1), atol=1e-6)
    np.testing.assert_array_equal(nearest, (points @ others.T).argmax(axis=1))


def test_labels_come_in_order_of_appearance() -> None:
    assert in_order(np.array([7, 7, 2, 7, 5, 2])).tolist() == [0, 0, 1, 0, 2, 1]
    assert in_order(np.array([], dtype=np.int64)).tolist() == []


def test_zero_stays_zero() -> None:
    np.testing.assert_array_equal(normalized(np.array([[0.0, 0.0], [3.0, 4.0]])), [[0, 0], [0.6, 0.8]])


def test_best_path_is_the_best_of_all_paths() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        scores, cost = rng.normal(size=(6, 3)), rng.uniform(0, 1.5, size=6)

        def total(path: tuple[int, ...], scores: np.ndarray = scores, cost: np.ndarray = cost) -> float:
            changes = sum(cost[t] for t in range(1, 6) if path[t] != path[t - 1])
            return sum(scores[t, label] for t, label in enumerate(path)) - changes

        best = max(itertools.product(range(3), repeat=6), key=total)
        assert tuple(best_path(scores, cost)) == best


def test_a_change_has_to_pay_its_cost() -> None:
    scores = np.array([[1.0, 0.0], [0.4, 0.6], [1.0, 0.0]])
    assert best_path(scores, np.zeros(3)).tolist() == [0, 1, 0]
    assert best_path(scores, np.full(3, 0.2)).tolist() == [0, 0, 0]
