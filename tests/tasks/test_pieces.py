"""A batch goes through the heavy stages in pieces: what a kill costs, and how much sound lies on the disk meanwhile."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from fsclap.corpus.captioning import attributes
from fsclap.corpus.download import list_episodes
from fsclap.corpus.settings import BuildSettings
from harness.samples import cut, sample_episodes
from storage.work import WorkStore
from tasks import stages
from tasks.batches import Batch, Item
from tasks.declared import Plan, declare
from tasks.diarization import diarization_stage
from tasks.download import download_stage
from tasks.measure import attributes_stage
from tasks.outputs import SEPARATION, VOCALS, turns_of
from tasks.separation import separation_stage
from tasks.stages import folder, run_stage


@pytest.fixture(scope="module")
def plan() -> Plan:
    return declare(BuildSettings())


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of eight seconds."""
    videos = tmp_path_factory.mktemp("videos")
    for number, start in enumerate((5, 15)):
        cut(sample_episodes()[0], videos / f"e{number:02d}.mp4", start=start, seconds=8)
    return videos


def downloaded(videos: Path, store: WorkStore, plan: Plan) -> Batch:
    items = tuple(Item(episode=episode) for episode in list_episodes(str(videos), plan.settings.download))
    return run_stage(download_stage(store, plan), Batch(name="test", items=items), store)


def test_a_piece_is_handed_over_before_the_next_is_begun(
    videos: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a kill costs one piece, and the sound of one piece at a time lies on the disk."""
    monkeypatch.setattr(stages, "AT_ONCE", 0.1)
    store = WorkStore(tmp_path)
    batch = downloaded(videos, store, plan)
    for make, sounds in ((separation_stage, 2), (diarization_stage, 1)):  # mixture and vocals; vocals
        products = make(store, plan).produce(batch.alive)
        next(products)
        assert len(list(tmp_path.rglob("*.f32"))) == sounds
        products.close()
        batch = run_stage(make(store, plan), batch, store)
    clips: list[np.ndarray] = []
    measure = attributes.measure
    monkeypatch.setattr(attributes, "measure", lambda clip, rate: clips.append(clip) or measure(clip, rate))
    next(attributes_stage(store, plan).produce(batch.alive))
    assert 0 < len(clips) == len(turns_of(batch.items[0], store))


@pytest.mark.slow
def test_pieces_change_no_output(videos: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = []
    for number, at_once in enumerate((0.1, 600.0)):
        monkeypatch.setattr(stages, "AT_ONCE", at_once)
        store = WorkStore(tmp_path / str(number))
        batch = downloaded(videos, store, plan)
        for make in (separation_stage, diarization_stage):
            batch = run_stage(make(store, plan), batch, store)
        vocals = [soundfile.read(folder(store, item.steps[SEPARATION]) / VOCALS)[0] for item in batch.items]
        outputs.append((vocals, [[turn.text for turn in turns_of(item, store)] for item in batch.items]))
    (vocals_alone, texts_alone), (vocals_together, texts_together) = outputs
    for alone, together in zip(vocals_alone, vocals_together, strict=True):
        np.testing.assert_allclose(alone, together, atol=1e-4)
    assert texts_alone == texts_together
    assert any(texts_alone)
