"""Fingerprints of decoded sound: the same talk as video and as sound has other bytes, and nearly the same bits.

After Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System" (ISMIR 2002): a bit says whether
the difference in energy of two neighbouring bands grew since the frame before. Coding changes few of
them, whatever the format. Three stretches of a recording are kept, so that a common jingle makes no twins.
"""

import numpy as np
import soxr

from fsclap import Hertz, Seconds

STRETCHES, LENGTH = 3, 15.0
"""How many stretches of a recording are kept, around its quarters, and how long each is in seconds."""
HOP, WINDOW = 0.1, 0.4
FRAMES = round(LENGTH / HOP)
BANDS = np.geomspace(300, 3000, 34)
"""Edges of 33 bands in hertz, whose 32 differences are the bits of a frame."""
RATE: Hertz = 8000
SHORTEST: Seconds = 10.0
"""A shorter recording, such as one sentence, has too few bits to be told from another."""
SLACK: Seconds = 8.0
"""How far the two may be shifted: a video often starts later than its sound."""
SAME = 0.35
"""Share of bits that may differ, at the best shift. Coding changed up to 0.14 of those of the samples, cutting
three seconds off the start 0.26; strangers differ in 0.43 or more."""
SILENCE = 1e-5


def fingerprint(wave: np.ndarray, sample_rate: Hertz) -> np.ndarray:
    """Compute the fingerprint of a recording.

    Args:
        wave: (channels, samples) float32; may be a memory map.
        sample_rate: In hertz.

    Returns:
        (STRETCHES, FRAMES) uint32. A stretch without sound is 0, and so is all of a recording that is
        shorter than SHORTEST.
    """
    bits = np.zeros((STRETCHES, FRAMES), np.uint32)
    samples = wave.shape[1]
    if samples < SHORTEST * sample_rate:
        return bits
    length = min(samples, round((LENGTH + WINDOW + HOP) * sample_rate))
    for number in range(STRETCHES):
        center = samples * (number + 1) // (STRETCHES + 1)
        start = min(max(0, center - length // 2), samples - length)
        found = _bits(wave[:, start : start + length], sample_rate)[:FRAMES]
        bits[number, : len(found)] = found
    return bits


def to_text(bits: np.ndarray) -> str:
    """Write a fingerprint as a line of hexadecimal digits."""
    return bits.astype("<u4").tobytes().hex()


def from_text(text: str) -> np.ndarray:
    """Read what `to_text` wrote."""
    return np.frombuffer(bytes.fromhex(text), "<u4").reshape(STRETCHES, FRAMES)


def same_sound(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compare a fingerprint with others: which are of the same sound.

    Args:
        one: (STRETCHES, FRAMES) uint32.
        others: (n, STRETCHES, FRAMES) uint32.

    Returns:
        (n,) bool. Every stretch that has sound in both must agree, and one must have it.
    """
    same = np.ones(len(others), bool)
    compared = np.zeros(len(others), bool)
    for number in range(STRETCHES):
        left, right = one[number], np.flatnonzero(same)
        both = right[others[right, number].any(axis=1)] if left.any() else right[:0]
        same[both] = _distances(left, others[both, number]) <= SAME
        compared[both] = True
    return same & compared


def _bits(wave: np.ndarray, sample_rate: Hertz) -> np.ndarray:
    """(frames,) uint32; none without sound."""
    # Energies are added up over the channels: opposite phases would cancel in their mean.
    channels = [soxr.resample(channel, sample_rate, RATE) for channel in np.asarray(wave, np.float32)]
    if max(float(np.abs(channel).max(initial=0)) for channel in channels) < SILENCE:
        return np.zeros(0, np.uint32)
    size, hop = round(WINDOW * RATE), round(HOP * RATE)
    edges = np.searchsorted(np.fft.rfftfreq(size, 1 / RATE), BANDS)
    energy = sum(_band_energies(channel, size, hop, edges) for channel in channels)
    difference = np.diff(np.log(energy + 1e-12), axis=1)
    grown = np.diff(difference, axis=0) > 0
    return grown @ (np.uint32(1) << np.arange(32, dtype=np.uint32))


def _band_energies(channel: np.ndarray, size: int, hop: int, edges: np.ndarray) -> np.ndarray:
    """(frames, 33) energies."""
    frames = np.lib.stride_tricks.sliding_window_view(channel, size)[::hop] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    return np.add.reduceat(power, edges, axis=1)[:, : len(edges) - 1]


def _distances(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of differing bits, (n,), at the best shift."""
    best = np.ones(len(others))
    most = round(SLACK / HOP)
    for shift in range(-most, most + 1):
        left = one[max(0, shift) : FRAMES + min(0, shift)]
        right = others[:, max(0, -shift) : FRAMES - max(0, shift)]
        counts = np.bitwise_count(left ^ right).sum(axis=1)
        best = np.minimum(best, counts / (32 * left.size))
    return best
