"""What several processes of one training share: rows of all of them, and the statistics of batch norm."""

import os
from collections.abc import Mapping
from datetime import timedelta

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.distributed import get_world_size
from torch.distributed.nn.functional import all_reduce
from torch.nn.functional import pad

from fsclap.model.tokens import Tokens

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others. The first one validates alone, and torch's own half hour is shorter than
the validation of a large corpus."""


def by_torchrun(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun started this process, with all others of the training."""
    return "TORCHELASTIC_RUN_ID" in environment


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is the first of the processes that torchrun started."""
    return environment.get("RANK") == "0"


def started_processes(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return how many processes torchrun started on each node, and on how many nodes.

    Raises:
        ValueError: The nodes do not have the same number.
    """
    world, local = int(environment["WORLD_SIZE"]), int(environment["LOCAL_WORLD_SIZE"])
    if world % local:
        raise ValueError(f"torchrun started {world} processes, {local} of them here: give every node as many")
    return local, world // local


class Ranks:
    """The processes of a training, each with a share of every batch; all shares are equal."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric

    def own(self, rows: int) -> Tensor:
        """(rows,) int64, where this process's rows are among those of all."""
        return torch.arange(rows, device=self._fabric.device) + rows * self._fabric.global_rank

    def rows(self, x: Tensor) -> Tensor:
        """(B, ...) of each process -> (processes x B, ...); no gradient passes."""
        if self._fabric.world_size == 1:
            return x.detach()
        boolean = x.dtype == torch.bool  # which not every backend can send
        gathered = self._fabric.all_gather(x.detach().to(torch.uint8) if boolean else x.detach())
        assert isinstance(gathered, Tensor)
        flat = gathered.flatten(0, 1)
        return flat.bool() if boolean else flat

    def agree(self, number: int) -> bool:
        """Whether a number is the same in all processes."""
        return len(self.rows(torch.tensor([number], device=self._fabric.device)).unique()) == 1

    def tokens(self, tokens: Tokens) -> Tokens:
        """Gather the padded sequences of all processes, padded to the longest of all."""
        if self._fabric.world_size == 1:
            return tokens
        length = tokens.mask.shape[1]
        longest = self._fabric.all_reduce(torch.tensor(length, device=self._fabric.device), reduce_op="max")
        assert isinstance(longest, Tensor)
        more = int(longest) - length
        sides = [0, 0] * (tokens.values.ndim - 2) + [0, more]
        return Tokens(self.rows(pad(tokens.values, sides)), self.rows(pad(tokens.mask, [0, more])))


class SynchronisedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the rows of all processes, also on a CPU, where torch's SyncBatchNorm does not run.

    Input (B, C, ...), of any number of dimensions. Each process sees the same statistics that one process would see
    with the whole batch; gradients pass through them.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f"batch norm takes (B, C, ...), got {tuple(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or get_world_size() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        others = [0, *range(2, x.ndim)]
        full = x.float()
        count = full.new_tensor([x.numel() / x.shape[1]])
        sums = torch.cat([full.sum(dim=others), (full * full).sum(dim=others), count])
        total, squares, number = all_reduce(sums).split([x.shape[1], x.shape[1], 1])
        mean = total / number
        variance = (squares / number - mean * mean).clamp_min(0)
        self._track(mean.detach(), variance.detach() * number / (number - 1).clamp_min(1))
        shape = [1, -1, *[1] * (x.ndim - 2)]
        normal = (full - mean.view(shape)) * torch.rsqrt(variance.view(shape) + self.eps)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def synchronise_batch_norm(module: nn.Module) -> None:
    """Make every batch norm inside a module one over all processes; weights, statistics and names stay."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(child, SynchronisedBatchNorm):
            affine, tracked = child.affine, child.track_running_stats
            made = SynchronisedBatchNorm(child.num_features, child.eps, child.momentum, affine, tracked)
            made.weight, made.bias = child.weight, child.bias
            made.running_mean, made.running_var = child.running_mean, child.running_var
            made.num_batches_tracked = child.num_batches_tracked
            made.train(child.training)
            setattr(module, name, made)
        else:
            synchronise_batch_norm(child)
