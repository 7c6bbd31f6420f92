"""Where models run: a device that is really there, batches that fit into its memory."""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


class DeviceError(RuntimeError):
    """A device that is missing, or too small. The message says which setting to change."""


def torch_device(name: str, *, setting: str) -> "torch.device":
    """Return the device of a name, if this machine has it.

    Args:
        name: As PyTorch writes it: cpu, cuda, cuda:1, mps.
        setting: The setting that it comes from, for the message: "device".

    Raises:
        DeviceError: The name means nothing, or the machine has no such device. Nothing runs on the
            CPU instead.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"{setting}={name}: no device has this name; write cpu, cuda or cuda:1 ({error})") from error
    if device.type == "cpu":
        return device
    backend = getattr(torch, device.type, None)
    if backend is None or not getattr(backend, "is_available", bool)():
        raise DeviceError(
            f"{setting}={name}: PyTorch {torch.__version__} sees no {device.type} device on this machine. "
            f"Set {setting}=cpu, or start the worker where there is one, with a PyTorch built for it"
        )
    count = backend.device_count()
    if device.index is not None and device.index >= count:
        raise DeviceError(
            f"{setting}={name}: this machine has {count} {device.type} devices, the first of them number 0"
        )
    return device


class Batches(Generic[T, R]):
    """Call a function on batches, halving those that do not fit into the device's memory.

    The size that fitted is kept for later calls, so a batch that is too large costs one failed
    attempt, not one each.

    Args:
        run: From a batch to a result for each of its items, in order.
        setting: The setting that sizes the batches, for the message: "separation.batch".
    """

    def __init__(self, run: Callable[[list[T]], Sequence[R]], *, setting: str) -> None:
        self._run = run
        self._setting = setting
        self._limit: int | None = None

    def __call__(self, items: Sequence[T]) -> list[R]:
        """Return a result for each item, in order.

        Raises:
            DeviceError: One item alone does not fit.
        """
        results: list[R] = []
        while len(results) < len(items):
            batch = list(items[len(results) : len(results) + (self._limit or len(items))])
            fitted = self._attempt(batch)
            if fitted is None:
                self._limit = len(batch) // 2
                log.warning("%d at once do not fit into the device's memory: going on with %d", len(batch), self._limit)
            else:
                results.extend(fitted)
        return results

    def _attempt(self, batch: list[T]) -> Sequence[R] | None:
        import torch

        try:
            return self._run(batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise DeviceError(
                    f"{self._setting}: even one at a time does not fit into the device's memory "
                    f"({_first_line(error)}). Close what else runs on the device, choose shorter pieces or a smaller "
                    "model, or set the device to cpu"
                ) from error
        # After the except block, since the error holds on to the frames whose tensors are to be
        # freed.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


def by_length(lengths: Sequence[float], budget: float) -> list[list[int]]:
    """Group indexes, from short to long, so that each group fits a budget when padded.

    Args:
        lengths: Of each item, in any unit.
        budget: Longest times count of a group, in that unit. An item that is longer alone makes a
            group of its own.

    Returns:
        Every index once. Equal lengths keep their order.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and lengths[index] * (len(groups[-1]) + 1) <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]
