"""From clips to batches: the same ones in the same order whatever the number of workers and devices."""

import logging
import multiprocessing.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fsclap.model.encoders import Encoders
from fsclap.model.fsclap import FSCLAP, Embeddings
from fsclap.model.tokens import Tokens, pad
from fsclap.data.clips import ClipStore, CorruptClip
from fsclap.data.features import CachedFeatures, Features, audio_features, text_features

log = logging.getLogger(__name__)

MEGA_BATCH = 4
"""Batches among which clips are sorted by length. More of them: less padding, but the same clips meet again and again;
were it the whole corpus, every epoch would have the same batches."""
LEAST = 2
"""A batch of one pair contrasts nothing."""


# Not a dataclass: Lightning Fabric looks into those and would cast the features to half precision before the model.
class Batch:
    """Pairs, row i of the audio with row i of the text.

    Attributes:
        audio: (batch, frames, dim).
        text: (batch, tokens[, dim]).
        groups: (batch,) int64, equal where two pairs are no negatives of one another.
        positions: (batch,) int64, of each pair in `Pairs`.
    """

    __slots__ = ("audio", "groups", "positions", "text")

    def __init__(self, audio: Tokens, text: Tokens, groups: Tensor, positions: Tensor) -> None:
        self.audio, self.text, self.groups, self.positions = audio, text, groups, positions

    def __len__(self) -> int:
        return len(self.positions)

    def to(self, device: torch.device) -> "Batch":
        groups, positions = (x.to(device, non_blocking=True) for x in (self.groups, self.positions))
        return Batch(self.audio.to(device), self.text.to(device), groups, positions)

    def pin_memory(self) -> "Batch":
        """Called by a DataLoader that pins its batches."""
        return Batch(
            self.audio.pin_memory(), self.text.pin_memory(), self.groups.pin_memory(), self.positions.pin_memory()
        )


Item = tuple[np.ndarray, np.ndarray, int, int]


@dataclass(frozen=True)
class Pairs(Dataset[Item]):
    """Clips with their captions, as features.

    Attributes:
        ids: Utterance id of each pair.
        captions: Caption of each pair.
        groups: (pairs,) int64, equal where two pairs have the same caption, or style.
        max_frames: Of audio; a longer clip is cropped.
        seed: Of the crops.
        rejected: Clips that were asked for and cannot be used.
    """

    ids: Sequence[str]
    captions: Sequence[str]
    audio: Features
    text: Features
    groups: np.ndarray
    max_frames: int
    seed: int
    rejected: Sequence[CorruptClip]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, at: tuple[int | None, int]) -> Item:
        """The pair at (epoch, position): cropped at random; without an epoch, cropped to the middle."""
        epoch, position = at
        audio = self._cropped(self.audio[position], epoch, position)
        return audio, self.text[position], int(self.groups[position]), position

    def _cropped(self, frames: np.ndarray, epoch: int | None, position: int) -> np.ndarray:
        spare = len(frames) - self.max_frames
        if spare <= 0:
            return frames
        start = spare // 2
        if epoch is not None:
            start = int(np.random.default_rng((self.seed, epoch, position)).integers(spare + 1))
        return frames[start : start + self.max_frames]


def load_pairs(
    store: ClipStore,
    ids: Sequence[str],
    encoders: Encoders,
    *,
    folder: Path,
    seed: int = 0,
    same: Literal["caption", "style_key"] = "caption",
    cached: Literal["frozen", "all"] = "frozen",
    progress: bool = True,
) -> Pairs:
    """The pairs of these utterances, in their order, without the clips that cannot be used: these are logged.

    Args:
        folder: Of the feature caches.
        seed: Of random crops.
        same: What makes pairs a group.
        cached: Whether features of encoders that are not frozen are computed now and kept, too.

    Raises:
        KeyError: The store has no such utterance.
    """
    hears, reads = encoders
    rows = [store.rows[id_] for id_ in ids]
    keep = hears.frozen or cached == "all"
    audio, rejected = audio_features(store, rows, hears, folder=folder, cached=keep, progress=progress)
    for clip in rejected:
        log.warning("left out: %s", clip)
    gone = {clip.utterance_id for clip in rejected}
    left = [id_ for id_ in ids if id_ not in gone]
    captions = store.column("caption", left)
    return Pairs(
        ids=left,
        captions=captions,
        audio=audio,
        text=text_features(captions, reads, folder=folder, progress=progress),
        groups=_groups(captions if same == "caption" else store.column(same, left)),
        max_frames=hears.max_frames,
        seed=seed,
        rejected=rejected,
    )


def _groups(texts: Sequence[str]) -> np.ndarray:
    plain = [" ".join(text.casefold().split()) for text in texts]
    number = {text: at for at, text in enumerate(dict.fromkeys(plain))}
    return np.array([number[text] for text in plain], dtype=np.int64)


def epoch_batches(lengths: np.ndarray, size: int, *, seed: int, epoch: int, multiple: int = 1) -> list[np.ndarray]:
    """The positions of each batch of an epoch: at random, with clips of like length together.

    What is left over is shared out, so that no step hangs on a handful of pairs.

    Args:
        lengths: (pairs,) of each.
        size: Most pairs to a batch. A batch with nothing to contrast in it is left out.
        multiple: What every batch is a multiple of; divides `size`. At most so many less one pairs sit out an epoch.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    order = order[: len(order) - len(order) % multiple]
    batches: list[np.ndarray] = []
    for start in range(0, len(order), MEGA_BATCH * size):
        mega = order[start : start + MEGA_BATCH * size]
        alike = mega[np.argsort(lengths[mega], kind="stable")].reshape(-1, multiple)
        batches += [part.reshape(-1) for part in np.array_split(alike, -(-len(mega) // size))]
    batches = [batch for batch in batches if len(batch) >= LEAST]
    return [batches[at] for at in rng.permutation(len(batches))]


def batches_of(
    pairs: Pairs,
    positions: Sequence[np.ndarray],
    *,
    epoch: int | None,
    workers: int | None = None,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Load the batches of these positions, in this order.

    Args:
        epoch: Of the random crops; None crops to the middle.
        workers: Processes; None: 0 when the features are cached, else one a core and 4 at most.
    """
    if workers is None:
        workers = 0 if isinstance(pairs.audio, CachedFeatures) else min(4, len(os.sched_getaffinity(0)))
    loader: DataLoader[Item] = DataLoader(
        pairs,
        batch_sampler=[[(epoch, int(position)) for position in batch] for batch in positions],
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        # An encoder on a GPU computes features without it, so a fork is safe, and needs no copy of the weights.
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=_leave_at_once,
    )
    yield from loader


def _leave_at_once(_: int) -> None:
    """Have a worker end without the exit handlers of threads that only its parent has, such as a scheduler's.

    They fail in a fork, which would then look like a worker that died. Queues are flushed before (priority -5).
    """
    multiprocessing.util.Finalize(None, os._exit, args=(0,), exitpriority=-100)


@torch.no_grad()
def embed(model: FSCLAP, pairs: Pairs, *, batch: int = 256, workers: int | None = None) -> Embeddings:
    """Embed every pair, cropped to the middle: (pairs, embedding) each, float32, on the CPU, in the order of `pairs`.

    A model with fusion="paired" fuses each clip with its own caption here, so what it gives is no retrieval.
    """
    order = np.argsort(pairs.audio.lengths, kind="stable")
    positions = [order[at : at + batch] for at in range(0, len(order), batch)]
    training = model.training
    model.eval()
    found = [torch.empty(len(pairs), model.settings.embedding) for _ in range(2)]
    for loaded in batches_of(pairs, positions, epoch=None, workers=workers):
        some = loaded.to(model.device)
        for rows, embedded in zip(found, model(some.audio, some.text), strict=True):
            rows[loaded.positions] = embedded.float().cpu()
    model.train(training)
    return Embeddings(*found)


def _collate(items: list[Item]) -> Batch:
    audio, text, groups, positions = zip(*items, strict=True)
    return Batch(pad(audio), pad(text), torch.tensor(groups), torch.tensor(positions))
