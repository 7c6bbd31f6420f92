"""From clips to batches: the same, in the same order, for any number of workers and devices."""

import functools
import logging
import multiprocessing.util
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fsclap.data.captions import caption_groups, numbered
from fsclap.data.clips import ClipStore, CorruptClip
from fsclap.data.features import CachedFeatures, Features, audio_features, text_features
from fsclap.data.levels import style_levels
from fsclap.data.measured import speaker_context
from fsclap.model.encoders import Encoders
from fsclap.model.functionals import with_context
from fsclap.model.losses import Embeddings, Meets, PairLabels, rowwise
from fsclap.model.systems.base import System
from fsclap.model.tokens import Tokens, pad
from fsclap.queries.bank import Bank
from fsclap.queries.conditions import clip_words, surely_met

log = logging.getLogger(__name__)

MEGA_BATCH = 4
"""Batches whose clips are sorted by length together. With more of them there is less padding, but
the same clips meet again and again; with the whole corpus, every epoch would have the same
batches."""
CONTEXT_LEFT_OUT = 0.15
"""Share of the clips of an epoch whose context is left out: the model must do without it, too."""
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
        meets: Which texts are true of clips that are not their own; None if there are only captions.
        levels: (B, L) float32, what the style of each clip says, as numbers.
    """

    __slots__ = ("audio", "groups", "levels", "meets", "positions", "text")

    def __init__(
        self,
        audio: Tokens,
        text: Tokens,
        groups: Tensor,
        positions: Tensor,
        meets: Meets | None = None,
        levels: Tensor | None = None,
    ) -> None:
        self.audio, self.text, self.groups, self.positions = audio, text, groups, positions
        self.meets, self.levels = meets, levels

    def __len__(self) -> int:
        return len(self.positions)

    def to(self, device: torch.device) -> "Batch":
        return self._each(lambda x: x.to(device, non_blocking=True), self.audio.to(device), self.text.to(device))

    def pin_memory(self) -> "Batch":
        """Pin the memory; a DataLoader that pins its batches calls this."""
        return self._each(Tensor.pin_memory, self.audio.pin_memory(), self.text.pin_memory())

    def _each(self, function: Callable[[Tensor], Tensor], audio: Tokens, text: Tokens) -> "Batch":
        rest = (self.groups, self.positions, self.meets, self.levels)
        return Batch(audio, text, *(rowwise(function, [one]) for one in rest))

    @property
    def labels(self) -> PairLabels:
        """What a loss knows of the pairs."""
        return PairLabels(self.groups, self.meets, self.levels)


class Item(NamedTuple):
    """One pair.

    Attributes:
        audio: (frames, columns) features of the clip.
        text: (tokens[, columns]) features of its caption, or of a query that is true of it.
        group: Number of its caption or style.
        position: Its position in `Pairs`.
        levels: (L,) float32, what the clip's style says, as numbers.
        asked: (attributes,) int64 bit sets: what a query is true of, zeros for a caption; None in
            evaluation.
        words: (attributes,) int64 bit sets: the words of the clip; None in evaluation.
    """

    audio: np.ndarray
    text: np.ndarray
    group: int
    position: int
    levels: np.ndarray
    asked: np.ndarray | None = None
    words: np.ndarray | None = None


@dataclass(frozen=True)
class Queries:
    """Short queries that a model is trained on beside the captions.

    Attributes:
        features: Text features of each query of the bank.
        asked: (queries, attributes) int64 bit sets: what each is true of.
        words: (pairs, attributes) int64 bit sets: the words of each clip.
        share: Share of the texts that are queries, for clips that some query is true of.
    """

    features: Features
    asked: np.ndarray
    words: np.ndarray
    share: float

    @functools.cached_property
    def true_of(self) -> list[np.ndarray]:
        """The queries that are true of each clip."""
        chunks = [surely_met(self.asked, self.words[at : at + 256]).T for at in range(0, len(self.words), 256)]
        return [np.flatnonzero(row) for chunk in chunks for row in chunk]

    def drawn(self, position: int, rng: np.random.Generator) -> int | None:
        """Draw a query that is true of a clip; None: take its caption."""
        among = self.true_of[position]
        return int(rng.choice(among)) if len(among) and rng.random() < self.share else None


@dataclass(frozen=True)
class Captions:
    """The captions of clips of which some have several.

    Attributes:
        features: Text features of each distinct caption.
        groups: (captions,) int64, equal where two captions are the same; None if pairs are grouped by something else.
        of_pair: Each pair's captions, as positions in `features`; its own caption is the first.
    """

    features: Features
    groups: np.ndarray | None
    of_pair: Sequence[np.ndarray]


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
        seed: Seed of crops, queries and left-out contexts.
        rejected: Requested clips that cannot be used.
        levels: (pairs, L) float32, what each style says, as numbers (fsclap.data.levels).
        context: (pairs, measures) how each clip compares with its speaker's others; None: the encoder
            takes no such measures.
        queries: Queries to train on beside the captions; None: captions alone.
        several: All captions of the clips, of which each epoch draws one; None: each clip has one, or the part is
            not trained on.
    """

    ids: Sequence[str]
    captions: Sequence[str]
    audio: Features
    text: Features
    groups: np.ndarray
    max_frames: int
    seed: int
    rejected: Sequence[CorruptClip]
    levels: np.ndarray
    context: np.ndarray | None = None
    queries: Queries | None = None
    several: Captions | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, at: tuple[int | None, int]) -> Item:
        """Return the pair at (epoch, position).

        In an epoch, a long clip is cropped at random, the context is left out now and then (as it is
        of an uploaded recording), and the text is one of the clip's captions, or a query. With epoch
        None the pair is as it is evaluated: cropped to the middle, with its context and its (first)
        caption.
        """
        epoch, position = at
        rng = None if epoch is None else np.random.default_rng((self.seed, epoch, position))
        frames = self._cropped(self.audio[position], rng)
        if self.context is not None and (rng is None or rng.random() >= CONTEXT_LEFT_OUT):
            frames = with_context(frames, self.context[position])
        own = int(self.groups[position]), position, self.levels[position]
        if rng is None:
            return Item(frames, self.text[position], *own)
        words = None if self.queries is None else self.queries.words[position]
        query = None if self.queries is None else self.queries.drawn(position, rng)
        if self.queries is not None and query is not None:
            return Item(frames, self.queries.features[query], *own, self.queries.asked[query], words)
        text, group = self._caption(position, rng)
        return Item(frames, text, group, *own[1:], None if words is None else np.zeros_like(words), words)

    def _caption(self, position: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """Draw one of a clip's captions: its features and its group."""
        group = int(self.groups[position])
        if self.several is None:
            return self.text[position], group
        among = self.several.of_pair[position]
        # A clip with one caption takes no number from the generator.
        drawn = int(rng.choice(among)) if len(among) > 1 else int(among[0])
        return self.several.features[drawn], group if self.several.groups is None else int(self.several.groups[drawn])

    def _cropped(self, frames: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        spare = len(frames) - self.max_frames
        if spare <= 0:
            return frames
        start = spare // 2 if rng is None else int(rng.integers(spare + 1))
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
    bank: Bank | None = None,
    query_share: float = 0.0,
    several: bool = False,
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
        bank: Queries to train on beside the captions.
        query_share: Share of the texts that are queries of the bank.
        several: Draw among all captions of a clip in each epoch, if the store has several of some.
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
    context, queries = speaker_context(store.table, audio_encoder), None
    if bank is not None:
        features = text_features(bank.texts, text_encoder, folder=folder, progress=progress)
        queries = Queries(features, bank.allowed, clip_words(store.column("style_key", usable)), query_share)
    known = _several(store, usable, captions, no_negatives_by) if several else None
    if known is not None:
        texts, numbers, of_pair = known
        all_captions = Captions(text_features(texts, text_encoder, folder=folder, progress=progress), numbers, of_pair)
    return Pairs(
        ids=usable,
        captions=captions,
        audio=audio,
        text=text_features(captions, text_encoder, folder=folder, progress=progress),
        groups=groups,
        max_frames=audio_encoder.max_frames,
        seed=seed,
        rejected=rejected,
        levels=style_levels(store.column("style_key", usable)),
        context=None if context is None else context[[store.rows[id_] for id_ in usable]],
        queries=queries,
        several=None if known is None else all_captions,
    )


def _several(
    store: ClipStore, ids: Sequence[str], captions: Sequence[str], no_negatives_by: str
) -> tuple[list[str], np.ndarray | None, list[np.ndarray]] | None:
    """Return the distinct captions, their groups, and those of each clip; None if no clip has several."""
    if "captions" not in store.table.column_names:
        return None
    own = [
        list(dict.fromkeys([first, *(others or ())]))
        for first, others in zip(captions, store.column("captions", ids), strict=True)
    ]
    if all(len(texts) == 1 for texts in own):
        return None
    texts = list(dict.fromkeys(text for one in own for text in one))
    at = {text: number for number, text in enumerate(texts)}
    groups = caption_groups(texts) if no_negatives_by == "caption" else None
    return texts, groups, [np.array([at[text] for text in one]) for one in own]


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
def embed(model: System, pairs: Pairs, *, batch: int = 256, workers: int | None = None) -> Embeddings:
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
    audio, text, groups, positions, levels, asked, words = zip(*items, strict=True)
    meets = None if asked[0] is None else Meets(*(torch.from_numpy(np.stack(rows)) for rows in (asked, words)))
    known = torch.from_numpy(np.stack(levels))
    return Batch(pad(audio), pad(text), torch.tensor(groups), torch.tensor(positions), meets, known)
