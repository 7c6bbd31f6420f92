import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from fsclap.data.batches import embed, load_pairs
from fsclap.data.clips import ClipStore
from fsclap.data.splits import Split, TooSmall
from fsclap.evaluation.metrics import mean_map10
from fsclap.model.encoders import Encoders
from fsclap.model.settings import ModelSettings
from fsclap.model.systems import SYSTEMS, load_system
from fsclap.model.systems.base import ModelError
from fsclap.model.systems.fs_clap import FSCLAP
from fsclap.model.tokens import Tokens
from fsclap.training import checkpoint, loop
from fsclap.training.checkpoint import Epoch, Position
from fsclap.training.loop import Diverged, train
from fsclap.training.record import Metrics, Trained
from tests.fsclap.training.conftest import TINY, tiny
from tests.fsclap.training.encoders import FrozenBytes, TrainedMel, frozen, trained


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def steps(folder: Path) -> list[dict[str, Any]]:
    """The steps, without what a clock says."""
    rows = [line for line in lines(folder) if "loss" in line]
    return [{name: x for name, x in row.items() if not name.endswith("_s")} for row in rows]


@pytest.fixture
def job(store: ClipStore, split: Split, cache: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "store": store,
        "split": split,
        "settings": tiny(),
        "folder": tmp_path / "run",
        "cache": cache,
        "encoders": frozen(),
        "progress": False,
    }


def test_a_trained_folder_is_a_model(trained_run: Trained, store: ClipStore, split: Split, cache: Path) -> None:
    done = trained_run
    assert (done.run.corpus, done.run.version, done.run.split) == ("samples", 3, split.digest)
    assert [epoch.epoch for epoch in done.history] == [1, 2, 3, 4, 5, 6]
    losses = [epoch.loss for epoch in done.history if epoch.loss is not None]
    assert losses[-1] < losses[0] - 0.1  # it learns
    assert (done.best_epoch, done.validation) == (6, done.history[-1].validation)
    assert done.clips["train"] == len(split.train)
    assert Split.load(done.folder / "split.json") == split

    model = FSCLAP.from_pretrained(done.folder)
    encoders = (model.audio_encoder, model.text_encoder)
    validation = load_pairs(store, split.validation, encoders, folder=cache, progress=False)
    embeddings = embed(model, validation, batch=done.run.settings.batch)
    figure = mean_map10(embeddings.audio.numpy(), embeddings.text.numpy())
    assert figure == done.validation  # the weights of the best epoch
    pickles = [file for pattern in ("*.p*t", "*.bin", "*.pkl") for file in done.folder.glob(f"**/{pattern}")]
    assert pickles == []


def test_every_step_is_measured(trained_run: Trained) -> None:
    taken = steps(trained_run.folder)
    assert [row["step"] for row in taken] == list(range(1, trained_run.steps + 1))
    per_epoch = trained_run.steps // 6
    assert sum(row["pairs"] for row in taken[:per_epoch]) == trained_run.clips["train"]
    assert taken[round(0.05 * trained_run.steps) - 1]["lr"] == pytest.approx(3e-3)  # after the warm-up
    assert trained_run.history[0].loss == pytest.approx(np.mean([row["loss"] for row in taken[:per_epoch]]))
    timed = [line for line in lines(trained_run.folder) if "loss" in line]
    assert all(line["data_s"] > 0 and line["compute_s"] > 0 and line["optimizer_s"] > 0 for line in timed)
    assert [line["validation"] for line in lines(trained_run.folder) if "validation" in line] == [
        epoch.validation for epoch in trained_run.history
    ]
    (curves,) = (trained_run.folder / "tensorboard").glob("events*")
    assert b"validation" in curves.read_bytes()


def test_a_finished_folder_is_returned_and_another_run_refused(trained_run: Trained, job: dict[str, Any]) -> None:
    same = job | {"folder": trained_run.folder, "corpus": "samples", "version": 3}
    written = (trained_run.folder / "model.safetensors").stat()
    assert train(**same | {"settings": tiny(epochs=6)}) == trained_run == Trained.load(trained_run.folder)
    # These settings don't change the model.
    assert train(**same | {"settings": tiny(epochs=6, workers=1, checkpoint_minutes=3)}) == trained_run
    assert (trained_run.folder / "model.safetensors").stat() == written
    narrow = tiny(epochs=3, model=tiny().model.model_copy(update={"width": 8}))
    with pytest.raises(
        ValueError, match=r"belongs to another run \(epochs: 3 != 6; model.width: 8 != 16; version: 4 != 3\)"
    ):
        train(**same | {"settings": narrow, "version": 4})


def test_a_record_spells_out_every_default(trained_run: Trained) -> None:
    """A default that changes later must not change what a run was."""
    settings = json.loads((trained_run.folder / "training.json").read_text())["run"]["settings"]
    assert settings["optimizer"]["max_skips"] == 20
    assert settings["split"]["min_train_clips"] == 32
    assert settings["loss"]["research"]["denominator"] == "all"


def _train_until_killed(job: dict[str, Any], last: int) -> None:
    write = Metrics.write

    def write_and_die(self: Metrics, step: int, figures: dict[str, Any]) -> None:
        write(self, step, figures)
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    Metrics.write = write_and_die  # type: ignore[method-assign]
    train(**job)


TEACHING: dict[str, Any] = {"system": "ra_clap", "systems": {"ra": {"stage_one": 0.3}}}
"""The second epoch of three has a teacher."""


@pytest.mark.parametrize(
    "changes", [{"fusion": "shared"}, pytest.param(TEACHING, marks=pytest.mark.slow)], ids=["fs_clap", "ra_clap"]
)
def test_a_kill_within_an_epoch_leaves_no_trace(job: dict[str, Any], tmp_path: Path, changes: dict[str, Any]) -> None:
    model = ModelSettings(width=16, heads=2, embedding=16, dropout=0.2, **changes)
    settings = tiny(epochs=3, checkpoint_steps=2, batch=6, model=model, max_skips=3)
    undisturbed = train(**job | {"settings": settings, "encoders": trained(), "folder": tmp_path / "undisturbed"})
    per_epoch = undisturbed.steps // 3
    last = per_epoch + 3  # in the second epoch, one step after a checkpoint
    assert last < 2 * per_epoch
    job |= {"settings": settings, "encoders": trained()}
    killed = multiprocessing.get_context("fork").Process(target=_train_until_killed, args=(job, last))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert steps(job["folder"])[-1]["step"] == last
    assert not (job["folder"] / "training.json").exists()
    done = train(**job)
    assert steps(done.folder) == steps(undisturbed.folder)  # losses, norms, rates; no step twice
    assert [e.validation for e in done.history] == [e.validation for e in undisturbed.history]
    ours, theirs = (load_file(run.folder / "model.safetensors") for run in (done, undisturbed))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_stops_when_validation_gets_no_better(job: dict[str, Any]) -> None:
    done = train(**job | {"settings": tiny(epochs=30, keep="best", patience=2, head_lr=1e-8)})
    assert done.best_epoch == 2  # epoch 1 lies in the warm-up
    assert len(done.history) == 4


def test_the_best_epoch_is_kept_if_that_is_asked(job: dict[str, Any]) -> None:
    done = train(**job | {"settings": tiny(epochs=6, keep="best")})
    later = [epoch for epoch in done.history if epoch.epoch > 0.05 * 6]
    assert done.validation == max(epoch.validation for epoch in later)
    best = next(epoch for epoch in later if epoch.validation == done.validation)
    assert done.best_epoch == best.epoch


def test_a_training_starts_from_a_model_and_never_ends_worse(trained_run: Trained, job: dict[str, Any]) -> None:
    job["encoders"] = None  # those that the settings name, as the first run had
    start = {"init": str(trained_run.folder), "epochs": 2}
    done = train(**job | {"settings": tiny(**start)})
    assert [epoch.epoch for epoch in done.history] == [0, 1, 2]
    assert done.history[0].validation == trained_run.validation
    spoilt = train(**job | {"folder": job["folder"].with_name("spoilt"), "settings": tiny(**start, head_lr=1.0)})
    assert spoilt.history[-1].validation < trained_run.validation
    assert (spoilt.best_epoch, spoilt.validation) == (0, trained_run.validation)
    assert spoilt.kept.startswith("the weights it started from: mAP@10")
    assert done.kept.startswith(f"epoch {done.best_epoch} of 2: mAP@10" if done.best_epoch else "the weights")
    ours, theirs = (load_file(run.folder / "model.safetensors") for run in (spoilt, trained_run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("keep", "start", "epoch"),
    [
        ("last", None, 5),
        ("last", 0.5, 5),
        pytest.param("last", 0.55, 3, id="the last did worse than the start"),
        pytest.param("last", 0.65, 0, id="all that count did"),
        ("best", None, 3),
        ("best", 0.5, 3),
        ("best", 0.65, 0),
    ],
)
def test_which_weights_are_kept(keep: str, start: float | None, epoch: int) -> None:
    figures = [start, 0.9, 0.2, 0.6, 0.4, 0.5]  # epoch 1 lies in the warm-up
    history = [
        Epoch(epoch=number, loss=None, validation=figure, skipped=0, seconds=1.0)
        for number, figure in enumerate(figures)
        if figure is not None
    ]
    assert loop._kept(Position(history=history), tiny(epochs=20, keep=keep)).epoch == epoch


def test_the_best_epoch_is_kept_where_the_last_is_worse_than_the_start(
    trained_run: Trained, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job["encoders"] = None
    figures, weights = iter([0.3, 0.1, 0.2, 0.5, 0.25]), {}

    def save_epoch(folder: Path, model: torch.nn.Module, epoch: int) -> None:
        weights[epoch] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        checkpoint.save_epoch(folder, model, epoch)

    monkeypatch.setattr(loop._Loop, "_validate", lambda _: next(figures))
    monkeypatch.setattr(loop, "save_epoch", save_epoch)
    done = train(**job | {"settings": tiny(init=str(trained_run.folder), epochs=4)})
    assert (done.best_epoch, done.validation) == (3, 0.5)
    kept = load_file(done.folder / "model.safetensors")
    assert all(torch.equal(kept[name], weights[3][name]) for name in kept)
    assert not all(torch.equal(kept[name], weights[4][name]) for name in kept)


def test_a_model_of_another_architecture_is_no_start(trained_run: Trained, job: dict[str, Any]) -> None:
    wide = tiny().model.model_copy(update={"width": 8})
    with pytest.raises(ModelError, match="width is 16 there, 8 here"):
        train(**job | {"settings": tiny(init=str(trained_run.folder), model=wide)})


def test_queries_are_texts_to_train_on(job: dict[str, Any], store: ClipStore, split: Split) -> None:
    settings = tiny(epochs=1, queries=300, query_share=1.0)
    done = train(**job | {"settings": settings})
    captions = train(**job | {"folder": job["folder"].with_name("captions"), "settings": tiny(epochs=1)})
    assert done.history[0].loss != captions.history[0].loss


class Overflowing(TrainedMel):
    """Grows beyond all numbers, as a learning rate that is too high makes an encoder do."""

    def forward(self, features: Tokens) -> Tokens:
        out = super().forward(features)
        return Tokens((1e4 * out.values).exp(), out.mask)


def test_steps_that_are_not_finite_are_skipped_and_then_too_many(job: dict[str, Any], cache: Path) -> None:
    encoders: Encoders = (Overflowing(), FrozenBytes())
    with pytest.raises(Diverged, match=r"3 steps in a row .*max_skips=3.* lists their clips. Lower head_lr"):
        train(**job | {"encoders": encoders, "settings": tiny(max_skips=3)})
    skipped = [line["skipped"] for line in lines(job["folder"])]
    assert len(skipped) == 3
    assert {id_ for ids in skipped for id_ in ids} <= set(job["split"].train)


def test_corrupt_clips_are_left_out_and_recorded(
    job: dict[str, Any], corpus: pa.Table, split: Split, tmp_path: Path
) -> None:
    rows = corpus.to_pylist()
    broken = [split.train[4], split.train[9], split.validation[0]]
    for row in rows:
        if row["utterance_id"] in broken:
            row["audio"]["bytes"] = b"not a recording"
    rows[next(n for n, row in enumerate(rows) if row["utterance_id"] == split.train[0])]["caption"] = "word " * 10_000
    store = ClipStore.create(tmp_path / "clips", pa.Table.from_pylist(rows).to_batches(), key="b", progress=False)
    done = train(**job | {"store": store})
    rejected = [json.loads(line) for line in (done.folder / "rejected.jsonl").read_text().splitlines()]
    assert [line["utterance_id"] for line in rejected] == broken
    assert all("15 bytes are not a readable FLAC" in line["reason"] for line in rejected)
    assert done.rejected == 3
    assert done.clips["train"] == len(split.train) - 2
    few = job["split"].model_copy(update={"train": split.train[:33]})
    with pytest.raises(TooSmall, match="31 clips of the train part are usable"):
        train(**job | {"store": store, "split": few, "folder": tmp_path / "few"})


@pytest.mark.parametrize(
    "changes",
    [
        {"grad_cache": True},
        {"precision": "bf16-mixed"},
        {"model": TINY.model_copy(update={"rerank": True})},
        {"model": TINY.model_copy(update={"fusion": "none", "separation": False, "pooling": "mean"})},
        {"no_negatives_by": "style_key", "accumulate": 1},
        {"workers": 2, "cache_features": "all"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_ways(job: dict[str, Any], changes: dict[str, Any]) -> None:
    done = train(**job | {"settings": tiny(**changes), "encoders": trained()})
    assert [epoch.skipped for epoch in done.history] == [0, 0]
    assert not done.leaks


@pytest.mark.parametrize("system", [name for name in SYSTEMS if name != "fs_clap"])
def test_every_system_is_trained_by_this_loop_and_loaded_as_itself(job: dict[str, Any], system: str) -> None:
    mga = {"codes": 32, "temperature": 100.0}
    model = ModelSettings(system=system, width=16, heads=2, embedding=16, systems={"mga": mga})
    done = train(**job | {"settings": tiny(model=model, grad_cache=system == "ra_clap"), "encoders": trained()})
    assert [epoch.skipped for epoch in done.history] == [0, 0]
    assert done.history[1].loss is not None
    assert done.history[0].loss is not None
    assert done.history[1].loss < done.history[0].loss
    assert type(load_system(done.folder, "cpu", encoders=trained())) is SYSTEMS[system]


def test_the_literal_fusion_is_said_to_leak(job: dict[str, Any]) -> None:
    done = train(**job | {"settings": tiny(epochs=1, model=TINY.model_copy(update={"fusion": "paired"}))})
    assert done.leaks
    assert json.loads((done.folder / "training.json").read_text())["leaks"] is True


@pytest.mark.slow
def test_two_devices_do_what_one_does(job: dict[str, Any], tmp_path: Path) -> None:
    # Full batches alone: what is left over is shared out in multiples of the devices.
    job["split"] = job["split"].model_copy(update={"train": job["split"].train[:32]})
    settings = {"checkpoint_steps": 2, "grad_cache": False}
    for grad_cache in (False, True):
        settings["grad_cache"] = grad_cache
        runs = [
            train(**job | {"settings": tiny(devices=n, **settings), "folder": tmp_path / f"{n}-{grad_cache}"})
            for n in (1, 2)
        ]
        alone, together = (steps(run.folder) for run in runs)
        assert [row["pairs"] for row in together][:2] == [row["pairs"] for row in alone][:2]
        for one, two in zip(alone[:2], together[:2], strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
