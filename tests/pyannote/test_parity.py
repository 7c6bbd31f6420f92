"""Our network of segmentation-3.0 gives the numbers of pyannote.audio's class on the same weights.

In an environment of its own (`make test-pyannote`), since pyannote.audio brings its own PyTorch; skipped
where it is not installed.
"""

import importlib.util

import numpy as np
import pytest
import torch

if importlib.util.find_spec("pyannote") is None or importlib.util.find_spec("pyannote.audio") is None:
    pytest.skip("pyannote.audio is not installed here: `make test-pyannote`", allow_module_level=True)

from pyannote.audio.core.task import Problem, Resolution, Specifications
from pyannote.audio.models.segmentation import PyanNet as Theirs
from pyannote.audio.utils.powerset import Powerset

from fsclap.carried import carried
from fsclap.corpus.diarization.segmentation import RATE, SETS, SPEAKERS, WEIGHTS, WINDOW, Segmentation


@pytest.fixture(scope="module")
def theirs() -> Theirs:
    network = Theirs(
        sincnet={"stride": 10},
        lstm={"hidden_size": 128, "num_layers": 4, "bidirectional": True, "monolithic": True},
        linear={"hidden_size": 128, "num_layers": 2},
    )
    network.specifications = Specifications(
        problem=Problem.MONO_LABEL_CLASSIFICATION,
        resolution=Resolution.FRAME,
        duration=WINDOW / RATE,
        classes=["one", "two", "three"],
        powerset_max_classes=2,
        permutation_invariant=True,
    )
    network.build()
    network.load_state_dict(carried(WEIGHTS, setting="test").tensors)
    return network.eval()


def voices() -> np.ndarray:
    """(3, 1, WINDOW): buzzes of changing pitch with pauses, noise, and a recording that is far too loud."""
    rng, time = np.random.default_rng(0), np.arange(WINDOW) / RATE
    pitch = 120 + 60 * np.sin(2 * np.pi * 0.4 * time) + 80 * (time > 5)
    buzz = np.sign(np.sin(2 * np.pi * np.cumsum(pitch) / RATE)) * (np.sin(2 * np.pi * 0.7 * time) > -0.3)
    noise = rng.normal(0, 0.1, WINDOW)
    return np.stack([0.1 * buzz + 0.01 * noise, noise, 5 * buzz]).astype(np.float32)[:, np.newaxis]


def test_log_probabilities_are_those_of_pyannote(theirs: Theirs) -> None:
    ours = Segmentation(torch.device("cpu"), setting="test").network
    with torch.inference_mode():
        wanted, got = theirs(torch.from_numpy(voices())), ours(torch.from_numpy(voices()))
    assert got.shape == wanted.shape
    assert wanted.exp().std(dim=1).max() > 0.03  # the network does not say the same of every frame
    assert (got - wanted).abs().max() < 1e-4


def test_classes_stand_for_the_speakers_of_pyannote() -> None:
    mapping = Powerset(SPEAKERS, 2).mapping.int().tolist()
    assert mapping == [[int(speaker in members) for speaker in range(SPEAKERS)] for members in SETS]
