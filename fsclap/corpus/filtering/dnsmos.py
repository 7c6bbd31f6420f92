"""DNSMOS P.835: predicts how listeners would rate a voice, its background and the whole.

Source: Reddy, Gopal, Cutler, "DNSMOS P.835: A non-intrusive perceptual objective speech quality
metric to evaluate noise suppressors", ICASSP 2022 (arXiv:2110.01763). The wheel `speechmos` (MIT,
by the authors) carries the weights.
They are read here without importing it: its own code rates one stretch at a time on all cores, runs
a second network (P.808) whose figure is not used, and never ends on an empty clip. What it
computes is kept to the letter: a clip is doubled until it fills 9.01 s, rated every second, and the
ratings are averaged.
"""

import hashlib
import importlib.metadata
from collections.abc import Iterator, Sequence

import numpy as np
import onnxruntime

from fsclap import Hertz, Seconds
from fsclap.corpus.filtering.quality import Quality
from fsclap.weights import packaged

RATE: Hertz = 16_000
STRETCH: Seconds = 9.01
SAMPLES = 144_160
"""Samples of a stretch, the only length that the network takes."""
POLYNOMIALS = (
    np.polynomial.Polynomial([0.0052439, 1.22083953, -0.08397278]),
    np.polynomial.Polynomial([-0.39604546, 1.60915514, -0.13166888]),
    np.polynomial.Polynomial([0.04602535, 1.11546468, -0.06766283]),
)
"""From the network's outputs for signal, background and overall to the scale of listeners, as in
the package."""


class DnsmosScorer:
    """A `Scorer` (see fsclap.corpus.filtering.quality).

    Args:
        threads: That the network runs on.

    Raises:
        WeightsError: The weights are not installed.
    """

    name = "dnsmos"
    sample_rate = RATE

    def __init__(self, *, threads: int) -> None:
        path = packaged("speechmos", "dnsmos_models/sig_bak_ovr.onnx", setting="quality.engine=dnsmos")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.revision = f"speechmos-{importlib.metadata.version('speechmos')}-{digest[:12]}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._network = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def score(self, clips: Sequence[np.ndarray]) -> Iterator[Quality]:
        """See `Scorer`; memory does not grow with the number of clips."""
        for number, clip in enumerate(clips):
            if clip.ndim != 1 or not len(clip) or not np.isfinite(clip).all():
                raise ValueError(
                    f"clip {number} of shape {clip.shape}: expected (samples,), at least one, all of them finite"
                )
        for clip in clips:
            signal, background, overall = np.mean([self._rating(stretch) for stretch in _stretches(clip)], axis=0)
            yield Quality(float(overall), float(signal), float(background))

    def _rating(self, stretch: np.ndarray) -> list[float]:
        """Rate signal, background and overall.

        One stretch at a time: on a CPU, 16 together take half as long again per stretch, and 85 MB
            each.
        """
        raw = self._network.run(None, {"input_1": stretch[np.newaxis]})[0][0]
        return [scale(value) for scale, value in zip(POLYNOMIALS, raw, strict=True)]


def _stretches(clip: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the (SAMPLES,) float32 stretches of a clip."""
    wave = np.asarray(clip, dtype=np.float32)
    wave = wave / max(1.0, float(np.abs(wave).max()))
    wave = np.tile(wave, _doubled(len(wave)) // len(wave))
    for start in _starts(len(clip)):
        yield wave[start : start + SAMPLES]


def _doubled(samples: int) -> int:
    """Length of a clip that was doubled until it fills a stretch."""
    while samples < SAMPLES:
        samples *= 2
    return samples


def _starts(samples: int) -> list[int]:
    """Return the first sample of each stretch of a clip.

    The package cuts at (second + 9.01) * rate in floating point, and leaves out a stretch that
    comes out a sample short by it; so does this.
    """
    length = _doubled(samples)
    seconds = range(int(length // RATE - STRETCH) + 1)
    ends = [min(int((second + STRETCH) * RATE), length) for second in seconds]
    return [second * RATE for second, end in zip(seconds, ends, strict=True) if end - second * RATE >= SAMPLES]
