"""Limits on what runs at the same time.

There are two kinds. The cores and the GPU of a machine are guarded by a file lock on that machine: the kernel releases
it the moment its process dies, and two machines do not share it. How fast we ask other people's servers is a global
concurrency limit of Prefect, which `deployments/bootstrap.py` creates; a missing one is an error, not a free pass.
"""

import os
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from prefect.concurrency.sync import rate_limit

from storage.files import locked

DOWNLOADS = "fsclap-download"
LIMITS = {DOWNLOADS: (4, 1.0)}
"""Name -> slots, and how many are released per second."""


def compute_slot(device: str) -> AbstractContextManager[None]:
    """Hold the machine's CPU, or its GPU with device=cuda, for all stages of one batch.

    A stage uses all cores, so one batch at a time is fastest. This is a file lock, not one of Prefect's limits: those
    lease their slots for minutes, and a killed run would hold up the next one for as long.
    """
    return _machine("gpu" if device.startswith("cuda") else "cpu")


def model_slot(accelerator: str = "auto") -> AbstractContextManager[None]:
    """Hold the machine's GPU for a training or an evaluation; its CPU without a GPU or with accelerator=cpu."""
    import torch

    return _machine("gpu" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def download_slot() -> None:
    """Wait for permission to fetch another file: 4 at once over all machines, then one per second."""
    rate_limit(DOWNLOADS, strict=True)


def _machine(part: str) -> AbstractContextManager[None]:
    path = Path(tempfile.gettempdir()) / f"fsclap-{os.getuid()}-{part}.lock"
    return locked(path, what=f"the {part.upper()} of this machine")
