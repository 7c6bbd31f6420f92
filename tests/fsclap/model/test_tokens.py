import numpy as np
import pytest
import torch

from fsclap.model.tokens import pad


def test_sequences_are_padded_to_the_longest() -> None:
    tokens = pad([np.ones((2, 3)), np.full((4, 3), 2.0)])
    assert tokens.values.shape == (2, 4, 3)
    assert tokens.values.dtype == torch.float32
    assert tokens.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert tokens.values[0].sum() == 6
    assert tokens.values[1].sum() == 24


def test_token_ids_stay_integers() -> None:
    tokens = pad([np.array([5, 6]), np.array([7])])
    assert tokens.values.tolist() == [[5, 6], [7, 0]]
    assert tokens.values.dtype == torch.int64


def test_rows_can_be_taken_out() -> None:
    tokens = pad([np.array([5, 6]), np.array([7]), np.array([8])])
    assert tokens[1:].values.tolist() == [[7, 0], [8, 0]]
    assert len(tokens[torch.tensor([2])]) == 1


def test_an_empty_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="sequence 1 of 2 is empty"):
        pad([np.ones((2, 3)), np.ones((0, 3))])
    with pytest.raises(ValueError, match="got none"):
        pad([])
