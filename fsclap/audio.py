"""Waves: FLAC and back, a stretch of a file, memory maps, one sample rate to another."""

import io
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from fsclap import Hertz, Seconds

SAMPLE_TYPE = np.dtype("<f4")
"""Samples of waves on disk: little-endian float32."""
BLOCK: Seconds = 30.0
"""How much of a wave is in memory at once where it is resampled from disk to disk."""


def sample_index(seconds: Seconds, sample_rate: Hertz) -> int:
    """Return the sample nearest to a position, halves rounded up: the one rounding rule."""
    return math.floor(seconds * sample_rate + 0.5)


def resample(wave: np.ndarray, from_rate: Hertz, to_rate: Hertz) -> np.ndarray:
    """Resample (samples,) or (channels, samples) float32 along the last axis, with soxr."""
    if from_rate == to_rate:
        return wave
    return soxr.resample(wave.T, from_rate, to_rate, quality="HQ").T


def encode_flac(wave: np.ndarray, sample_rate: Hertz) -> bytes:
    """Encode a mono wave as a 16-bit FLAC file.

    Args:
        wave: (samples,) float32. One that passes full scale anywhere is attenuated as a whole until
            its peak is 1, since clipping would change how the voice sounds; any other keeps its
            level.
        sample_rate: Hertz.

    Raises:
        ValueError: Not (samples,), or empty.
    """
    if wave.ndim != 1 or not wave.size:
        raise ValueError(f"expected a wave of shape (samples,) with at least one sample, got {wave.shape}")
    buffer = io.BytesIO()
    soundfile.write(buffer, _fitting(wave, _peak([wave])), sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def decode_flac(data: bytes) -> tuple[np.ndarray, Hertz]:
    """Decode what `encode_flac` wrote: (samples,) float32 in [-1, 1], and the rate in hertz.

    Raises:
        ValueError: The bytes are not audio, or not mono.
    """
    try:
        wave, sample_rate = soundfile.read(io.BytesIO(data), dtype="float32")
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{len(data)} bytes are not a readable FLAC file: {error.error_string}") from error
    if wave.ndim != 1:
        raise ValueError(f"expected a mono FLAC file, got one with {wave.shape[1]} channels")
    return wave, sample_rate


def write_flac(path: Path, wave: np.ndarray, *, sample_rate: Hertz, to_rate: Hertz, gain: float = 1.0) -> None:
    """Write a long mono wave to a 16-bit FLAC file at another rate, a block at a time.

    Args:
        path: Overwritten.
        wave: (samples,) float32, or a memory map of it. Attenuated as `encode_flac` does; where
            resampling overshoots full scale by a little, that sample is clipped.
        sample_rate: Rate of `wave` in hertz.
        to_rate: Rate of the file in hertz.
        gain: Factor of every sample, applied first.

    Raises:
        ValueError: Not (samples,), or empty.
    """
    if wave.ndim != 1 or not wave.size:
        raise ValueError(f"expected a wave of shape (samples,) with at least one sample, got {wave.shape}")
    peak = _peak(_blocks(wave, sample_rate)) * gain
    with soundfile.SoundFile(path, "w", samplerate=to_rate, channels=1, format="FLAC", subtype="PCM_16") as out:
        scaled = (_fitting(block * np.float32(gain), peak) for block in _blocks(wave, sample_rate))
        for block in resampled(scaled, sample_rate, to_rate):
            out.write(block.clip(-1, 1))


def read_wave(
    path: Path, *, sample_rate: Hertz | None = None, start: Seconds | None = None, end: Seconds | None = None
) -> tuple[np.ndarray, Hertz]:
    """Read a stretch of a WAV, FLAC or Ogg file as mono.

    Args:
        path: The file; several channels are averaged.
        sample_rate: Resample to this rate; None keeps the file's.
        start: Position in the file; None: its beginning.
        end: Position in the file; None, or past its end: its end.

    Returns:
        (samples,) float32 and its rate in hertz.

    Raises:
        ValueError: The stretch is empty or begins past the end.
    """
    with soundfile.SoundFile(path) as file:
        first = sample_index(start or 0.0, file.samplerate)
        last = file.frames if end is None else min(sample_index(end, file.samplerate), file.frames)
        if not 0 <= first < last:
            raise ValueError(f"{path}: no sound from {start} to {end} s in {file.frames / file.samplerate:.3f} s")
        file.seek(first)
        wave = file.read(last - first, dtype="float32", always_2d=True).mean(axis=1)
        rate = file.samplerate
    return (wave, rate) if sample_rate is None else (resample(wave, rate, sample_rate), sample_rate)


def map_wave(path: Path, destination: Path, *, sample_rate: Hertz) -> np.ndarray:
    """Map a WAV, FLAC or Ogg file of any length as mono samples at another rate.

    Args:
        path: The file; several channels are averaged.
        destination: Overwritten with raw little-endian float32.
        sample_rate: Of the result, in hertz.

    Returns:
        (samples,) float32, read-only.

    Raises:
        ValueError: The file holds no sample.
    """
    with soundfile.SoundFile(path) as file, destination.open("wb") as out:
        blocks = file.blocks(sample_index(BLOCK, file.samplerate), dtype="float32", always_2d=True)
        for block in resampled((block.mean(axis=1) for block in blocks), file.samplerate, sample_rate):
            out.write(block.astype(SAMPLE_TYPE, copy=False).tobytes())
    if destination.stat().st_size == 0:
        raise ValueError(f"{path} holds no sound")
    return np.memmap(destination, dtype=SAMPLE_TYPE, mode="r")


def new_map(destination: Path, samples: int) -> np.ndarray:
    """Create a memory map of silence, (samples,) float32, to write a wave into; `samples` >= 1."""
    return np.memmap(destination, dtype=SAMPLE_TYPE, mode="w+", shape=(samples,))


def _blocks(wave: np.ndarray, sample_rate: Hertz) -> Iterator[np.ndarray]:
    step = sample_index(BLOCK, sample_rate)
    return (np.asarray(wave[at : at + step], dtype=np.float32) for at in range(0, len(wave), step))


def resampled(blocks: Iterable[np.ndarray], from_rate: Hertz, to_rate: Hertz) -> Iterator[np.ndarray]:
    """Resample a stream of (samples,) or (samples, 2) float32 blocks as if it were one."""
    if from_rate == to_rate:
        yield from blocks
        return
    stream = None
    for block in blocks:
        if stream is None:
            channels = 1 if block.ndim == 1 else block.shape[1]
            stream = soxr.ResampleStream(from_rate, to_rate, channels, dtype="float32", quality="HQ")
            empty = block[:0]
        yield stream.resample_chunk(block)
    if stream is not None:
        yield stream.resample_chunk(empty, last=True)


def _peak(blocks: Iterable[np.ndarray]) -> float:
    return max(float(np.abs(block).max()) for block in blocks)


def _fitting(wave: np.ndarray, peak: float) -> np.ndarray:
    return wave / np.float32(peak) if peak > 1 else wave
