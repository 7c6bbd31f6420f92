import numpy as np
import pytest

from fsclap import clustering
from fsclap.clustering import cluster, connected, in_order, most_alike, normalized, voice_centroids


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


def around(centers: np.ndarray, counts: list[int], spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points around unit centres, and the centre of each."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    return normalized(centers[labels] + rng.normal(0, spread, (len(labels), centers.shape[1]))), labels


@pytest.mark.parametrize("speakers", [1, 2, 3, 5, 8, 10])
@pytest.mark.parametrize("alike", [0.0, 0.6])
def test_voices_are_counted_whether_or_not_they_are_alike(speakers: int, alike: float) -> None:
    """`alike` is about the cosine of two centres; a threshold on distances can be right for one value only."""
    rng = np.random.default_rng(speakers)
    common = normalized(rng.normal(size=64))
    own = normalized(rng.normal(size=(speakers, 64)))
    centers = normalized(np.sqrt(alike) * common + np.sqrt(1 - alike) * own)
    points, labels = around(centers, [12] * speakers, 0.05)
    found = voice_centroids(points, np.ones(len(points)), one_voice=0.6, least_weight=4, max_clusters=20)
    assert len(found) == speakers
    nearest = most_alike(points, found)[1]
    assert len(set(zip(nearest.tolist(), labels.tolist(), strict=True))) == speakers


def test_a_voice_with_too_little_speech_is_none() -> None:
    points, _ = around(np.eye(16)[:3], [10, 10, 2], 0.03)
    weights = np.concatenate([np.ones(20), [1.0, 1.0]])
    options = {"one_voice": 0.6, "max_clusters": 20}
    assert len(voice_centroids(points, weights, least_weight=4, **options)) == 2
    assert len(voice_centroids(points, weights, least_weight=1, **options)) == 3


@pytest.mark.parametrize("known", [1, 2, 3, 6])
@pytest.mark.parametrize("each", [1, 12])
def test_a_known_number_of_voices_is_kept(known: int, each: int) -> None:
    points, labels = around(np.eye(16)[:3], [each] * 3, 0.03)
    options = {"one_voice": 1.0, "least_weight": 99.0, "max_clusters": 2}
    found = voice_centroids(points, np.ones(len(points)), voices=known, **options)
    assert len(found) == min(known, len(points))
    if known == 3:
        nearest = most_alike(points, found)[1]
        assert len(set(zip(nearest.tolist(), labels.tolist(), strict=True))) == 3


def test_few_points_and_many_voices_keep_to_the_limits() -> None:
    points, _ = around(np.eye(16)[:6], [5] * 6, 0.03)
    options = {"one_voice": 0.6, "least_weight": 0.0}
    assert len(voice_centroids(points, np.ones(30), max_clusters=4, **options)) <= 4
    assert len(voice_centroids(points, np.ones(30), max_clusters=1, **options)) == 1
    for count in (1, 2):
        found = voice_centroids(points[:count], np.ones(count), max_clusters=20, **options)
        assert found.shape == (1, 16)
