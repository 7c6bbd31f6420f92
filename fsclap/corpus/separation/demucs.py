"""Vocal separation by Demucs 4: the models of the `demucs` package.

Sources: Rouard, Massa and Défossez, "Hybrid Transformers for Music Source Separation", ICASSP 2023;
Défossez, "Hybrid Spectrogram and Waveform Source Separation", 2021 (code: MIT; see each model's
page for its weights).

The vocals are those of `demucs.api.Separator(shifts=0)`: the same segments, normalisation and
overlap-add. What differs is the work that is not done, and in what order the rest is:

- Only networks whose output counts towards the vocals run: one of the four of htdemucs_ft.
- Of their last layers, only the filters that make the vocals, and those of the two channels as
  their mean, since that is what leaves here and everything after them is linear.
- Segments of all recordings are one stream: on a GPU, batches are full whatever the lengths of the
  recordings are; on a CPU, several go through the network side by side, which scales better than
  threads within one.
- Attention runs as fused `scaled_dot_product_attention` on the CPU, too.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from demucs.apply import Model
from demucs.hdemucs import HDemucs, MultiWrap
from demucs.htdemucs import HTDemucs
from demucs.utils import center_trim
from torch import Tensor, nn

from fsclap.corpus.separation.base import DemucsSettings, check, release
from fsclap.corpus.separation.demucs_weights import SAMPLE_RATE, VOCALS, load_bag
from fsclap.devices import Batches, DeviceError, torch_device
from fsclap.weights import find_weights

log = logging.getLogger(__name__)

SETTING = "separation.demucs"
CHANNELS = 2
LEVEL_BLOCK = 1 << 22
"""Samples of a mixture that are in memory at once where its level is measured."""


class DemucsSeparator:
    """A `Separator` (see fsclap.corpus.separation) that runs a model of the Demucs family.

    Args:
        device: Where the networks run: "cpu", "cuda", "cuda:1".
        batch: Segments that are under way at once, from one recording or several.

    Raises:
        WeightsError: The weights are missing, damaged, or not those of a model that separates
            vocals.
        DeviceError: The device is not there, or `half` is set on a CPU.
    """

    name = "demucs"
    sample_rate = SAMPLE_RATE

    def __init__(self, settings: DemucsSettings, *, device: str, batch: int) -> None:
        self._device = torch_device(device, setting="device")
        if settings.half and self._device.type == "cpu":
            raise DeviceError(f"{SETTING}.half is for GPUs: set it to false, or device to cuda")
        weights = find_weights(settings.weights, setting=f"{SETTING}.weights")
        self.revision = weights.revision
        bag = load_bag(weights.folder, settings.model, setting=SETTING)
        self._networks = [Network(_placed(vocals_only(module), self._device), share) for module, share in bag.vocals]
        self._segment = int(bag.segment * SAMPLE_RATE)
        self._stride = int((1 - settings.overlap) * self._segment)
        self._half = settings.half
        self._batch = batch
        self._batches = Batches(self._vocals, setting="separation.batch")

    def separate(self, mixtures: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """See `Separator`; the vocals are the mean of the channels' vocals."""
        check(mixtures, outputs)
        segments = (segment for mixture in mixtures for segment in self._segments(mixture))
        adders = (OverlapAdd(output, segment=self._segment, stride=self._stride) for output in outputs)
        remaining = iter(outputs)
        while batch := list(islice(segments, self._batch)):
            for segment, vocals in zip(batch, self._batches(batch), strict=True):
                if segment.start == 0:
                    adder, output = next(adders), next(remaining)
                adder.add(segment.denormalized(vocals))
                release(segment.mixture, output)
                if segment.is_last(self._stride):
                    yield output

    def _segments(self, mixture: np.ndarray) -> Iterator["Segment"]:
        mean, spread = level(mixture)
        for start in range(0, mixture.shape[1], self._stride):
            yield Segment(mixture, start, min(self._segment, mixture.shape[1] - start), mean, spread)

    def _vocals(self, segments: list["Segment"]) -> list[np.ndarray]:
        """Compute the normalised mono vocals of each segment, as long as it is."""
        if self._device.type == "cpu":
            with _fused_attention():
                return self._side_by_side(segments)
        found = self._forward(segments, half=self._half)
        if self._half and not all(np.isfinite(vocals).all() for vocals in found):
            log.warning("a segment exceeds what half precision can hold: computing its batch in full precision")
            found = self._forward(segments, half=False)
        return found

    def _side_by_side(self, segments: list["Segment"]) -> list[np.ndarray]:
        """On a CPU: each segment alone, with its share of the cores."""
        if len(segments) == 1 or (cores := torch.get_num_threads()) == 1:
            return [self._forward([segment], half=False)[0] for segment in segments]
        streams = min(len(segments), cores)
        try:
            with ThreadPoolExecutor(streams, initializer=torch.set_num_threads, initargs=(cores // streams,)) as pool:
                return list(pool.map(lambda segment: self._forward([segment], half=False)[0], segments))
        finally:
            torch.set_num_threads(cores)  # Part of it holds for the whole process.

    @torch.inference_mode()
    def _forward(self, segments: list["Segment"], *, half: bool) -> list[np.ndarray]:
        vocals = [np.zeros(segment.samples, dtype=np.float32) for segment in segments]
        for network in self._networks:
            windows = defaultdict(list)
            for number, segment in enumerate(segments):
                windows[network.window(segment.samples)].append(number)
            for samples, numbers in windows.items():
                batch = torch.from_numpy(np.stack([segments[number].window(samples) for number in numbers]))
                with torch.autocast(self._device.type, torch.float16, enabled=half):
                    found = network(_sent(batch, self._device))
                for number, wave in zip(numbers, found.float().cpu(), strict=True):
                    vocals[number] += network.share * center_trim(wave, segments[number].samples).numpy()
        return vocals


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A network whose output counts towards the vocals.

    Attributes:
        share: By how much; the shares of all networks add up to 1.
    """

    module: Model
    share: float

    def window(self, samples: int) -> int:
        """Return the samples that the network needs for a segment of `samples`."""
        valid_length: Any = getattr(self.module, "valid_length", None)
        return valid_length(samples) if valid_length else samples

    def __call__(self, mixtures: Tensor) -> Tensor:
        """(batch, CHANNELS, samples) -> (batch, samples), the mean of the channels' vocals."""
        found = self.module(mixtures)
        return found[:, self.module.sources.index(VOCALS)].mean(dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """A part of a mixture that goes through the networks at once.

    Attributes:
        start, samples: The part.
        mean, spread: Level of the whole mixture, by which the networks' input is normalised.
    """

    mixture: np.ndarray
    start: int
    samples: int
    mean: np.float32
    spread: np.float32

    def is_last(self, stride: int) -> bool:
        return self.start + stride >= self.mixture.shape[1]

    def window(self, samples: int) -> np.ndarray:
        """Cut the part and what surrounds it, (CHANNELS, samples) normalised, zeros outside."""
        start = self.start - (samples - self.samples) // 2
        inside = self.mixture[:, max(start, 0) : start + samples]
        offset = max(-start, 0)
        wave = np.zeros((CHANNELS, samples), dtype=np.float32)
        wave[:, offset : offset + inside.shape[1]] = (inside - self.mean) / self.spread
        return wave

    def denormalized(self, vocals: np.ndarray) -> np.ndarray:
        return vocals * self.spread + self.mean


class OverlapAdd:
    """Overlap-add segments into a wave, written once no later segment touches it.

    Each segment weighs as a triangle over it, as in `demucs.apply.apply_model`.

    Args:
        output: (samples,), filled in place.
        segment: Samples of a segment; the last ones of a wave may have fewer.
        stride: Samples from one segment to the next.
    """

    def __init__(self, output: np.ndarray, *, segment: int, stride: int) -> None:
        rising, falling = np.arange(1, segment // 2 + 1), np.arange(segment - segment // 2, 0, -1)
        triangle = np.concatenate([rising, falling]).astype(np.float32)
        self._triangle = triangle / triangle.max()
        self._output = output
        self._stride = stride
        self._start = 0
        self._sum = np.zeros((2, segment), dtype=np.float32)
        """The weighted sum of what came so far, from `_start` on, and the sum of its weights."""

    def add(self, vocals: np.ndarray) -> None:
        """Add the next segment."""
        weights = self._triangle[: len(vocals)]
        self._sum[0, : len(vocals)] += weights * vocals
        self._sum[1, : len(vocals)] += weights
        place = self._output[self._start : self._start + self._stride]
        np.divide(self._sum[0, : len(place)], self._sum[1, : len(place)], out=place)
        self._sum[:, : -self._stride] = self._sum[:, self._stride :]
        self._sum[:, -self._stride :] = 0
        self._start += self._stride


def level(mixture: np.ndarray) -> tuple[np.float32, np.float32]:
    """Mean and standard deviation of the channels' mean, in blocks; Demucs normalises by it."""
    count, total, squares = mixture.shape[1], 0.0, 0.0
    for start in range(0, count, LEVEL_BLOCK):
        mono = mixture[:, start : start + LEVEL_BLOCK].mean(axis=0, dtype=np.float64)
        total += float(mono.sum())
        squares += float(mono @ mono)
        release(mixture)
    mean = total / count
    variance = max(squares - count * mean**2, 0.0) / max(count - 1, 1)
    return np.float32(mean), np.float32(variance**0.5 + 1e-8)


def vocals_only(network: Model) -> Model:
    """Reduce a network to the mean of the channels' vocals, where its last layers allow it.

    The last transposed convolution of each branch makes, side by side, the channels of every
    source; in the spectrum a channel is two, real and imaginary part. What comes after (scaling,
    inverse transform, sum of the branches) is linear and knows neither source nor channel. Changed
    in place.
    """
    if not isinstance(network, HTDemucs | HDemucs) or not network.cac:
        return network
    layers = [(layer, 2) for layer in _last_layers(network.decoder)]
    if isinstance(network, HTDemucs) or network.hybrid:
        layers += [(layer, 1) for layer in _last_layers(network.tdecoder)]
    if all(isinstance(layer.norm2, nn.Identity) for layer, _ in layers):
        for layer, parts in layers:
            split = (len(network.sources), network.audio_channels, parts)
            _keep(layer.conv_tr, split, source=network.sources.index(VOCALS))
        network.sources = [VOCALS]
    return network


def _last_layers(decoder: nn.ModuleList) -> list[Any]:
    last = decoder[-1]
    return list(last.layers) if isinstance(last, MultiWrap) else [last]


def _keep(convolution: Any, split: tuple[int, int, int], *, source: int) -> None:
    """Keep the filters of one of (sources, channels, parts), the mean over its channels."""
    weight, bias = convolution.weight, convolution.bias
    weight.data = weight.data.unflatten(1, split)[:, source].mean(dim=1)
    bias.data = bias.data.unflatten(0, split)[source].mean(dim=0)
    convolution.out_channels = split[2]


def _placed(network: Model, device: torch.device) -> Model:
    # Convolutions have faster kernels for this layout.
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Switch off a fast path of attention that is slower on a CPU, and needs more memory."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _sent(batch: Tensor, device: torch.device) -> Tensor:
    return batch if device.type == "cpu" else batch.pin_memory().to(device, non_blocking=True)
