"""Settings of builds on a Ray cluster (fan_out=ray). Ray itself is imported only by the build that uses it."""

import os
from importlib.util import find_spec

from pydantic import BaseModel, ConfigDict

from fsclap.settings import execution

ADDRESS = "RAY_ADDRESS"
"""Environment variable of Ray: the cluster, where the settings name none."""
NOT_INSTALLED = "fan_out=ray needs Ray, which is not installed here: pip install 'fsclap[ray]', on all machines"


class RaySettings(BaseModel):
    """The Ray cluster of a build, and what a batch asks of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str | None = execution(
        None,
        description="The cluster: ray://HOST:10001, or HOST:6379 from one of its machines. Without an address that of "
        "RAY_ADDRESS; without either a cluster on this machine alone, for as long as the build runs.",
        min_length=1,
    )
    cpus: int | None = execution(
        None,
        description="Cores per batch. By default half of those of the smallest machine; with device=cuda those that "
        "belong to its share of the GPUs.",
        ge=1,
    )
    gpus: float | None = execution(
        None,
        description="GPUs per batch, with device=cuda: 1, the default, or a part of one. With 0.5 two batches share a "
        "GPU: one computes while the other loads its engines and downloads.",
        gt=0,
        le=1,
    )

    def cluster(self) -> str | None:
        """Return the address of the cluster; None for one on this machine alone."""
        return self.address or os.environ.get(ADDRESS) or None


def ray_is_installed() -> bool:
    """Whether the packages of the extra `ray` are there."""
    return all(find_spec(name) is not None for name in ("ray", "prefect_ray"))
