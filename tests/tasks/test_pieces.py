"""A batch goes through the heavy stages in pieces: what a kill costs, and what lies on the disk meanwhile."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from fsclap.corpus.captioning import attributes
from fsclap.corpus.download import list_episodes
from fsclap.corpus.settings import BuildSettings
from storage.work import WorkStore
from tasks import stages
from tasks.batches import Batch, Item
from tasks.diarization import diarization_stage, turns_of
from tasks.download import download_stage
from tasks.measure import attributes_stage
from tasks.separation import STAGE as SEPARATION
from tasks.separation import VOCALS, separation_stage
from tasks.stages import folder, run_stage
from tests.flows.conftest import SAMPLES, cut

pytestmark = pytest.mark.slow

SETTINGS = BuildSettings().resolved()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("videos")
    episodes = sorted(path.relative_to(SAMPLES).as_posix() for path in SAMPLES.glob("*/*.mp4"))
    for number, start in enumerate((5, 15, 25)):
        cut(episodes[0], found / f"e{number:02d}.mp4", start=start, seconds=10)
    return found


def downloaded(videos: Path, store: WorkStore) -> Batch:
    items = tuple(Item(episode=episode) for episode in list_episodes(str(videos), SETTINGS.download))
    return run_stage(download_stage(store, SETTINGS), Batch(name="test", items=items), store)


def test_nothing_of_the_second_piece_is_done_before_the_first_is_handed_over(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a kill costs the piece in hand, and the sound of one piece at a time lies on the disk."""
    monkeypatch.setattr(stages, "AT_ONCE", 0.1)
    store = WorkStore(tmp_path)
    batch = downloaded(videos, store)
    for make, sounds in ((separation_stage, 2), (diarization_stage, 1)):  # the mixture, and the vocals
        products = make(store, SETTINGS).produce(batch.alive)
        next(products)
        assert len(list(tmp_path.rglob("*.f32"))) == sounds
        products.close()
        batch = run_stage(make(store, SETTINGS), batch, store)
    heard: list[np.ndarray] = []
    measure = attributes.measure
    monkeypatch.setattr(attributes, "measure", lambda clip, rate: heard.append(clip) or measure(clip, rate))
    next(attributes_stage(store, SETTINGS).produce(batch.alive))
    assert 0 < len(heard) == len(turns_of(batch.items[0], store))


def test_pieces_change_no_output(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = []
    for number, at_once in enumerate((0.1, 600.0)):
        monkeypatch.setattr(stages, "AT_ONCE", at_once)
        store = WorkStore(tmp_path / str(number))
        batch = downloaded(videos, store)
        for make in (separation_stage, diarization_stage):
            batch = run_stage(make(store, SETTINGS), batch, store)
        vocals = [soundfile.read(folder(store, item.steps[SEPARATION]) / VOCALS)[0] for item in batch.items]
        outputs.append((vocals, [[turn.text for turn in turns_of(item, store)] for item in batch.items]))
    (alone, said_alone), (together, said_together) = outputs
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert said_alone == said_together
    assert any(said_alone)
