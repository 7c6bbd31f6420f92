"""Global concurrency limits. `deployments/bootstrap.py` makes them; a missing one is an error, not a free pass."""

from contextlib import AbstractContextManager

from prefect.concurrency.sync import concurrency

from fsclap.corpus.settings import BuildSettings

LIMITS = {"fsclap-download": 4, "fsclap-cpu": 1, "fsclap-gpu": 1}
"""Name -> slots. A compute stage uses all cores of the machine, so one at a time is the fastest."""


def compute_slot(settings: BuildSettings) -> AbstractContextManager[None]:
    """Holds the machine's CPU, or its GPU when a stage runs there, for all stages of one batch.

    Not for each stage: while SQLite still writes the last task's events the server answers 503 to whoever asks for
    a slot, and the client comes back after a second or two.
    """
    devices = (settings.separation.device, settings.diarization.device, settings.captioning.device)
    return slot("fsclap-gpu" if any(device and device.startswith("cuda") for device in devices) else "fsclap-cpu")


def model_slot(accelerator: str = "auto") -> AbstractContextManager[None]:
    """Holds the machine's GPU for a training or an evaluation; its CPU when it has no GPU, or with accelerator=cpu."""
    import torch

    gpu = accelerator != "cpu" and torch.cuda.is_available()
    return slot("fsclap-gpu" if gpu else "fsclap-cpu")


def slot(limit: str, occupy: int = 1) -> AbstractContextManager[None]:
    # A lease that cannot be renewed (the server restarts) must not kill hours of work; strict only makes a
    # limit that nobody created an error.
    return concurrency(limit, occupy=occupy, strict=True, raise_on_lease_renewal_failure=False)
