"""One optimiser step: gradients, on one device or many; clipping; skipping."""

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from fsclap.data.batches import Batch
from fsclap.model.losses import Embeddings, PairLabels, hard_negatives, matching_loss, rowwise
from fsclap.model.systems.base import System
from fsclap.training.ranks import Ranks
from fsclap.training.settings import TrainSettings

WARMUP = 0.05
"""Share of the steps in which the learning rate rises."""
WEIGHT_DECAY = 0.01
"""Decay of AdamW, torch's default; none on norms, biases and the temperature."""


class Outputs(NamedTuple):
    """Results of one forward pass.

    Attributes:
        audio: (B, E) unit rows.
        text: (B, E) unit rows.
        scale: 1 / tau.
        matching: Matching loss and the system's penalty; 0 without either.
        teacher: Embeddings of the same pairs by the system's teacher; None: it has none.
    """

    audio: Tensor
    text: Tensor
    scale: Tensor
    matching: Tensor
    teacher: Embeddings | None = None


class Objective(nn.Module):
    """All that the loss needs from one batch, in a single forward pass: DDP tracks nothing else."""

    def __init__(self, model: System, settings: TrainSettings, ranks: Ranks) -> None:
        super().__init__()
        self.model = model
        self.gamma = settings.loss.gamma
        self.ranks = ranks

    def forward(self, batch: Batch) -> Outputs:
        audio, text = self.model(batch.audio, batch.text)
        scale = self.model.logit_scale()
        matching = audio.new_zeros(()) if self.model.matcher is None else self._matching(batch, audio, text, scale)
        penalty = self.model.penalty()
        matching = matching if penalty is None else matching + penalty
        return Outputs(audio, text, scale, matching, self.model.teach(batch.audio, batch.text))

    def _matching(self, batch: Batch, audio: Tensor, text: Tensor, scale: Tensor) -> Tensor:
        """Compute the matching loss on this device's pairs, and on hard negatives from the batch of all devices."""
        all_audio, all_text, groups = map(self.ranks.rows, (audio, text, batch.groups))
        meets = rowwise(self.ranks.rows, [batch.meets])
        drawn = hard_negatives(all_audio, all_text, scale.detach(), gamma=self.gamma, groups=groups, meets=meets)
        own = self.ranks.own(len(batch))
        audio_rows = torch.cat([own, own, drawn.audio[own]])  # (3 B,)
        text_rows = torch.cat([own, drawn.text[own], own])
        exists = (audio_rows >= 0) & (text_rows >= 0)
        clips, captions = self.ranks.tokens(batch.audio), self.ranks.tokens(batch.text)
        logits = self.model.match(clips[audio_rows[exists]], captions[text_rows[exists]])
        labels = torch.arange(len(audio_rows), device=audio.device) < len(batch)
        return matching_loss(logits, labels[exists])


def make_optimizer(model: System, settings: TrainSettings, *, fused: bool) -> torch.optim.AdamW:
    """Create AdamW with the groups of the model; each remembers its peak learning rate."""
    groups = model.parameter_groups(encoder_lr=settings.encoder_lr, head_lr=settings.head_lr, weight_decay=WEIGHT_DECAY)
    for group in groups:
        group["peak_lr"] = group["lr"]
    return torch.optim.AdamW(groups, fused=fused)


def lr_factor(step: int, *, warmup: int, total: int) -> float:
    """Return the share of the peak learning rate: a linear rise, then half a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


def step_seed(seed: int, step: int, device: int) -> int:
    """Return the seed that dropout and hard negatives of a step are drawn with."""
    return int(np.random.SeedSequence((seed, step, device)).generate_state(1)[0])


class StepResult(NamedTuple):
    """Results of one step.

    Attributes:
        loss: Contrastive loss, mean over the batches.
        matching: Matching loss, mean over the batches.
        grad_norm: L2 norm before clipping.
        skipped: Something was not finite, so the weights did not change.
        compute_s: Seconds of forward and backward passes.
        optimizer_s: Seconds of the rest. Only the sum of both waits for a GPU to finish.
    """

    loss: float
    matching: float
    grad_norm: float
    skipped: bool
    compute_s: float
    optimizer_s: float


class Stepper:
    """Takes optimiser steps.

    Args:
        fabric: Devices and precision.
        objective: Objective, as `fabric.setup` returned it.
        optimizer: Optimiser, as `fabric.setup` returned it.
        settings: Settings of the run.
    """

    def __init__(self, fabric: Fabric, objective: Any, optimizer: Any, settings: TrainSettings) -> None:
        self.fabric = fabric
        self.objective = objective
        self.system: System = objective.module.model
        self.optimizer = optimizer
        self.settings = settings
        self.norms = [m for m in objective.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def set_learning_rate(self, factor: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor

    def backward(self, batches: Sequence[Batch], *, number: int) -> Tensor:
        """Compute the gradient of the step's loss into the parameters.

        Randomness is drawn from (seed, step, device), so a step is the same after a resumption.

        Returns:
            (2,) contrastive and matching loss.
        """
        torch.manual_seed(step_seed(self.settings.seed, number, self.fabric.global_rank))
        return self._cached(batches) if self.settings.optimizer.grad_cache else self._accumulated(batches)

    def step(self, batches: Sequence[Batch], *, number: int) -> StepResult:
        """Update the weights if all is finite; if not, restore running statistics, too."""
        started = time.perf_counter()
        statistics = [{name: x.clone() for name, x in norm.named_buffers()} for norm in self.norms]
        losses = self.backward(batches, number=number)
        computed = time.perf_counter()
        loss, matching, grad_norm = self._update(losses)
        skipped = not all(map(math.isfinite, (loss, matching, grad_norm)))
        if skipped:
            for norm, before in zip(self.norms, statistics, strict=True):
                norm.load_state_dict(before, strict=False)
        ended = time.perf_counter()
        return StepResult(loss, matching, grad_norm, skipped, computed - started, ended - computed)

    def _update(self, losses: Tensor) -> list[float]:
        """Clip the gradients and apply them if all is finite; return losses and norm."""
        norm = self.fabric.clip_gradients(
            self.objective, self.optimizer, max_norm=self.settings.optimizer.clip_norm, error_if_nonfinite=False
        )
        assert norm is not None
        reduced = self.fabric.all_reduce(torch.cat([losses, norm.reshape(1)]), reduce_op="mean")
        assert isinstance(reduced, Tensor)
        # The only place where the host waits for the device. All devices get the same figures, so
        # all decide alike.
        figures: list[float] = reduced.tolist()
        # A scaler of half-precision gradients must see that they were not finite; it does not step
        # then, either.
        if all(map(math.isfinite, figures)) or self.fabric.strategy.precision.state_dict():
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return figures

    def _accumulated(self, batches: Sequence[Batch]) -> Tensor:
        """Average the losses of the batches, each contrasted within itself."""
        losses = []
        for at, batch in enumerate(batches):
            with self.fabric.no_backward_sync(self.objective, enabled=at < len(batches) - 1):
                out = self.objective(batch)
                loss = self._loss(out.audio, out.text, out.scale, batch.labels._replace(teacher=out.teacher))
                self.fabric.backward((loss + out.matching) / len(batches))
            losses.append(torch.stack([loss.detach(), out.matching.detach()]))
        return torch.stack(losses).mean(dim=0)

    def _cached(self, batches: Sequence[Batch]) -> Tensor:
        """Contrast all pairs with each other, in the memory of one batch (GradCache).

        dL/dw = sum over batches of dL/d(embeddings) . d(embeddings)/dw: compute the embeddings
        without gradient, then the first factor for all of them, then each batch again for the
        second.
        """
        states, embedded = [], []
        for batch in batches:
            states.append(self._random_state())
            with torch.no_grad():
                embedded.append(self.objective(batch))
        audio, text = (torch.cat(rows).requires_grad_() for rows in list(zip(*embedded, strict=True))[:2])
        scale = embedded[-1].scale.detach().requires_grad_()
        known = [batch.labels._replace(teacher=out.teacher) for batch, out in zip(batches, embedded, strict=True)]
        loss = self._loss(audio, text, scale, rowwise(lambda *rows: torch.cat(rows), known))
        by_audio, by_text, by_scale = torch.autograd.grad(loss, [audio, text, scale])
        after, matching = self._random_state(), []
        sizes = [len(batch) for batch in batches]
        for at, (batch, audio_grad, text_grad) in enumerate(
            zip(batches, by_audio.split(sizes), by_text.split(sizes), strict=True)
        ):
            self._set_random_state(states[at])
            with self.fabric.no_backward_sync(self.objective, enabled=at < len(batches) - 1):
                out = self.objective(batch)
                rest = by_scale * out.scale + out.matching
                self.fabric.backward(
                    (out.audio * audio_grad).sum() + (out.text * text_grad).sum() + rest / len(batches)
                )
            matching.append(out.matching.detach())
        self._set_random_state(after)
        return torch.stack([loss.detach(), torch.stack(matching).mean()])

    def _loss(self, audio: Tensor, text: Tensor, scale: Tensor, labels: PairLabels) -> Tensor:
        """Compute the loss over the pairs of all devices.

        DDP averages the gradients of the devices; the gather's backward pass sums them, which
        cancels out.
        """
        if self.fabric.world_size > 1:
            audio, text, labels = self._gathered(audio), self._gathered(text), rowwise(self._gathered, [labels])
        return self.system.loss(Embeddings(audio, text), scale, labels, self.settings.loss)

    def _gathered(self, x: Tensor) -> Tensor:
        """(batch, ...) of each device -> (devices x batch, ...)."""
        gathered = self.fabric.all_gather(x, sync_grads=x.is_floating_point())
        assert isinstance(gathered, Tensor)
        return gathered.flatten(0, 1)

    def _random_state(self) -> tuple[Tensor, Tensor | None]:
        cuda = self.fabric.device.type == "cuda"
        return torch.get_rng_state(), torch.cuda.get_rng_state(self.fabric.device) if cuda else None

    def _set_random_state(self, state: tuple[Tensor, Tensor | None]) -> None:
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], self.fabric.device)
