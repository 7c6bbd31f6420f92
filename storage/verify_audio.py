"""Is a clip of the corpus whole, and what its row says it is?"""

import hashlib
import io

import numpy as np
import soundfile

_MD5 = slice(26, 42)
"""Where a FLAC file holds the MD5 of its samples: the end of STREAMINFO, which comes first (RFC 9639, 8.2)."""

_BITS = {"PCM_S8": 8, "PCM_16": 16, "PCM_24": 24}
_SLACK = 0.02  # seconds that a clip may differ from its row: a turn may end between two samples, or at the file's end


def audio_problem(data: bytes | None, *, sample_rate: int, duration: float) -> str | None:
    """What is wrong with the FLAC file of an utterance; None when nothing is.

    Args:
        data: The file.
        sample_rate, duration: What the row says, in hertz and seconds.
    """
    if not data:
        return "has no sound"
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            kind, rate, channels, subtype = file.format, file.samplerate, file.channels, file.subtype
            samples = file.read(dtype="int32", always_2d=True)
    except soundfile.LibsndfileError as error:
        return f"cannot be decoded: {error.error_string}"
    if kind != "FLAC" or subtype not in _BITS or channels != 1:
        return f"is {kind} {subtype} with {channels} channels, not mono FLAC"
    if data[_MD5] != bytes(16) and data[_MD5] != _md5(samples, bits=_BITS[subtype]):
        return "does not decode to the samples that were encoded: its MD5 is another"
    if rate != sample_rate:
        return f"has {rate} Hz, sample_rate is {sample_rate}"
    if abs(len(samples) / rate - duration) > _SLACK:
        return f"lasts {len(samples) / rate:.3f} s, duration is {duration:.3f}"
    return None


def _md5(samples: np.ndarray, *, bits: int) -> bytes:
    """The digest of (samples, channels) int32, whose values lie in the upper bits, as FLAC makes it."""
    whole = (samples >> (32 - bits)).astype("<i4")
    packed = whole.view(np.uint8).reshape(-1, 4)[:, : bits // 8]
    return hashlib.md5(packed.tobytes(), usedforsecurity=False).digest()
