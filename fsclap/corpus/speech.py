"""Where a recording holds speech: Silero VAD v6 from faster-whisper, a block at a time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from fsclap import Hertz, Seconds

RATE: Hertz = 16_000
"""The rate that the detector works at."""
BLOCK = 600 * RATE
"""Samples that the detector sees at once, which bounds its memory."""

PROBABILITY_STEP = 512
"""Samples from one probability of the detector to the next: 32 ms."""


@dataclass(frozen=True, slots=True)
class Span:
    """Samples from `start` up to `end`."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def center(self) -> float:
        return (self.start + self.end) / 2

    def shifted(self, samples: int) -> "Span":
        return Span(self.start + samples, self.end + samples)


@dataclass(frozen=True, slots=True)
class Detection:
    """How speech is told apart from the rest.

    Attributes:
        onset: Speech probability that starts a stretch.
        offset: Speech probability below which it ends.
        pad: Added on both sides of a stretch.
        shortest: Shorter stretches are dropped.
        longest: Longer stretches are cut at a pause, or where they are when they have none.
        silence: Shorter pauses belong to the stretch around them.
    """

    onset: float
    offset: float
    pad: Seconds
    shortest: Seconds
    longest: Seconds
    silence: Seconds


def find_speech_in_blocks(blocks: Iterable[np.ndarray], detection: Detection) -> list[Span]:
    """Stretches of speech in a recording that comes a block at a time, in order.

    The detector starts again with every block, so speech that runs across the end of one comes as
    two stretches that touch or nearly do.

    Args:
        blocks: (samples,) at RATE each; together the recording. One second of a block takes 0.3 MB
            of memory.
        detection: Thresholds and lengths.

    Returns:
        Samples of the whole recording.
    """
    return list(_stretches(blocks, detection))


def _stretches(blocks: Iterable[np.ndarray], detection: Detection) -> Iterator[Span]:
    # Imported here: it loads a runtime that reading the settings should not.
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    options = VadOptions(
        threshold=detection.onset,
        neg_threshold=detection.offset,
        min_speech_duration_ms=int(1000 * detection.shortest),
        max_speech_duration_s=detection.longest,
        min_silence_duration_ms=int(1000 * detection.silence),
        speech_pad_ms=int(1000 * detection.pad),
    )
    start = 0
    for block in blocks:
        wave = np.ascontiguousarray(block, dtype=np.float32)
        for found in get_speech_timestamps(wave, options, sampling_rate=RATE):
            yield Span(start + found["start"], start + found["end"])
        start += len(wave)


def speech_probability(wave: np.ndarray) -> np.ndarray:
    """Probability of speech every PROBABILITY_STEP samples of a wave, (samples,) at RATE."""
    # Imported here: see `_stretches`.
    from faster_whisper.vad import get_vad_model

    model = get_vad_model()
    blocks = (wave[at : at + BLOCK] for at in range(0, len(wave), BLOCK))
    padded = (np.pad(block, (0, -len(block) % PROBABILITY_STEP)).astype(np.float32) for block in blocks)
    return np.concatenate([np.zeros(0, dtype=np.float32), *(np.ravel(model(block)) for block in padded)])
