"""CAM++ of the package: the numbers of FunASR's own inference, whatever shares a batch."""

import numpy as np
import pytest
import torch

from fsclap.corpus.diarization.campplus import DIM, LEAST, RATE, CAMPlusPlus, features_of, spare
from fsclap.corpus.funasr_weights import quiet

with quiet():
    from funasr.models.campplus.utils import extract_feature


@pytest.fixture(scope="module")
def encoder() -> CAMPlusPlus:
    return CAMPlusPlus(torch.device("cpu"), setting="test")


@pytest.fixture(scope="module")
def voice(dry_mono: np.ndarray) -> np.ndarray:
    """Ten seconds of people who speak, at RATE."""
    return np.array(dry_mono[: 10 * RATE])


def test_features_are_those_of_funasr(voice: np.ndarray) -> None:
    theirs, _, _ = extract_feature([torch.from_numpy(voice)])
    ours = features_of(voice)
    assert ours.shape == tuple(theirs.shape[1:])
    np.testing.assert_allclose(ours - ours.mean(axis=0), theirs[0].numpy(), atol=1e-4)


def test_embeddings_are_those_of_funasr(encoder: CAMPlusPlus, voice: np.ndarray) -> None:
    pieces = [voice[: 3 * RATE], voice[4 * RATE : 5 * RATE], voice[RATE : 7 * RATE + 777]]
    for piece, ours in zip(pieces, encoder.embed(pieces), strict=True):
        whole = piece[spare(len(piece)) :]
        with torch.inference_mode():
            results, _ = encoder.network.inference([whole], key=["piece"], device="cpu")
        theirs = results[0]["spk_embedding"][0].numpy()
        np.testing.assert_allclose(ours, theirs / np.linalg.norm(theirs), atol=1e-5)


def test_an_embedding_does_not_depend_on_its_neighbours(encoder: CAMPlusPlus, voice: np.ndarray) -> None:
    pieces = [voice[start : start + 2 * RATE + start % 3000] for start in range(0, 5 * RATE, RATE // 2)]
    together = np.array(list(encoder.embed(pieces)))
    assert together.shape == (len(pieces), DIM)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together[3], next(encoder.embed([pieces[3]])), atol=1e-5)


def test_the_shortest_piece_has_an_embedding_and_nothing_is_nothing(encoder: CAMPlusPlus, voice: np.ndarray) -> None:
    assert list(encoder.embed([])) == []
    assert np.isfinite(next(encoder.embed([voice[RATE : RATE + LEAST]]))).all()
    assert np.isfinite(next(encoder.embed([np.zeros(RATE, dtype=np.float32)]))).all()


def test_a_length_loses_less_than_a_tenth_of_a_second() -> None:
    assert all(0 <= spare(samples) < RATE // 10 for samples in range(LEAST, 3 * RATE, 137))
    assert all(samples - spare(samples) >= LEAST for samples in range(LEAST, 3 * RATE, 137))
