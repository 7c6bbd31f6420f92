"""A device that is not there is refused; batches that do not fit are halved."""

import pytest
import torch

from fsclap.devices import Batches, DeviceError, by_length, torch_device


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "xpu"])
def test_a_device_that_is_not_there_is_no_cpu(name: str) -> None:
    if getattr(torch, name.partition(":")[0]).is_available():
        pytest.skip("this machine has it")
    with pytest.raises(DeviceError, match=rf"separation\.device={name}: .* Set separation\.device=cpu"):
        torch_device(name, setting="separation.device")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", ""])
def test_a_name_of_no_device(name: str) -> None:
    with pytest.raises(DeviceError, match="write cpu, cuda or cuda:1"):
        torch_device(name, setting="x")


def test_the_cpu_is_there() -> None:
    assert torch_device("cpu", setting="x") == torch.device("cpu")


class Memory:
    """A device on which `room` items fit at once; PyTorch's own exception beyond."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def __call__(self, items: list[int]) -> list[int]:
        self.sizes.append(len(items))
        if len(items) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
        return [item * item for item in items]


def test_a_batch_is_halved_until_it_fits_and_nothing_is_lost() -> None:
    memory = Memory(room=3)
    batches = Batches(memory, setting="separation.batch")
    assert batches(range(8)) == [n * n for n in range(8)]
    assert memory.sizes == [8, 4, 2, 2, 2, 2]


def test_the_size_that_fitted_is_kept() -> None:
    memory = Memory(room=3)
    batches = Batches(memory, setting="separation.batch")
    batches(range(8))
    memory.sizes.clear()
    assert batches(range(5)) == [0, 1, 4, 9, 16]
    assert memory.sizes == [2, 2, 1]


def test_one_that_does_not_fit_alone_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(DeviceError, match=r"separation\.batch: even one at a time .*2\.00 GiB.*set the device to cpu"):
        Batches(Memory(room=0), setting="separation.batch")(range(4))


def test_no_items_no_call() -> None:
    memory = Memory(room=0)
    assert Batches(memory, setting="x")([]) == []
    assert memory.sizes == []


def test_by_length_keeps_every_index_and_the_budget() -> None:
    lengths = [5.0, 1.0, 30.0, 2.0, 2.0, 9.0]
    groups = by_length(lengths, budget=10.0)
    assert sorted(index for group in groups for index in group) == list(range(6))
    assert groups == [[1, 3, 4], [0], [5], [2]]
    for group in groups:
        assert len(group) == 1 or max(lengths[index] for index in group) * len(group) <= 10.0


def test_by_length_of_nothing() -> None:
    assert by_length([], budget=10.0) == []
