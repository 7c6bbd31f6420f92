"""Who speaks when within ten seconds: pyannote's segmentation-3.0.

The network is PyanNet: SincNet filters (Ravanelli and Bengio 2018, arXiv:1808.00158), four
bidirectional LSTMs, two linear layers, and a softmax over the sets of speakers who speak at once
(powerset, Plaquet and Bredin 2023, arXiv:2310.13025). It hears WINDOW samples at a time and tells up
to three speakers apart, of whom at most two speak at once; who is number one in one window may be
number two in the next.

Notation: w windows, f frames of a window, s local speakers.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fsclap import Hertz
from fsclap.carried import carried

RATE: Hertz = 16_000
WINDOW = 10 * RATE
FRAME_STEP = 270
"""Samples from one frame to the next: 16.9 ms."""
FRAME_LENGTH = 991
"""Samples that one frame sees before the LSTMs."""
SETS = ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2))
"""Local speakers of each class."""
SPEAKERS = 3
FILTERS, FILTER_LENGTH, FILTER_STRIDE = 80, 251, 10
LOWEST_HZ, NARROWEST_HZ = 50.0, 50.0
BATCH = 16
WEIGHTS = "segmentation-3.0"


class SincFilters(nn.Module):
    """Band-pass filters whose two edges are the only weights: pairs of cosine and sine phase."""

    window_: Tensor
    n_: Tensor

    def __init__(self) -> None:
        super().__init__()
        half = FILTER_LENGTH // 2
        self.low_hz_ = nn.Parameter(torch.zeros(FILTERS // 2, 1))
        self.band_hz_ = nn.Parameter(torch.zeros(FILTERS // 2, 1))
        self.register_buffer("window_", torch.zeros(half))
        self.register_buffer("n_", torch.zeros(1, half))

    def forward(self, wave: Tensor) -> Tensor:
        """(w, 1, samples) -> (w, FILTERS, steps of FILTER_STRIDE samples)."""
        return functional.conv1d(wave, self._filters(), stride=FILTER_STRIDE)

    def _filters(self) -> Tensor:
        low = LOWEST_HZ + self.low_hz_.abs()
        high = (low + NARROWEST_HZ + self.band_hz_.abs()).clamp(LOWEST_HZ, RATE / 2)
        band = 2 * (high - low)
        below, above = low * self.n_, high * self.n_
        scale = self.window_ / (self.n_ / 2)
        even, odd = (above.sin() - below.sin()) * scale, (below.cos() - above.cos()) * scale
        cosine = torch.cat([even, band, even.flip(1)], dim=1)
        sine = torch.cat([odd, torch.zeros_like(band), -odd.flip(1)], dim=1)
        return (torch.cat([cosine, sine]) / torch.cat([band, band])).unsqueeze(1)


class SincLayer(nn.Module):
    """Strength of the sound in each filter; a layer of its own, as the weights name it."""

    def __init__(self) -> None:
        super().__init__()
        self.filterbank = SincFilters()

    def forward(self, wave: Tensor) -> Tensor:
        return self.filterbank(wave).abs()


class SincNet(nn.Module):
    """Sound -> features of 60 numbers, FRAME_STEP samples apart."""

    def __init__(self) -> None:
        super().__init__()
        self.wav_norm1d = nn.InstanceNorm1d(1, affine=True)
        self.conv1d = nn.ModuleList([SincLayer(), nn.Conv1d(FILTERS, 60, 5), nn.Conv1d(60, 60, 5)])
        self.norm1d = nn.ModuleList([nn.InstanceNorm1d(size, affine=True) for size in (FILTERS, 60, 60)])

    def forward(self, wave: Tensor) -> Tensor:
        """(w, 1, samples) -> (w, 60, f)."""
        x = self.wav_norm1d(wave)
        for convolution, norm in zip(self.conv1d, self.norm1d, strict=True):
            x = functional.leaky_relu(norm(functional.max_pool1d(convolution(x), 3)))
        return x


class PyanNet(nn.Module):
    """The network of segmentation-3.0; names of its weights are pyannote's."""

    def __init__(self) -> None:
        super().__init__()
        self.sincnet = SincNet()
        self.lstm = nn.LSTM(60, 128, num_layers=4, bidirectional=True, batch_first=True)
        self.linear = nn.ModuleList([nn.Linear(256, 128), nn.Linear(128, 128)])
        self.classifier = nn.Linear(128, len(SETS))

    def forward(self, wave: Tensor) -> Tensor:
        """(w, 1, samples) at RATE -> (w, f, SETS) log probabilities."""
        x, _ = self.lstm(self.sincnet(wave).transpose(1, 2))
        for linear in self.linear:
            x = functional.leaky_relu(linear(x))
        return self.classifier(x).log_softmax(dim=-1)


class Segmentation:
    """Segmentation-3.0 with the weights of the package."""

    def __init__(self, device: torch.device, *, setting: str) -> None:
        self.device = device
        self.network = PyanNet()
        weights = carried(WEIGHTS, setting=setting)
        self.network.load_state_dict(weights.tensors)
        self.network.eval().to(device)
        self.revision = weights.revision

    def probabilities(self, wave: np.ndarray, *, step: int) -> Iterator[np.ndarray]:
        """Yield the (f, SETS) float32 probabilities of each window; window i begins at i * step.

        Args:
            wave: (samples,) float32 at RATE. What lies behind its end is silence to the network.
            step: Samples from one window to the next.
        """
        starts = range(0, step * window_count(len(wave), step), step)
        for at in range(0, len(starts), BATCH):
            batch = np.zeros((len(starts[at : at + BATCH]), 1, WINDOW), dtype=np.float32)
            for row, start in zip(batch, starts[at : at + BATCH], strict=True):
                part = wave[start : start + WINDOW]
                row[0, : len(part)] = part
            with torch.inference_mode():
                yield from self.network(torch.from_numpy(batch).to(self.device)).exp().cpu().numpy()


def window_count(samples: int, step: int) -> int:
    """Count the windows that a recording of `samples` is seen in: the last one reaches its end."""
    return max(1, math.ceil((samples - WINDOW) / step) + 1) if samples else 0
