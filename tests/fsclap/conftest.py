"""What the tests of the library share, built once per session: clips, their split, a small trained model."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

if TYPE_CHECKING:
    from fsclap.data.clips import ClipStore
    from fsclap.data.splits import Split
    from fsclap.training.record import Trained

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture(scope="session")
def episode() -> Path:
    """A real recording that comes with the project: a video with speech."""
    return min(SAMPLES.glob("*/e01.mp4"))


@pytest.fixture(scope="session")
def dry_episode() -> Path:
    """A recording without music."""
    truth = json.loads((SAMPLES / "truth.json").read_text())
    episodes = [episode for series in truth["series"] for episode in series["episodes"]]
    return SAMPLES / next(episode["file"] for episode in episodes if not episode["music"])


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """90 clips; see `clip_table`."""
    from tests.fsclap.training.conftest import clip_table

    return clip_table(tmp_path_factory.mktemp("decoded"))


@pytest.fixture(scope="session")
def store(corpus: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> "ClipStore":
    from fsclap.data.clips import ClipStore

    return ClipStore.create(tmp_path_factory.mktemp("clips"), corpus.to_batches(), key="samples@1", progress=False)


@pytest.fixture(scope="session")
def split(store: "ClipStore") -> "Split":
    from fsclap.data.splits import SplitSettings, make_split

    return make_split(store.table, SplitSettings(seed=1))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features that the tests of this session share."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="session")
def trained_run(store: "ClipStore", split: "Split", cache: Path, tmp_path_factory: pytest.TempPathFactory) -> "Trained":
    """A small model with the embedded encoders, six epochs; no test may change its folder."""
    import torch

    from fsclap.training.loop import train
    from tests.fsclap.training.conftest import tiny

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        folder = tmp_path_factory.mktemp("trained") / "run"
        return train(store, split, tiny(epochs=6), folder, cache=cache, corpus="samples", version=3, progress=False)
    finally:
        torch.set_num_threads(threads)
