"""Clustering of speaker embeddings."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import scipy  # its parts load when they are used: they take seconds, and every flow imports this module

MAX_LINKAGE = 4000
"""Points in one dendrogram; its distances take 8 n^2 / 2 bytes, so 64 MB."""
TILE = 2048
"""Rows and columns of the cosines that are held at once: 16 MB."""
MAX_PAIRS = 4_000_000
"""Pairs of points kept before they are made into groups; 16 bytes each."""
ROUNDING = 1e-6
"""How far a cosine in float32 may be off."""


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to unit L2 norm; a row of zeros stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


def cluster(embeddings: np.ndarray, *, threshold: float, max_clusters: int) -> np.ndarray:
    """Average-link agglomerative clustering on cosine distance.

    O(n^2) in time and memory up to MAX_LINKAGE points. Beyond, blocks of consecutive points are
    clustered apart and their clusters' means clustered again (the average link between two clusters
    of unit vectors is 1 - mean_a . mean_b; the second level counts every first-level cluster once,
    whatever its size), so that n points take O(n MAX_LINKAGE) time and O(MAX_LINKAGE^2) memory.
    A block of which fewer than half can be merged below the threshold is merged further, so beyond
    MAX_LINKAGE points the threshold is no promise; `connected` keeps its own at any size.

    Args:
        embeddings: (n, dim) rows of unit L2 norm.
        threshold: Mean cosine distance above which two clusters are not merged, 0 .. 2.
        max_clusters: Most clusters to return.

    Returns:
        (n,) integer labels from 0, in order of first appearance.
    """
    if len(embeddings) <= MAX_LINKAGE:
        return in_order(_cut(embeddings, threshold=threshold, max_clusters=max_clusters))
    means: list[np.ndarray] = []
    members = np.empty(len(embeddings), dtype=np.int64)
    for start in range(0, len(embeddings), MAX_LINKAGE):
        block = embeddings[start : start + MAX_LINKAGE]
        # At most half as many clusters as points, so that the next level is smaller whatever the
        # threshold.
        labels = in_order(_cut(block, threshold=threshold, max_clusters=max(1, len(block) // 2)))
        members[start : start + len(block)] = labels + len(means)
        means.extend(block[labels == label].mean(axis=0) for label in range(labels.max() + 1))
    groups = cluster(normalized(np.stack(means)), threshold=threshold, max_clusters=max_clusters)
    return in_order(groups[members])


def _cut(embeddings: np.ndarray, *, threshold: float, max_clusters: int) -> np.ndarray:
    if len(embeddings) < 2:
        return np.zeros(len(embeddings), dtype=np.int64)
    hierarchy = scipy.cluster.hierarchy
    tree = hierarchy.linkage(embeddings.astype(np.float64), method="average", metric="cosine")
    labels = hierarchy.fcluster(tree, threshold, criterion="distance")
    if labels.max() > max_clusters:
        labels = hierarchy.fcluster(tree, max_clusters, criterion="maxclust")
    return labels


def voice_centroids(
    embeddings: np.ndarray, weights: np.ndarray, *, least_silhouette: float, least_weight: float, max_clusters: int
) -> np.ndarray:
    """Find how many voices there are, and the centroid of each.

    Ward's method gives a partition for each number of clusters; the one with the highest silhouette
    (Rousseeuw 1987) is taken. The silhouette compares the distances within clusters with those to the
    nearest other cluster, so it works where all voices of a recording are alike (one microphone, all of
    them shout) as well as where they are far apart. A threshold on distances does not.

    O(n^2) in time and memory up to the MAX_LINKAGE points of most weight, which alone are clustered.

    Args:
        embeddings: (n, dim) rows of unit L2 norm, n >= 1.
        weights: (n,) how much each counts, such as its seconds; positive.
        least_silhouette: Lower silhouettes, -1 .. 1, mean that there is one voice.
        least_weight: Clusters of less weight in all are divided among the others, but for the heaviest.
        max_clusters: Most voices.

    Returns:
        (voices, dim) rows of unit L2 norm.
    """
    heaviest = np.sort(np.argsort(-weights, kind="stable")[:MAX_LINKAGE])
    points, weights = embeddings[heaviest].astype(np.float32), weights[heaviest]
    distance = 1 - points @ points.T
    best, found = least_silhouette, np.zeros(len(points), dtype=np.int64)
    tree = scipy.cluster.hierarchy.linkage(points.astype(np.float64), method="ward") if len(points) > 2 else None
    for count in range(2, min(max_clusters, len(points) - 1) + 1):
        labels = scipy.cluster.hierarchy.fcluster(tree, count, criterion="maxclust") - 1
        labels = most_alike(points, _heavy_centroids(points, labels, weights, least_weight))[1]
        score = _silhouette(distance, in_order(labels), weights)
        if score > best:
            best, found = score, in_order(labels)
    return _heavy_centroids(points, found, weights, 0.0)


def _heavy_centroids(points: np.ndarray, labels: np.ndarray, weights: np.ndarray, least: float) -> np.ndarray:
    """(clusters, dim) of unit norm: the weighted means of the clusters that weigh enough."""
    total = np.bincount(labels, weights=weights)
    enough = np.flatnonzero(total >= min(least, total.max()))
    return normalized(np.stack([weights[labels == k] @ points[labels == k] for k in enough]))


def _silhouette(distance: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean silhouette; -1 for a single cluster, and 0 for a point alone in its own.

    Args:
        distance: (n, n) between points, 0 on the diagonal.
        labels: (n,) from 0, none missing.
        weights: (n,) of the points.
    """
    clusters, points = labels.max() + 1, np.arange(len(labels))
    if clusters < 2:
        return -1.0
    members = np.zeros((len(labels), clusters), dtype=distance.dtype)
    members[points, labels] = weights
    total = members.sum(axis=0)
    alone = np.bincount(labels)[labels] == 1
    mean = distance @ members / total
    own = mean[points, labels] * total[labels] / np.where(alone, 1, total[labels] - weights)
    mean[points, labels] = np.inf
    nearest = mean.min(axis=1)
    gain = (nearest - own) / np.maximum(np.maximum(nearest, own), np.finfo(distance.dtype).tiny)
    return float(np.average(np.where(alone, 0.0, gain), weights=weights))


def connected(embeddings: np.ndarray, *, similarity: float) -> np.ndarray:
    """Group points such that no two of different groups have a cosine of `similarity` or more.

    Single link, exact at any size: two points are in one group if a chain of points leads from one
    to the other, neighbours of which are that alike. Every cluster that `cluster` would make of up
    to MAX_LINKAGE points at the threshold 1 - similarity lies within a group, since a mean cosine
    is no higher than the highest. O(n^2) time, O(n) memory.

    Args:
        embeddings: (n, dim) rows of unit L2 norm.
        similarity: Cosine, -1 .. 1; one lower by ROUNDING counts, too.

    Returns:
        (n,) integer labels from 0, in order of first appearance.
    """
    points = np.ascontiguousarray(embeddings, dtype=np.float32)
    groups = np.arange(len(points))
    pairs: list[np.ndarray] = []
    for start in range(0, len(points), TILE):
        for other in range(start, len(points), TILE):
            here, there = slice(start, start + TILE), slice(other, other + TILE)
            rows, columns = np.nonzero(points[here] @ points[there].T >= similarity - ROUNDING)
            ends = np.stack([groups[here][rows], groups[there][columns]])
            pairs.append(ends[:, ends[0] != ends[1]])
            if sum(pair.shape[1] for pair in pairs) > MAX_PAIRS:
                groups, pairs = _united(groups, pairs), []
    return in_order(_united(groups, pairs))


def _united(groups: np.ndarray, pairs: list[np.ndarray]) -> np.ndarray:
    """Unite groups by pairs of them.

    Args:
        groups: (n,) group of each point, 0 .. n - 1.
        pairs: (2, any) groups that are one.

    Returns:
        (n,) group of each point.
    """
    if not pairs:
        return groups
    ends = np.concatenate(pairs, axis=1)
    sparse = scipy.sparse
    graph = sparse.coo_array((np.ones(ends.shape[1], dtype=bool), tuple(ends)), shape=(len(groups), len(groups)))
    return sparse.csgraph.connected_components(graph, directed=False)[1][groups]


def most_alike(embeddings: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the most similar other point of each point.

    Args:
        embeddings: (n, dim) rows of unit L2 norm.
        others: (m, dim) rows of unit L2 norm; at least one.

    Returns:
        (n,) highest cosine as float32, and (n,) the row of `others` that has it.
    """
    points, others = (np.ascontiguousarray(rows, dtype=np.float32) for rows in (embeddings, others))
    best = np.full(len(points), -np.inf, dtype=np.float32)
    nearest = np.zeros(len(points), dtype=np.int64)
    for start in range(0, len(points), TILE):
        here = slice(start, start + TILE)
        for other in range(0, len(others), TILE):
            cosines = points[here] @ others[other : other + TILE].T
            column = cosines.argmax(axis=1)
            highest = np.take_along_axis(cosines, column[:, None], axis=1)[:, 0]
            closer = highest > best[here]
            best[here][closer], nearest[here][closer] = highest[closer], other + column[closer]
    return best, nearest


def in_order(labels: np.ndarray) -> np.ndarray:
    """Renumber a partition from 0 in order of first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return rank[inverse]


def mean_embeddings(clips: Iterable[tuple[str, np.ndarray | None]]) -> dict[str, np.ndarray | None]:
    """Average the directions of each speaker's clips.

    Args:
        clips: Speaker and (dim,) embedding of each; one that is None or not finite does not count.

    Returns:
        Speaker -> (dim,) float64 of unit norm, or None for one without embeddings; by first
        appearance.
    """
    sums: dict[str, np.ndarray | None] = {}
    for speaker, embedding in clips:
        total = sums.setdefault(speaker, None)
        if embedding is not None and np.isfinite(embedding).all():
            sums[speaker] = embedding.astype(np.float64) if total is None else total + embedding
    return {s: normalized(v[None])[0] if v is not None and v.any() else None for s, v in sums.items()}


def vectors(column: pa.ChunkedArray) -> Iterator[np.ndarray | None]:
    """Yield the embeddings of a column of lists; None for a row without one."""
    for cell in column:
        known = cell.is_valid and len(cell.values)
        yield cell.values.to_numpy(zero_copy_only=False) if known else None
