"""Training, on a CPU, a GPU or many: one code path, through Lightning Fabric.

    {folder}/run.json                identity of the run: settings, corpus, split
    {folder}/checkpoints/            the last position and the best weights
    {folder}/metrics.jsonl           one line per step and per epoch
    {folder}/tensorboard/            the same as curves
    {folder}/rejected.jsonl          clips that could not be used
    {folder}/split.json              which clips train, validate and test
    {folder}/config.json, *.safetensors    the model, kept epoch: load_system(folder)
    {folder}/words.npy               the words of its queries (fsclap.queries.prompts), if it has queries
    {folder}/training.json           `Trained`; written last

A file appears whole or not at all (metrics.jsonl and the curves grow), so a killed run can be
resumed. The model's card is written by whoever keeps the model (fsclap.training.model_card).
"""

import functools
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from tqdm import tqdm

from fsclap.data.batches import Batch, Pairs, Queries, batches_of, embed, epoch_batches, load_pairs
from fsclap.data.clips import ClipStore
from fsclap.data.splits import Split, TooSmall
from fsclap.evaluation.metrics import mean_map10, one_vector_a_caption
from fsclap.files import locked
from fsclap.model.encoders import Encoders
from fsclap.model.systems import System, build_system
from fsclap.queries.bank import draw_bank
from fsclap.queries.prompts import Prompts
from fsclap.training.checkpoint import (
    Epoch,
    Position,
    forget_others,
    load_checkpoint,
    load_epoch,
    save_checkpoint,
    save_epoch,
)
from fsclap.training.initial import initial_model, load_initial, start_of
from fsclap.training.optimizer import WARMUP, Objective, Stepper, StepResult, lr_factor, make_optimizer
from fsclap.training.ranks import PATIENCE, Ranks, by_torchrun, started_processes, synchronise_batch_norm
from fsclap.training.record import RECORD, Metrics, Run, Trained, claim, environment, record_rejected
from fsclap.training.settings import TrainSettings

log = logging.getLogger(__name__)


class Diverged(RuntimeError):  # noqa: N818 (an outcome, as `Refused` is)
    """Too many steps in a row had a loss or a gradient that is not finite."""


def train(
    store: ClipStore,
    split: Split,
    settings: TrainSettings,
    folder: Path,
    *,
    cache: Path,
    corpus: str = "",
    version: int | None = None,
    encoders: Encoders | None = None,
    progress: bool = True,
) -> Trained:
    """Train a model, resume an interrupted training, or return a finished one.

    If several processes train in one folder, the first does, and the others wait for its model.

    Args:
        store: Clips of a corpus version.
        split: Split of these clips.
        settings: Settings of the run.
        folder: Folder of the model; created if missing.
        cache: Folder of cached features, which runs may share.
        corpus: Location of the corpus, for the record.
        version: Version of the corpus, for the record.
        encoders: Encoders to use instead of those the settings name.
        progress: Show bars.

    Raises:
        TooSmall: Too few clips are usable.
        Diverged: `max_skips` steps in a row were not finite.
        ValueError: The folder belongs to another run, or the model to start from does not fit.
    """
    run = Run(settings=settings, corpus=corpus, version=version, split=split.digest, start=start_of(settings))
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / RECORD).exists():
        claim(folder, run)
        return Trained.load(folder)
    fabric = _fabric(settings)
    job = Job(store, split, run, folder, cache, encoders, progress)
    if by_torchrun():  # the other processes are there already; only one of them may take the folder
        fabric.launch()
        with locked(folder) if fabric.is_global_zero else nullcontext():
            if fabric.is_global_zero:
                _take(job)
            fabric.barrier()  # another run's folder is refused before the others look into it
            _train(fabric, job)
        return Trained.load(folder)
    with locked(folder):
        _take(job)
        if not (folder / RECORD).exists():
            fabric.launch(functools.partial(_train, job=job))
    return Trained.load(folder)


@dataclass(frozen=True)
class Job:
    """What each process of a run needs."""

    store: ClipStore
    split: Split
    run: Run
    folder: Path
    cache: Path
    encoders: Encoders | None
    progress: bool


def _take(job: Job) -> None:
    claim(job.folder, job.run)
    if not (job.folder / RECORD).exists():
        job.split.save(job.folder / "split.json")


def _fabric(settings: TrainSettings) -> Fabric:
    gpu = settings.accelerator != "cpu" and torch.cuda.is_available()
    if settings.accelerator == "cuda" and not gpu:
        raise ValueError(
            "accelerator=cuda, but torch sees no GPU: choose auto or cpu, or install a CUDA build of torch"
        )
    compute = settings.compute
    precision: Any = compute.precision
    if precision == "auto":
        precision = "32-true" if not gpu else "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    strategy: Any = "auto"
    devices, nodes = started_processes() if by_torchrun() else (compute.devices, 1)
    if devices * nodes != compute.devices:
        raise ValueError(
            f"torchrun started {devices * nodes} processes, but compute.devices={compute.devices}: a batch is divided "
            "among that many, on all nodes together. Let both be the same"
        )
    if compute.devices > 1:
        # Spawn: the command line may be a scheduler's, so it must not be run again. Encoders have
        # weights that no loss reaches, hence find_unused_parameters.
        start: Literal["popen", "spawn"] = "popen" if by_torchrun() else "spawn"
        strategy = DDPStrategy(start_method=start, find_unused_parameters=True, timeout=PATIENCE)
    device = "cuda" if gpu else "cpu"
    return Fabric(accelerator=device, devices=devices, num_nodes=nodes, strategy=strategy, precision=precision)


def _train(fabric: Fabric, job: Job) -> None:
    settings = job.run.settings
    torch.manual_seed(settings.seed)
    model = build_system(settings.model, encoders=job.encoders)
    training, validation = (_pairs(job, model, part) for part in ("train", "validation"))
    if fabric.is_global_zero:
        record_rejected(job.folder, [*training.rejected, *validation.rejected])
    if settings.compute.compile:
        model.compile(dynamic=True)
    # A fused AdamW undoes the scaling of gradients itself, so they could not be clipped before.
    if fabric.world_size > 1:
        synchronise_batch_norm(model)
    optimizer = make_optimizer(model, settings, fused=not fabric.strategy.precision.state_dict())
    objective, wrapped = fabric.setup(Objective(model, settings, Ranks(fabric)), optimizer)
    position = load_checkpoint(job.folder / "checkpoints", model, optimizer)
    if not Ranks(fabric).agree(position.step):
        raise ValueError(
            f"{job.folder}: the processes do not find the same checkpoint there. The folder of the models must be on a "
            "disk that all nodes share"
        )
    fabric.strategy.precision.load_state_dict(position.scaler)
    start = initial_model(settings)
    if start is not None and position.step == 0:
        load_initial(model, start)
    loop = _Loop(fabric, model, optimizer, Stepper(fabric, objective, wrapped, settings), training, validation, job)
    with Metrics(job.folder, position, writes=fabric.is_global_zero) as metrics:
        if start is not None and not position.history:
            loop.record_start(position, metrics)
        while not _is_over(position, settings):
            loop.epoch(position, metrics)
    if fabric.is_global_zero:
        if kept := _kept(position, settings).epoch:
            load_epoch(job.folder / "checkpoints", model, kept)
        elif start is not None:
            load_initial(model, start)
        _finish(fabric, job, model, position, training, validation)
    fabric.barrier()


@dataclass
class _Loop:
    fabric: Fabric
    model: System
    optimizer: torch.optim.Optimizer
    stepper: Stepper
    training: Pairs
    validation: Pairs
    job: Job

    def __post_init__(self) -> None:
        self.settings = self.job.run.settings
        self.saved = time.monotonic()

    def record_start(self, position: Position, metrics: Metrics) -> None:
        """Validate the weights that the training starts from, as epoch 0."""
        started = time.monotonic()
        figure = self.fabric.broadcast(self._validate() if self.fabric.is_global_zero else 0.0)
        seconds = time.monotonic() - started
        position.history.append(Epoch(epoch=0, loss=None, validation=figure, skipped=0, seconds=seconds))
        log.info("starting from validation mAP@10 %.4f", figure)
        self._save(position, metrics)

    def epoch(self, position: Position, metrics: Metrics) -> None:
        """Take the remaining steps of an epoch, and validate."""
        started = time.monotonic() - position.seconds
        steps = self.steps(position.epoch)
        if not position.in_epoch:
            self.model.begin_epoch(position.epoch, self.settings.epochs)
        self.model.train()
        with self._bar(position, len(steps)) as bar:
            for planned, batches, waited in self._loaded(steps[position.in_epoch :], position.epoch):
                self._step(position, metrics, planned, batches, waited, per_epoch=len(steps))
                position.seconds = time.monotonic() - started
                bar.set_postfix(loss=f"{position.losses[-1]:.3f}" if position.losses else "not finite", refresh=False)
                bar.update()
                if position.in_epoch < len(steps) and self._is_due(position):
                    self._save(position, metrics)
        self._end_epoch(position, metrics, started)

    def steps(self, epoch: int) -> list[list[np.ndarray]]:
        """Plan an epoch: the positions of each batch of each step, over all devices."""
        settings = self.settings
        batches = epoch_batches(
            self.training.audio.lengths,
            settings.batch,
            seed=settings.seed,
            epoch=epoch,
            multiple=self.fabric.world_size,
        )
        return [batches[at : at + settings.accumulate] for at in range(0, len(batches), settings.accumulate)]

    def _loaded(
        self, steps: list[list[np.ndarray]], epoch: int
    ) -> Iterator[tuple[list[np.ndarray], list[Batch], float]]:
        """Each step's plan, this device's share of its batches, and the seconds waited."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        shares = [batch[rank::world] for step in steps for batch in step]
        on_gpu = self.fabric.device.type == "cuda"
        loaded = batches_of(
            self.training, shares, epoch=epoch, workers=self.settings.compute.workers, pin_memory=on_gpu
        )
        for step in steps:
            started = time.perf_counter()
            batches = [batch.to(self.fabric.device) for batch in islice(loaded, len(step))]
            yield step, batches, time.perf_counter() - started

    def _step(
        self,
        position: Position,
        metrics: Metrics,
        planned: list[np.ndarray],
        batches: list[Batch],
        waited: float,
        *,
        per_epoch: int,
    ) -> None:
        total = self.settings.epochs * per_epoch
        factor = lr_factor(position.step, warmup=round(WARMUP * total), total=total)
        self.stepper.set_learning_rate(factor)
        result = self.stepper.step(batches, number=position.step)
        position.step += 1
        position.in_epoch += 1
        figures: dict[str, Any] = {
            "epoch": position.epoch + 1,
            "loss": None if result.skipped else result.loss,
            "grad_norm": None if result.skipped else result.grad_norm,
            "lr": self.settings.head_lr * factor,
            "pairs": sum(map(len, planned)),
            "data_s": waited,
            "compute_s": result.compute_s,
            "optimizer_s": result.optimizer_s,
        }
        if self.settings.model.rerank:
            figures["matching"] = None if result.skipped else result.matching
        if result.skipped:
            figures["skipped"] = [self.training.ids[at] for batch in planned for at in batch]
        metrics.write(position.step, figures)
        self._count(position, result)

    def _count(self, position: Position, result: StepResult) -> None:
        if not result.skipped:
            position.losses.append(result.loss)
            position.skipped_in_a_row = 0
            return
        position.skipped += 1
        position.skipped_in_a_row += 1
        log.warning(
            "step %d skipped: loss %g, gradient norm %g; its clips are in metrics.jsonl",
            position.step,
            result.loss,
            result.grad_norm,
        )
        if position.skipped_in_a_row >= self.settings.optimizer.max_skips:
            raise Diverged(
                f"{position.skipped_in_a_row} steps in a row had a loss or gradient that is not finite, up to step "
                f"{position.step} (optimizer.max_skips={self.settings.optimizer.max_skips}). metrics.jsonl in "
                f"{self.job.folder} lists their clips. Lower head_lr or encoder_lr, or choose "
                "compute.precision=32-true"
            )

    def _end_epoch(self, position: Position, metrics: Metrics, started: float) -> None:
        figure = self.fabric.broadcast(self._validate() if self.fabric.is_global_zero else 0.0)
        done = Epoch(
            epoch=position.epoch + 1,
            loss=float(np.mean(position.losses)) if position.losses else None,
            validation=figure,
            skipped=position.skipped,
            seconds=time.monotonic() - started,
        )
        position.history.append(done)
        position.epoch, position.in_epoch, position.losses = done.epoch, 0, []
        position.skipped, position.seconds = 0, 0.0
        metrics.write(position.step, {"epoch": done.epoch, "epoch_loss": done.loss, "validation": figure})
        candidates = {one.epoch for one in _candidates(position, self.settings)}
        log.info("epoch %d: loss %s, validation mAP@10 %.4f", done.epoch, done.loss, figure)
        if self.fabric.is_global_zero and done.epoch in candidates:
            save_epoch(self.job.folder / "checkpoints", self.model, done.epoch)
        self._save(position, metrics)
        if self.fabric.is_global_zero:
            forget_others(self.job.folder / "checkpoints", candidates)

    def _validate(self) -> float:
        with self.fabric.autocast():
            embedded = embed(
                self.model, self.validation, batch=self.settings.batch, workers=self.settings.compute.workers
            )
        audio, text = (rows.numpy() for rows in embedded)
        if self.settings.model.fusion != "paired":  # which embeds the same caption differently for each clip
            text = one_vector_a_caption(text, self.validation.captions)
        return mean_map10(audio, text)

    def _is_due(self, position: Position) -> bool:
        steps, minutes = self.settings.compute.checkpoint_steps, self.settings.compute.checkpoint_minutes
        if steps is not None and position.in_epoch % steps == 0:
            return True
        return minutes is not None and time.monotonic() - self.saved > 60 * minutes

    def _save(self, position: Position, metrics: Metrics) -> None:
        self.saved = time.monotonic()
        if self.fabric.is_global_zero:
            position.metrics_bytes = metrics.size
            position.scaler = self.fabric.strategy.precision.state_dict()
            save_checkpoint(self.job.folder / "checkpoints", self.model, self.optimizer, position)

    def _bar(self, position: Position, steps: int) -> Any:
        return tqdm(
            total=steps,
            initial=position.in_epoch,
            desc=f"epoch {position.epoch + 1}/{self.settings.epochs}",
            unit=" steps",
            disable=not (self.job.progress and self.fabric.is_global_zero),
        )


def _pairs(job: Job, model: System, part: Any) -> Pairs:
    settings = job.run.settings
    pairs = load_pairs(
        job.store,
        job.split.ids(part),
        (model.audio_encoder, model.text_encoder),
        folder=job.cache,
        seed=settings.seed,
        no_negatives_by=settings.no_negatives_by,
        cached=settings.compute.cache_features,
        bank=draw_bank(settings.texts.bank) if part == "train" and settings.texts.bank else None,
        query_share=settings.texts.query_share,
        several=part == "train",
        progress=job.progress,
    )
    least = settings.split.min_train_clips if part == "train" else settings.split.min_eval_clips
    if len(pairs) < least:
        raise TooSmall(
            f"{len(pairs)} clips of the {part} part are usable ({len(pairs.rejected)} are not), but at least {least} "
            "are needed. Add sources, or lower split.min_train_clips and split.min_eval_clips."
        )
    return pairs


def _is_over(position: Position, settings: TrainSettings) -> bool:
    if position.epoch >= settings.epochs:
        return True
    if settings.patience is None or not position.epoch:
        return False
    return position.epoch - _candidates(position, settings)[0].epoch >= settings.patience


def _candidates(position: Position, settings: TrainSettings) -> list[Epoch]:
    """Return the epochs whose weights may be kept if the training ends now, the first choice first.

    The best on validation is none inside the warm-up: its figures are those of weights that have hardly moved.
    """
    trained = [epoch for epoch in position.history if epoch.epoch]
    if settings.keep == "last" and position.history[0].epoch:  # nothing that the last could be worse than
        return [trained[-1]]
    later = [epoch for epoch in trained if epoch.epoch > WARMUP * settings.epochs]
    best = max(later, key=lambda epoch: (epoch.validation, -epoch.epoch)) if later else trained[-1]
    return [best] if settings.keep == "best" else [trained[-1], best]


def _kept(position: Position, settings: TrainSettings) -> Epoch:
    """Return the first candidate that is no worse than the model it started from; that model if none is."""
    candidates, first = _candidates(position, settings), position.history[0]
    if first.epoch:
        return candidates[0]
    return next((one for one in candidates if one.validation >= first.validation), first)


def _prompts(model: System, queries: Queries, settings: TrainSettings) -> Prompts:
    """Embed the words that the model was trained on, by the queries of its bank."""

    def embedded(numbers: Sequence[int]) -> np.ndarray:
        chunks = [numbers[start : start + settings.batch] for start in range(0, len(numbers), settings.batch)]
        found = [model.embed_text_features([queries.features[number] for number in chunk]) for chunk in chunks]
        return torch.cat([torch.zeros(0, model.settings.embedding), *(rows.float().cpu() for rows in found)]).numpy()

    return Prompts.of(draw_bank(settings.texts.bank), embedded)


def _finish(fabric: Fabric, job: Job, model: System, position: Position, training: Pairs, validation: Pairs) -> None:
    model.save_pretrained(job.folder)
    # The hub's mixin leaves a page without content; `write_model_card` writes the real one.
    (job.folder / "README.md").unlink(missing_ok=True)
    if training.queries is not None and model.settings.fusion != "paired":  # which embeds no query by itself
        _prompts(model, training.queries, job.run.settings).save(job.folder)
    best = _kept(position, job.run.settings)
    trained = Trained(
        run=job.run,
        best_epoch=best.epoch,
        validation=best.validation,
        leaks=model.settings.fusion == "paired",
        history=position.history,
        steps=position.step,
        clips={"train": len(training), "validation": len(validation), "test": len(job.split.test)},
        rejected=len(training.rejected) + len(validation.rejected),
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        languages=job.store.languages(training.ids),
        environment=environment(fabric),
    )
    trained.save(job.folder / RECORD)
    log.info("trained %s: epoch %d, validation mAP@10 %.4f", job.folder, best.epoch, best.validation)
