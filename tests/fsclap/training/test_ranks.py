"""Several processes on a CPU, through gloo, against one process."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

from fsclap.data.clips import ClipStore
from fsclap.data.splits import Split
from fsclap.model.tokens import Tokens
from fsclap.training.loop import train
from fsclap.training.ranks import PATIENCE, Ranks, SynchronisedBatchNorm, started_processes, synchronise_batch_norm
from tests.fsclap.training.conftest import TINY, tiny
from tests.fsclap.training.encoders import frozen
from tests.fsclap.training.test_loop import steps

WORLD = 2


@pytest.fixture
def job(store: ClipStore, split: Split, cache: Path, tmp_path: Path) -> dict[str, Any]:
    # Full batches alone: what is left over is shared out in multiples of the devices.
    few = split.model_copy(update={"train": split.train[:32]})
    return {"store": store, "split": few, "cache": cache, "folder": tmp_path / "run", "progress": False}


def batch() -> Tensor:
    return torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(0))


def norm() -> nn.Sequential:
    torch.manual_seed(1)
    layers = nn.Sequential(nn.BatchNorm1d(3, momentum=0.3), nn.Conv1d(3, 2, 1))
    nn.init.normal_(layers[0].weight)
    return layers


def objective(y: Tensor) -> Tensor:
    return (y * torch.arange(y.numel(), dtype=y.dtype).view(y.shape)).sin().sum()


def _in_each_process(fabric: Fabric, folder: Path) -> None:
    layers = norm()
    synchronise_batch_norm(layers)
    own = batch().chunk(WORLD)[fabric.global_rank].clone().requires_grad_()
    gathered = fabric.all_gather(layers(own), sync_grads=True)
    assert isinstance(gathered, Tensor)
    objective(gathered.flatten(0, 1)).backward()
    gradients = [parameter.grad / WORLD for parameter in layers.parameters() if parameter.grad is not None]
    summed = [fabric.all_reduce(gradient, reduce_op="sum") for gradient in gradients]  # as DDP's mean of WORLD times it
    ranks = Ranks(fabric)
    length = 2 + fabric.global_rank
    tokens = ranks.tokens(Tokens(torch.ones(1, length, 4), torch.ones(1, length, dtype=torch.bool)))
    agree = [ranks.agree(7), ranks.agree(fabric.global_rank)]
    assert own.grad is not None
    torch.save(
        {
            "out": gathered.flatten(0, 1).detach(),
            "input": own.grad / WORLD,
            "gradients": summed,
            "statistics": [layers[0].running_mean, layers[0].running_var],
            "tokens": [tokens.values, tokens.mask],
            "own": ranks.own(3),
            "agree": agree,
        },
        folder / f"{fabric.global_rank}.pt",
    )


@pytest.mark.slow
def test_batch_norm_and_sequences_are_those_of_all_processes(tmp_path: Path) -> None:
    fabric = Fabric(accelerator="cpu", devices=WORLD, strategy=DDPStrategy(start_method="spawn", timeout=PATIENCE))
    fabric.launch(functools.partial(_in_each_process, folder=tmp_path))
    seen = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]

    layers, whole = norm(), batch().requires_grad_()
    out = layers(whole)
    objective(out).backward()
    close = functools.partial(torch.testing.assert_close, rtol=1e-4, atol=1e-3)
    for one in seen:
        close(one["out"], out.detach())
        close(one["gradients"], [parameter.grad for parameter in layers.parameters()])
        close(one["statistics"], [layers[0].running_mean, layers[0].running_var])
        assert one["tokens"][0].shape == (WORLD, 3, 4)
        assert one["tokens"][1].tolist() == [[True, True, False], [True, True, True]]
        assert one["agree"] == [True, False]
    close(torch.cat([one["input"] for one in seen]), whole.grad)
    assert torch.cat([one["own"] for one in seen]).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_synchronised_norm_keeps_names_and_weights_and_alone_is_batch_norm() -> None:
    layers, plain = nn.Sequential(norm(), nn.BatchNorm2d(2)), norm()
    names = list(layers.state_dict())
    synchronise_batch_norm(layers)
    assert list(layers.state_dict()) == names
    assert [type(layers[0][0]), type(layers[1])] == [SynchronisedBatchNorm] * 2
    layers.eval()
    plain.eval()
    torch.testing.assert_close(layers[0](batch()), plain(batch()))


@pytest.mark.slow
def test_the_matching_head_does_what_it_does_in_one_process(job: dict[str, Any], tmp_path: Path) -> None:
    """With two pairs to a batch each one's hard negative is the other, which lies in the other process."""
    rerank = TINY.model_copy(update={"rerank": True, "dropout": 0.0})
    figures = []
    for devices in (1, WORLD):
        settings = tiny(devices=devices, epochs=1, batch=2, accumulate=1, model=rerank)
        done = train(**job | {"folder": tmp_path / str(devices), "settings": settings, "encoders": frozen()})
        figures.append(steps(done.folder)[:2])
    alone, together = figures
    for one, two in zip(alone, together, strict=True):
        for figure in ("loss", "matching", "grad_norm"):
            assert two[figure] == pytest.approx(one[figure], rel=2e-3), figure


@pytest.mark.slow
def test_a_run_is_not_resumed_on_another_number_of_processes(job: dict[str, Any]) -> None:
    train(**job | {"settings": tiny(epochs=1), "encoders": frozen()})
    with pytest.raises(ValueError, match=r"belongs to another run \(compute.devices: 2 != 1\)"):
        train(**job | {"settings": tiny(epochs=1, devices=2), "encoders": frozen()})


SCRIPT = """
import sys, pickle
from fsclap.training.loop import train
job = pickle.load(open(sys.argv[1], "rb"))
print("trained", train(**job).steps)
"""


@pytest.mark.slow
def test_torchrun_starts_the_processes_of_several_nodes(job: dict[str, Any], tmp_path: Path) -> None:
    import pickle

    (tmp_path / "script.py").write_text(SCRIPT)
    results = {}
    for name, devices in (("right", WORLD), ("wrong", 4)):
        settings = tiny(epochs=1, devices=devices)
        given = job | {"settings": settings, "encoders": frozen(), "folder": tmp_path / name}
        (tmp_path / "job.pickle").write_bytes(pickle.dumps(given))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={WORLD}"]
        results[name] = subprocess.run(
            [*command, str(tmp_path / "script.py"), str(tmp_path / "job.pickle")],
            env={**os.environ, "PYTHONPATH": os.getcwd()},  # noqa: PTH109
            capture_output=True,
            text=True,
            check=False,
        )
    assert results["right"].stdout.count("trained") == WORLD, results["right"].stderr[-3000:]
    assert "torchrun started 2 processes, but compute.devices=4" in results["wrong"].stderr
    one = train(**job | {"settings": tiny(epochs=1), "encoders": frozen(), "folder": tmp_path / "one"})
    for alone, together in zip(steps(one.folder)[:2], steps(tmp_path / "right")[:2], strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], rel=1e-4)


@pytest.mark.parametrize(("world", "local", "found"), [("8", "4", (4, 2)), ("1", "1", (1, 1))])
def test_nodes_and_processes_are_counted(world: str, local: str, found: tuple[int, int]) -> None:
    assert started_processes({"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": local}) == found


def test_nodes_of_unequal_size_are_refused() -> None:
    with pytest.raises(ValueError, match="as many"):
        started_processes({"WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "4"})
