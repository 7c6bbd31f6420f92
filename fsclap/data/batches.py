"""From clips to batches: the same, in the same order, for any number of workers and devices."""

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

from fsclap.data.captions import caption_groups, numbered
from fsclap.data.clips import ClipStore, CorruptClip
from fsclap.data.features import CachedFeatures, Features, audio_features, text_features
from fsclap.model.encoders import Encoders
from fsclap.model.fsclap import FSCLAP, Embeddings
from fsclap.model.tokens import Tokens, pad

log = logging.getLogger(__name__)

MEGA_BATCH = 4
"""Batches whose clips are sorted by length together. With more of them there is less padding, but
the same clips meet again and again; with the whole corpus, every epoch would have the same
batches."""
LEAST = 2
"""Pairs in the smallest batch: one pair has nothing to contrast with."""


# Not a dataclass: Lightning Fabric looks into those and would cast the features to half precision
# before the model.
class Batch:
    """Pairs, row i of the audio with row i of the text.

    Attributes:
        audio: (B, frames, dim).
        text: (B, tokens[, dim]).
        groups: (B,) int64, equal where two pairs are not negatives of each other.
        positions: (B,) int64, position of each pair in `Pairs`.
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
        """Pin the memory; a DataLoader that pins its batches calls this."""
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
        audio: Audio features by position.
        text: Text features by position.
        groups: (pairs,) int64, equal where two pairs have the same caption, or style.
        max_frames: Most frames of audio; a longer clip is cropped.
        seed: Seed of the crops.
        rejected: Requested clips that cannot be used.
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
        """Return the pair at (epoch, position), cropped at random; epoch None: to the middle."""
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
    no_negatives_by: Literal["caption", "style_key"] = "caption",
    cached: Literal["frozen", "all"] = "frozen",
    progress: bool = True,
) -> Pairs:
    """Load the pairs of these utterances, in order; unusable clips are left out and logged.

    Args:
        store: Clips of the corpus version.
        ids: Utterance ids.
        encoders: Encoders that compute the features.
        folder: Folder of the feature caches.
        seed: Seed of random crops.
        no_negatives_by: Column whose equal values make pairs a group.
        cached: "all" also computes and keeps the features of encoders that are trained.
        progress: Show bars.

    Raises:
        KeyError: The store has no such utterance.
    """
    audio_encoder, text_encoder = encoders
    rows = [store.rows[id_] for id_ in ids]
    keep = audio_encoder.frozen or cached == "all"
    audio, rejected = audio_features(store, rows, audio_encoder, folder=folder, cached=keep, progress=progress)
    for clip in rejected:
        log.warning("left out: %s", clip)
    unusable = {clip.utterance_id for clip in rejected}
    usable = [id_ for id_ in ids if id_ not in unusable]
    captions = store.column("caption", usable)
    if no_negatives_by == "caption":
        groups = caption_groups(captions)
    else:
        groups = numbered(store.column(no_negatives_by, usable))
    return Pairs(
        ids=usable,
        captions=captions,
        audio=audio,
        text=text_features(captions, text_encoder, folder=folder, progress=progress),
        groups=groups,
        max_frames=audio_encoder.max_frames,
        seed=seed,
        rejected=rejected,
    )


def epoch_batches(lengths: np.ndarray, size: int, *, seed: int, epoch: int, multiple: int = 1) -> list[np.ndarray]:
    """Draw the positions of each batch of an epoch: at random, clips of similar length together.

    The remainder is spread over the batches, so no step trains on only a few pairs.

    Args:
        lengths: (pairs,) length of each.
        size: Most pairs per batch. A batch with nothing to contrast is left out.
        seed: Seed of the order.
        epoch: Number of the epoch, from 0; each has another order.
        multiple: Every batch is a multiple of this, which divides `size`. At most `multiple` - 1
            pairs sit out an epoch.
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
        pairs: Pairs to load from.
        positions: Positions of the pairs of each batch.
        epoch: Epoch of the random crops; None crops to the middle.
        workers: Processes; None: 0 if the features are cached, otherwise one per core, at most 4.
        pin_memory: Pin the batches for a faster copy to a GPU.
    """
    if workers is None:
        workers = 0 if isinstance(pairs.audio, CachedFeatures) else min(4, len(os.sched_getaffinity(0)))
    loader: DataLoader[Item] = DataLoader(
        pairs,
        batch_sampler=[[(epoch, int(position)) for position in batch] for batch in positions],
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        # Features are computed on the CPU, so a fork is safe, and it needs no copy of the weights.
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=_leave_at_once,
    )
    yield from loader


def _leave_at_once(_: int) -> None:
    """Make a worker exit without the exit handlers of its parent's threads, such as a scheduler's.

    They fail in a fork, and the worker would seem to have died. Queues are flushed before (priority
    -5).
    """
    multiprocessing.util.Finalize(None, os._exit, args=(0,), exitpriority=-100)


@torch.no_grad()
def embed(model: FSCLAP, pairs: Pairs, *, batch: int = 256, workers: int | None = None) -> Embeddings:
    """Embed every pair, cropped to the middle.

    A model with fusion="paired" fuses each clip with its own caption here, so its embeddings say
    nothing about retrieval.

    Returns:
        (pairs, embedding) float32 each, on the CPU, in the order of `pairs`.
    """
    order = np.argsort(pairs.audio.lengths, kind="stable")
    positions = [order[at : at + batch] for at in range(0, len(order), batch)]
    training = model.training
    model.eval()
    embeddings = Embeddings(*(torch.empty(len(pairs), model.settings.embedding) for _ in range(2)))
    for loaded in batches_of(pairs, positions, epoch=None, workers=workers):
        moved = loaded.to(model.device)
        for rows, embedded in zip(embeddings, model(moved.audio, moved.text), strict=True):
            rows[loaded.positions] = embedded.float().cpu()
    model.train(training)
    return embeddings


def _collate(items: list[Item]) -> Batch:
    audio, text, groups, positions = zip(*items, strict=True)
    return Batch(pad(audio), pad(text), torch.tensor(groups), torch.tensor(positions))
