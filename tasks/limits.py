"""Limits on what runs at the same time.

There are two kinds. The cores and the GPU of a machine are guarded by a file lock on that machine: the kernel releases
it the moment its process dies, and two machines do not share it. How fast we ask other people's servers is a global
concurrency limit of Prefect, which `deployments/bootstrap.py` creates; a missing one is an error, not a free pass.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from prefect.concurrency.sync import rate_limit

from storage.files import locked

DOWNLOADS = "fsclap-download"
LIMITS = {DOWNLOADS: (4, 1.0)}
"""Name -> slots, and how many are released per second."""


@contextmanager
def compute_slot(device: str) -> Iterator[None]:
    """Hold the machine's cores, or the GPU that `device` names ("cuda", "cuda:1"), for all stages of one batch.

    A stage uses all cores, so one batch at a time is fastest. This is a file lock, not one of Prefect's limits: those
    lease their slots for minutes, and a killed run would hold up the next one for as long.
    """
    with _machine(_gpus(device) or ["cpu"]):
        yield


@contextmanager
def gpu_slot(device: str) -> Iterator[None]:
    """Hold the GPU that `device` names, and nothing with "cpu": for batches that were allotted their own cores.

    A cluster that gives a batch half a GPU does not see to it that the two take turns.
    """
    with _machine(_gpus(device)):
        yield


@contextmanager
def model_slot(accelerator: str = "auto", devices: int = 1) -> Iterator[None]:
    """Hold GPUs for a training or an evaluation; the machine's cores without a GPU or with accelerator=cpu.

    Args:
        accelerator: As in the settings of a training: auto, cpu or cuda.
        devices: Number of GPUs, from the first that this process sees.
    """
    import torch

    gpus = min(devices, torch.cuda.device_count()) if accelerator != "cpu" and torch.cuda.is_available() else 0
    with _machine([_gpu(index) for index in range(gpus)] or ["cpu"]):
        yield


def download_slot() -> None:
    """Wait for permission to fetch another file: 4 at once over all machines, then one per second."""
    rate_limit(DOWNLOADS, strict=True)


def _gpus(device: str) -> list[str]:
    kind, _, index = device.partition(":")
    return [_gpu(int(index or 0))] if kind == "cuda" else []


def _gpu(index: int) -> str:
    """Name a GPU so that all processes of the machine agree: their first one may be another of eight."""
    import torch

    return f"gpu-{torch.cuda.get_device_properties(index).uuid}"


@contextmanager
def _machine(parts: list[str]) -> Iterator[None]:
    with ExitStack() as stack:
        for part in sorted(parts):  # in one order, or two trainings of two GPUs would wait for each other
            path = Path(tempfile.gettempdir()) / f"fsclap-{os.getuid()}-{part}.lock"
            stack.enter_context(locked(path, what=f"the {part.upper()} of this machine"))
        yield
