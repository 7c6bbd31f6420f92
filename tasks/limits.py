"""Who may do what at the same time.

Two kinds. What belongs to the machine (its cores, its GPU) is held by a lock of the machine, which the kernel takes
back from a killed process at once, and which two machines do not share. What belongs to the world (how fast we ask
other people's servers) is a global concurrency limit of Prefect's, which `deployments/bootstrap.py` makes; a missing
one is an error, not a free pass.
"""

import os
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from prefect.concurrency.sync import rate_limit

from storage.files import locked

DOWNLOADS = "fsclap-download"
LIMITS = {DOWNLOADS: (4, 1.0)}
"""Name -> slots, and how many come back a second."""


def compute_slot(device: str) -> AbstractContextManager[None]:
    """Holds the machine's CPU, or its GPU when a stage runs there, for all stages of one batch.

    A stage uses all cores of the machine, so one batch at a time is the fastest. A lock of the machine, not one of
    Prefect's limits: their slots are leased for minutes, for which a killed run would hold up the next.
    """
    return _machine("gpu" if device.startswith("cuda") else "cpu")


def model_slot(accelerator: str = "auto") -> AbstractContextManager[None]:
    """Holds the machine's GPU for a training or an evaluation; its CPU when it has no GPU, or with accelerator=cpu."""
    import torch

    return _machine("gpu" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def download_slot() -> None:
    """Wait until another file may be asked for: over all machines, 4 at once and then one a second."""
    rate_limit(DOWNLOADS, strict=True)


def _machine(part: str) -> AbstractContextManager[None]:
    path = Path(tempfile.gettempdir()) / f"fsclap-{os.getuid()}-{part}.lock"
    return locked(path, what=f"the {part.upper()} of this machine")
