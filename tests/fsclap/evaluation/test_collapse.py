import numpy as np
import pytest

from fsclap.evaluation import collapse as module
from fsclap.evaluation.collapse import alignment, collapse


def unit(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(rows, dim))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def by_definition(rows: np.ndarray) -> tuple[float, float, float]:
    """Loops over pairs; singular values from the eigenvalues of the covariance's unnormalised form."""
    distances, cosines = [], []
    for i in range(len(rows)):
        for j in range(i):
            distances.append(np.exp(-2 * np.sum((rows[i] - rows[j]) ** 2)))
            cosines.append(np.dot(rows[i], rows[j]))
    singular = np.sqrt(np.clip(np.linalg.eigvalsh(rows.T @ rows), 0, None))
    shares = [value for value in singular / singular.sum() if value > 1e-9]
    entropy = -sum(share * np.log(share) for share in shares)
    return float(np.log(np.mean(distances))), float(np.exp(entropy)), float(np.mean(cosines))


@pytest.mark.parametrize(("rows", "dim"), [(2, 3), (40, 8), (30, 50), (101, 16)])
@pytest.mark.parametrize("held", [2**22, 100])
def test_equals_the_definitions(rows: int, dim: int, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_A_TIME", held)
    embeddings = unit(rows, dim) + 0.2
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    found = collapse(embeddings.astype(np.float32))
    expected = by_definition(embeddings)
    assert (found.uniformity, found.effective_rank, found.mean_cosine) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_point_is_collapsed() -> None:
    found = collapse(np.repeat(unit(1, 32), 500, axis=0).astype(np.float32))
    assert found.uniformity == pytest.approx(0.0, abs=1e-5)
    assert found.effective_rank == pytest.approx(1.0, abs=1e-4)
    assert found.mean_cosine == pytest.approx(1.0)


def test_the_sphere_is_not() -> None:
    found = collapse(unit(4000, 64).astype(np.float32))
    assert found.uniformity == pytest.approx(-4.0 + 8 / 64, abs=0.01)  # log E exp(4 cos) - 4, cos of variance 1 / 64
    assert found.effective_rank > 60
    assert abs(found.mean_cosine) < 1e-3


def test_orthogonal_directions_count_as_ranks() -> None:
    assert collapse(np.repeat(np.eye(16)[:5], 10, axis=0)).effective_rank == pytest.approx(5.0)


def test_alignment_equals_the_definition() -> None:
    audio, text = unit(50, 8), unit(50, 8, seed=1)
    found = alignment(audio, text)
    expected = np.mean(
        [sum((a - t) ** 2 for a, t in zip(*pair, strict=True)) for pair in zip(audio, text, strict=True)]
    )
    assert found.alignment == pytest.approx(expected)
    assert found.modality_gap == pytest.approx(float(np.sqrt(((audio.mean(axis=0) - text.mean(axis=0)) ** 2).sum())))
    assert alignment(audio, audio).alignment == 0.0
    apart = alignment(np.repeat(np.eye(4)[:1], 3, axis=0), np.repeat(-np.eye(4)[:1], 3, axis=0))
    assert (apart.alignment, apart.modality_gap) == (4.0, 2.0)


def test_refuses_what_has_no_spread() -> None:
    with pytest.raises(ValueError, match="at least two"):
        collapse(unit(1, 4))
    with pytest.raises(ValueError, match="row 1 has norm 3"):
        collapse(unit(3, 4) * np.array([[1.0], [3.0], [1.0]]))
    with pytest.raises(ValueError, match="row 0 has norm nan"):
        alignment(unit(3, 4), unit(3, 4) * np.nan)
    with pytest.raises(ValueError, match="the same shape"):
        alignment(unit(3, 4), unit(2, 4))
