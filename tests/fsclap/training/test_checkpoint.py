import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fsclap.training.checkpoint import (
    LAST,
    Epoch,
    Position,
    forget_others,
    load_checkpoint,
    load_epoch,
    save_checkpoint,
    save_epoch,
)


def made() -> tuple[nn.Module, torch.optim.AdamW]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return model, torch.optim.AdamW([{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.0}])


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.arange(12.0).reshape(4, 3)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def position() -> Position:
    done = Epoch(epoch=1, loss=None, validation=0.25, skipped=3, seconds=1.5)
    return Position(epoch=1, in_epoch=2, step=9, losses=[0.1, 1 / 3], history=[done], scaler={"scale": 2.0**16})


def test_everything_comes_back(tmp_path: Path) -> None:
    model, optimizer = made()
    stepped(model, optimizer)
    save_checkpoint(tmp_path, model, optimizer, position())
    stepped(model, optimizer)
    other, fresh = made()
    assert load_checkpoint(tmp_path, other, fresh) == position()
    stepped(other, fresh)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert [path.name for path in tmp_path.iterdir()] == [LAST]


def test_without_a_checkpoint_it_is_the_beginning(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, *made()) == Position()


class Trap:
    """What a pickle may do when it is loaded."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("trapped"),))


@pytest.mark.parametrize("content", [b"", b"half a file", pickle.dumps(Trap())], ids=["empty", "damaged", "pickle"])
def test_a_file_that_is_no_checkpoint(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / LAST).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{LAST} cannot be resumed from .*; remove it to train from the start"):
        load_checkpoint(tmp_path, *made())
    assert not Path("trapped").exists()


def test_a_model_is_no_checkpoint(tmp_path: Path) -> None:
    model, optimizer = made()
    save_file(dict(model.state_dict()), tmp_path / LAST)
    with pytest.raises(ValueError, match=r"it has no position: not a checkpoint of a training\); remove it"):
        load_checkpoint(tmp_path, model, optimizer)


def test_best_weights_that_are_gone_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"epoch-0003\.safetensors, the weights of the epoch to keep, cannot be read"):
        load_epoch(tmp_path, made()[0], 3)


def test_of_another_model(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, *made(), position())
    other = nn.Linear(4, 2)
    with pytest.raises(ValueError, match="size mismatch"):
        load_checkpoint(tmp_path, other, torch.optim.AdamW(other.parameters()))


def test_the_best_weights(tmp_path: Path) -> None:
    model, optimizer = made()
    save_epoch(tmp_path, model, 1)
    first = model.weight.detach().clone()
    stepped(model, optimizer)
    save_epoch(tmp_path, model, 2)
    load_epoch(tmp_path, model, 1)
    assert torch.equal(model.weight, first)
    forget_others(tmp_path, [2])
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0002.safetensors"]
