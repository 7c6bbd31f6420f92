"""Global concurrency limits. `deployments/bootstrap.py` makes them; a missing one is an error, not a free pass."""

from contextlib import AbstractContextManager

from prefect.concurrency.sync import concurrency

LIMITS = {"fsclap-download": 4, "fsclap-cpu": 1, "fsclap-gpu": 1, "fsclap-commit": 1}
"""Name -> slots. A compute stage uses all cores of the machine, so one at a time is the fastest."""


def compute_slot(device: str) -> AbstractContextManager[None]:
    """Holds the machine's CPU or GPU for one batch."""
    return slot("fsclap-gpu" if device.startswith("cuda") else "fsclap-cpu")


def slot(limit: str, occupy: int = 1) -> AbstractContextManager[None]:
    # A lease that cannot be renewed (the server restarts) must not kill hours of work; strict only makes a
    # limit that nobody created an error.
    return concurrency(limit, occupy=occupy, strict=True, raise_on_lease_renewal_failure=False)
