"""Checks that a clip is a complete FLAC file of the rate and length in its row."""

import hashlib
import io

import numpy as np
import soundfile

# The MD5 of the samples in a FLAC file: the end of STREAMINFO, which comes first (RFC 9639, section
# 8.2).
_MD5 = slice(26, 42)
_BITS = {"PCM_S8": 8, "PCM_16": 16, "PCM_24": 24}
_SLACK = 0.02  # seconds: a turn may end between two samples, or at the end of the file


def audio_problem(data: bytes | None, *, sample_rate: int, duration: float) -> str | None:
    """Describe the fault of a clip, as the end of a sentence about it; None for a sound one.

    Args:
        data: The FLAC file.
        sample_rate: In hertz, from the row.
        duration: In seconds, from the row.
    """
    if not data:
        return "has no audio"
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            kind, rate, channels, subtype = file.format, file.samplerate, file.channels, file.subtype
            samples = file.read(dtype="int32", always_2d=True)
    except soundfile.LibsndfileError as error:
        return f"cannot be decoded: {error.error_string}"
    if kind != "FLAC" or subtype not in _BITS or channels != 1:
        return f"is {kind} {subtype} with {channels} channels, not mono FLAC"
    if data[_MD5] != bytes(16) and data[_MD5] != _md5(samples, bits=_BITS[subtype]):
        return "does not decode to the samples that were encoded: their MD5 differs"
    if rate != sample_rate:
        return f"has {rate} Hz, sample_rate is {sample_rate}"
    if abs(len(samples) / rate - duration) > _SLACK:
        return f"lasts {len(samples) / rate:.3f} s, duration is {duration:.3f}"
    return None


def _md5(samples: np.ndarray, *, bits: int) -> bytes:
    """Compute the MD5 of (samples, channels) int32 with left-aligned values as FLAC does."""
    whole = (samples >> (32 - bits)).astype("<i4")
    packed = whole.view(np.uint8).reshape(-1, 4)[:, : bits // 8]
    return hashlib.md5(packed.tobytes(), usedforsecurity=False).digest()
