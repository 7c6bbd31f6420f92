"""Recordings to search with: decoded, and embedded whatever their length."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fsclap import Hertz, Seconds
from fsclap.audio import resample
from fsclap.data.clips import MIN_CLIP
from fsclap.media import DecodeSettings, decode
from fsclap.model.systems import System
from fsclap.refusal import Refused
from fsclap.retrieval.index import SearchError

MAX_RECORDING: Seconds = 60.0
"""A longer recording can't be searched with."""
MAX_RECORDING_BYTES = 20_000_000
"""A larger file can't be searched with: a minute of sound, or a short video."""
# Short, so that a hostile upload can't occupy the page for long.
_DECODE_TIMEOUT: Seconds = 30.0


def embedded(model: System, wave: np.ndarray, sample_rate: Hertz) -> np.ndarray:
    """Embed a wave, (samples,) float32, as (embedding,).

    A wave that is longer than the encoder takes at once is embedded in windows that overlap, one after
    another: the vector is their mean, of unit norm.

    Raises:
        SearchError: The wave is too short, or has samples that are not finite.
    """
    if wave.ndim != 1 or len(wave) < MIN_CLIP * sample_rate or not np.isfinite(wave).all():
        raise SearchError(f"the clip must be mono, have finite samples and last at least {MIN_CLIP:g} s")
    wave = resample(wave, sample_rate, model.audio_encoder.sample_rate)
    total = sum(model.embed_audio_features([part])[0].cpu().numpy() for part in _windows(model, wave))
    return np.asarray(total / np.linalg.norm(total), dtype=np.float32)


def _windows(model: System, wave: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the features of a wave at the encoder's rate, in as few windows as cover it."""
    encoder = model.audio_encoder
    features = encoder.features(wave)
    if len(features) <= encoder.max_frames:
        yield features
        return
    # The sound is cut, not its features: some of these depend on the whole clip.
    span = len(wave) * encoder.max_frames // len(features)
    for start in np.linspace(0, len(wave) - span, -(-len(wave) // span)).round().astype(int):
        yield model.audio_features(wave[start : start + span])


def decoded(file: Path, sample_rate: Hertz) -> np.ndarray:
    """Decode a file with sound, of the audio track that a player takes: (samples,) float32, mono.

    Raises:
        SearchError: The file has more than MAX_RECORDING_BYTES, lasts less than MIN_CLIP or more than
            MAX_RECORDING, is silent, or can't be decoded.
        OSError: The file can't be read.
    """
    if (size := file.stat().st_size) > MAX_RECORDING_BYTES:
        raise SearchError(too_large(file.name, size))
    settings = DecodeSettings(min_duration=MIN_CLIP, max_duration=MAX_RECORDING, timeout=_DECODE_TIMEOUT)
    with tempfile.TemporaryDirectory() as folder:
        try:
            return decode(file, Path(folder) / "wave", sample_rate=sample_rate, settings=settings).mean(axis=0)
        except Refused as refused:
            raise SearchError(_refusal(file.name, refused)) from refused


def too_large(name: str, size: int) -> str:
    """Word the refusal of a file of `size` bytes, more than MAX_RECORDING_BYTES."""
    limit = MAX_RECORDING_BYTES / 1e6
    return f"{name} has {size / 1e6:.1f} MB; the limit is {limit:.0f} MB. Cut it, or use only its sound."


def _refusal(name: str, refused: Refused) -> str:
    if refused.reason == "too_long":
        return f"{name} is too long: a recording to search with lasts at most {MAX_RECORDING:g} s. Cut it first."
    if refused.reason == "too_short":
        return f"{name} is too short: a recording to search with lasts at least {MIN_CLIP:g} s."
    return refused.detail
