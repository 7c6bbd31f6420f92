"""A lock per GPU: eight of them must not take turns, and one is one whatever a process calls it."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tasks.limits import compute_slot, gpu_slot, model_slot

Visible = Callable[[list[str]], None]


@pytest.fixture
def visible(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Visible:
    """Make a process see GPUs with these UUIDs, in this order."""
    monkeypatch.setattr("tasks.limits.tempfile", SimpleNamespace(gettempdir=lambda: str(tmp_path)))

    def see(uuids: list[str]) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(uuids))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(uuids))
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=uuids[index]))

    return see


def held(folder: Path) -> list[str]:
    """List what is locked: by name, without the user's part."""
    names = []
    for file in sorted(folder.glob("*.lock")):
        handle = os.open(file, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            names.append(file.stem.split("-", 2)[2])
        finally:
            os.close(handle)
    return names


def test_gpus_have_a_lock_each(visible: Visible, tmp_path: Path) -> None:
    visible(["a", "b"])
    with compute_slot("cuda:1"):
        assert held(tmp_path) == ["gpu-b"]
        with compute_slot("cuda"):
            assert held(tmp_path) == ["gpu-a", "gpu-b"]
    assert held(tmp_path) == []


def test_a_gpu_is_the_same_one_in_every_process(visible: Visible, tmp_path: Path) -> None:
    visible(["a", "b"])
    with compute_slot("cuda:1"):
        visible(["b"])  # CUDA_VISIBLE_DEVICES=1
        with compute_slot("cpu"):
            assert held(tmp_path) == ["cpu", "gpu-b"]
    with compute_slot("cuda:0"):
        assert held(tmp_path) == ["gpu-b"]


def test_a_batch_that_was_allotted_its_cores_holds_its_gpu_alone(visible: Visible, tmp_path: Path) -> None:
    with gpu_slot("cpu"):
        assert held(tmp_path) == []
    visible(["c"])  # CUDA_VISIBLE_DEVICES=2, as Ray sets it
    with gpu_slot("cuda"):
        assert held(tmp_path) == ["gpu-c"]


@pytest.mark.parametrize(
    ("gpus", "accelerator", "devices", "locks"),
    [
        (["b", "a", "c"], "auto", 2, ["gpu-a", "gpu-b"]),
        (["b", "a", "c"], "cpu", 2, ["cpu"]),
        ([], "auto", 2, ["cpu"]),
    ],
)
def test_a_training_holds_the_gpus_that_it_trains_on(
    gpus: list[str], accelerator: str, devices: int, locks: list[str], visible: Visible, tmp_path: Path
) -> None:
    visible(gpus)
    with model_slot(accelerator, devices):
        assert held(tmp_path) == locks
