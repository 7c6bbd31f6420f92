"""Clustering of speaker embeddings."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import scipy  # its parts load when they are used: they take seconds, and every flow imports this module

MAX_LINKAGE = 4000
"""Points in one dendrogram; its distances take 8 n^2 / 2 bytes, so 64 MB."""
FEWEST_NEIGHBOURS = 4
"""Points in the neighbourhoods of the sparsest graph of `voice_centroids`."""
EIGENVALUE_FLOOR = 0.2
"""Share of the largest degree of a graph that is added to an eigenvalue before a gap is compared with it: the gaps
between eigenvalues that are nearly 0 say nothing."""
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
    embeddings: np.ndarray,
    weights: np.ndarray,
    *,
    one_voice: float,
    least_weight: float,
    max_clusters: int,
    voices: int | None = None,
) -> np.ndarray:
    """Find how many voices there are, and the centroid of each, by spectral clustering.

    Each point is joined to its nearest neighbours, with their cosine as weight. A graph of k parts that hardly
    touch has a Laplacian of k small eigenvalues, and a gap behind them (von Luxburg 2007, arXiv:0711.0189,
    section 8.3). How large a gap is counts in proportion to the eigenvalue behind it. It is averaged over graphs of
    some, and of more neighbours, since no one number suits short recordings and long ones (cf. Park et al. 2020,
    arXiv:2003.02405). Neighbours are compared within a recording, so that voices are told apart where all of them
    are alike (one microphone, all of them shout). A threshold on distances does not do that.

    O(n^3) in time and O(n^2) in memory.

    Args:
        embeddings: (n, dim) rows of unit L2 norm, n >= 1.
        weights: (n,) how much each counts in a centroid, such as its seconds; positive.
        one_voice: How much the gap behind the first eigenvalue counts, 0 .. 1. That eigenvalue is 0 in any graph, so
            the gap is large in a graph of one part, and not small in others.
        least_weight: Clusters of less weight in all are no voices, but for the heaviest.
        max_clusters: Most voices.
        voices: How many there are, if it is known; then the three arguments before do not count.

    Returns:
        (voices, dim) rows of unit L2 norm.
    """
    count = len(embeddings)
    most = min(voices or max_clusters, count - 1)
    labels = np.zeros(count, dtype=np.int64)
    if count > FEWEST_NEIGHBOURS and most > 1:
        cosines = embeddings.astype(np.float64) @ embeddings.T.astype(np.float64)
        np.fill_diagonal(cosines, np.inf)
        found = [_spectrum(cosines, number, most) for number in _numbers_of_neighbours(count)]
        for gaps, _ in found:
            gaps[0] *= one_voice
        parts = most if voices else 1 + int(np.mean([gaps for gaps, _ in found], axis=0).argmax())
        agreed = [vectors for gaps, vectors in found if gaps.argmax() + 1 == parts]
        vectors = agreed[len(agreed) // 2] if agreed else found[len(found) // 2][1]
        labels = k_means(vectors[:, :parts], parts)
    elif voices:
        labels = k_means(embeddings, min(voices, count))
    total = np.bincount(labels, weights=weights)
    enough = np.flatnonzero(total >= (0 if voices else min(least_weight, total.max())))
    return normalized(np.stack([weights[labels == k] @ embeddings[labels == k] for k in enough]))


def k_means(points: np.ndarray, parts: int) -> np.ndarray:
    """Divide points into parts around their means, the same each time.

    Args:
        points: (n, dim), n >= parts.
        parts: How many.

    Returns:
        (n,) labels, 0 to parts - 1.
    """
    if parts == 1:
        return np.zeros(len(points), dtype=np.int64)
    # Not at the top: it takes a second to import, and every flow imports this module.
    from sklearn.cluster import KMeans

    labels: np.ndarray = KMeans(parts, n_init=10, random_state=0).fit_predict(points)
    return labels


def _numbers_of_neighbours(points: int) -> list[int]:
    """Return some from FEWEST_NEIGHBOURS, each point among its own, to a tenth of the points."""
    numbers = np.geomspace(FEWEST_NEIGHBOURS, max(FEWEST_NEIGHBOURS + 2, points / 10), 5).round().astype(int)
    return sorted({number for number in numbers.tolist() if number < points})


def _spectrum(cosines: np.ndarray, neighbours: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how large each gap between eigenvalues is, and the eigenvectors below.

    Args:
        cosines: (n, n) of the points, infinite on the diagonal: each is its own nearest neighbour.
        neighbours: Points that each is joined to, itself among them.
        most: Gaps that are looked at.

    Returns:
        (most,) gaps, the k-th behind k eigenvalues, and (n, most + 1) eigenvectors.
    """
    nearest = np.argpartition(-cosines, neighbours - 1, axis=1)[:, :neighbours]
    graph = np.zeros_like(cosines)
    np.put_along_axis(graph, nearest, np.take_along_axis(cosines, nearest, axis=1).clip(min=0), axis=1)
    np.fill_diagonal(graph, 0)
    graph = (graph + graph.T) / 2
    degrees = graph.sum(axis=1)
    values, vectors = scipy.linalg.eigh(np.diag(degrees) - graph, subset_by_index=(0, most))
    behind = values[1:] + EIGENVALUE_FLOOR * degrees.max()
    return np.diff(values) / np.maximum(behind, np.finfo(np.float64).tiny), vectors


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
