"""ESResNeXt-FBSP, the audio network of AudioCLIP: a learnt spectrogram, ResNeXt-50 and attention gates.

    frames     1654 samples under a Blackman-Harris window, hop 561, zeros up to 2048; waves of int16 range
    w_f(n)   = sqrt(fb_f) sinc(fb_f t_n / (m_f + eps))^m_f exp(-i fc_f t_n) / sqrt(2048)
               t = pi linspace(-1, 1, 2048), sinc(x) = sin(x) / x; m = 0, fb = 1, fc = f at the start
    image      10 log10(max(|X w|^2, 1e-18)), the first 1023 bins as 3 channels of 341
    gate k     y_k = layer_k(x) sigmoid(BN(PW(DW(AMP(x)))))     AMP: adaptive max pool to the size of layer_k(x)
    L_ttf    = mean_f(||w_f||_2 - 1)^2

The power of a negative sinc is complex: |s|^m exp(i pi m). Gradients of m, fb and fc are divided by their
largest magnitude. Names of the layers are those of the released checkpoint (AndreyGuzhov/AudioCLIP, MIT).
Ours: the window is in the middle of the 2048 samples.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.signal.windows import blackmanharris
from torch import Tensor, nn
from torch.nn import functional as F

from fsclap.files import written_aside
from fsclap.model.systems.published import count, sized
from fsclap.model.tokens import Tokens

RATE, SECONDS = 44_100, 5
INT16 = 32_768
BANDS = 3
EPS = 1e-8
FILE = "esresnext.json"
GATES = ((3, 1), (1, 5), (3, 1), (1, 5), (3, 5))
"""Kernels of the gates over frequency and time."""


class Sizes(NamedTuple):
    """Sizes of the network; the defaults are those of the release."""

    bins: int = 1025
    window: int = 1654
    hop: int = 561
    stem: int = 64
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    groups: int = 32

    @property
    def fft(self) -> int:
        return 2 * (self.bins - 1)


class Fbsp(nn.Module):
    """Frequency B-spline wavelets as a learnt short-time transform."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.zeros(bins))
        self.fb = nn.Parameter(torch.ones(bins))
        self.fc = nn.Parameter(torch.arange(bins, dtype=torch.get_default_dtype()))
        for parameter in (self.m, self.fb, self.fc):
            parameter.register_hook(lambda gradient: gradient / (gradient.abs().max() + EPS))

    def wavelets(self, length: int) -> tuple[Tensor, Tensor]:
        """Compute w_f(n): real and imaginary part, (bins, length) each."""
        t = math.pi * torch.linspace(-1, 1, length, device=self.m.device, dtype=self.m.dtype) + EPS
        m, fb, fc = (x[:, None] for x in (self.m, self.fb, self.fc))
        x = fb * t / (m + EPS)
        sinc = torch.where(x == 0, torch.ones_like(x), torch.sin(x) / x)
        size = fb.sqrt() * sinc.square().clamp(min=1e-30) ** (0.5 * m) / math.sqrt(length)
        phase = m * math.pi * (sinc < 0) - fc * t
        return size * torch.cos(phase), size * torch.sin(phase)

    def forward(self, frames: Tensor) -> Tensor:
        """(..., length) -> (..., bins) power."""
        real, imaginary = self.wavelets(frames.shape[-1])
        return F.linear(frames, real).square() + F.linear(frames, imaginary).square()

    def loss(self, length: int) -> Tensor:
        """Compute L_ttf: wavelets keep the energy; 0 at the start."""
        real, imaginary = self.wavelets(length)
        return ((real.square() + imaginary.square()).sum(dim=1).sqrt() - 1).square().mean()


class Gate(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv_depth = nn.Conv2d(inputs, inputs, kernel, padding=padding, groups=inputs)
        self.conv_point = nn.Conv2d(inputs, outputs, 1)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        pooled = F.adaptive_max_pool2d(x, [size[-2], size[-1]])
        return torch.sigmoid(self.bn(self.conv_point(self.conv_depth(pooled))))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, outputs: int, groups: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)))))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class EsresnextTokens(nn.Module):
    """One token of a clip, before the last layer of the network. Features are 5 s of samples."""

    frozen = False
    context: tuple[str, ...] = ()
    sample_rate = RATE
    revision = "wave-int16-5s-1"

    window: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes, self.max_frames = sizes, SECONDS * RATE
        self.register_buffer("window", torch.tensor(blackmanharris(sizes.window, sym=False), dtype=torch.float32))
        self.fbsp = Fbsp(sizes.bins)
        self.conv1 = nn.Conv2d(BANDS, sizes.stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(sizes.stem)
        inputs = sizes.stem
        for at, blocks in enumerate(sizes.blocks):
            width, outputs = 2 * sizes.stem * 2**at, 4 * sizes.stem * 2**at
            first = Bottleneck(inputs, width, outputs, sizes.groups, stride=1 if at == 0 else 2)
            rest = [Bottleneck(outputs, width, outputs, sizes.groups, stride=1) for _ in range(blocks - 1)]
            self.add_module(f"layer{at + 1}", nn.Sequential(first, *rest))
            self.add_module(f"att{at + 1}", Gate(inputs, outputs, GATES[at]))
            inputs = outputs
        self.att5 = Gate(inputs, inputs, GATES[4])
        self.dim = inputs

    def features(self, wave: np.ndarray) -> np.ndarray:
        """Put a shorter clip in the middle of 5 s of silence: (samples,) float32 -> (T, 1) float32."""
        short = max(0, SECONDS * RATE - len(wave))
        return np.pad(wave.astype(np.float32), (short // 2, short - short // 2))[:, None]

    def spectrogram(self, wave: Tensor) -> Tensor:
        """Compute the image: (B, samples) of -1 to 1 -> (B, 3, bins // 3, frames)."""
        sizes = self.sizes
        wave = (wave * INT16 + INT16) / (2 * INT16 - 1) * 2 - 1  # as the released network scales int16
        frames = 1 + math.ceil(max(0, wave.shape[1] - sizes.window) / sizes.hop)
        missing = (frames - 1) * sizes.hop + sizes.window - wave.shape[1]
        wave = F.pad(wave, (missing // 2, missing - missing // 2))
        framed = wave.unfold(1, sizes.window, sizes.hop) * self.window
        around = sizes.fft - sizes.window
        power = self.fbsp(F.pad(framed, (around // 2, around - around // 2)))  # (B, frames, bins)
        bins = sizes.bins // BANDS * BANDS
        image = power[..., :bins].transpose(1, 2).reshape(len(wave), BANDS, bins // BANDS, -1)
        return 10 * torch.log10(image.clamp(min=1e-18))

    def forward(self, features: Tokens) -> Tokens:
        """(B, samples, 1) -> (B, 1, C)."""
        x = F.relu(self.bn1(self.conv1(self.spectrogram(features.values[..., 0]))))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for at in range(1, len(self.sizes.blocks) + 1):
            layer = self.get_submodule(f"layer{at}")(x)
            x = layer * self.get_submodule(f"att{at}")(x, layer.shape)
        pooled = F.adaptive_avg_pool2d(x, 1)
        token = (pooled * self.att5(x, pooled.shape)).flatten(1)[:, None]
        return Tokens(token, torch.ones(token.shape[:2], dtype=torch.bool, device=token.device))

    def save_assets(self, folder: Path) -> None:
        """Save the sizes next to the weights."""
        with written_aside(folder / FILE) as part:
            part.write_text(json.dumps(self.sizes._asdict()) + "\n", encoding="utf-8")


def saved_sizes(values: Mapping[str, Any]) -> Sizes:
    """Read what `save_assets` wrote."""
    return Sizes(**dict(values) | {"blocks": tuple(values["blocks"])})


def sizes_of(state: Mapping[str, Tensor], file: str) -> Sizes:
    """Derive the sizes from the tensors of a checkpoint."""
    grouped = sized(state, "layer1.0.conv2.weight", file)
    return Sizes(
        bins=sized(state, "fbsp.m", file)[0],
        window=sized(state, "window", file)[0],
        stem=sized(state, "conv1.weight", file)[0],
        blocks=tuple(count(state, rf"layer{at}\.(\d+)\.") for at in range(1, 5)),
        groups=grouped[0] // grouped[1],
    )
