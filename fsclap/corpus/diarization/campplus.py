"""Speaker embeddings from CAM++ (Wang et al. 2023, arXiv:2303.00332), the paper's embedder.

The network is FunASR's. The weights are 3D-Speaker's for Mandarin and English ("common advanced", 192
numbers), which come with this package.

Features are Kaldi's log mel energies of 80 bands, 25 ms every 10 ms, less their mean over what is
embedded.
"""

import itertools
from collections.abc import Iterable, Iterator

import kaldi_native_fbank
import numpy as np
import torch

from fsclap import Hertz
from fsclap.carried import carried
from fsclap.clustering import normalized
from fsclap.corpus.funasr_weights import quiet

RATE: Hertz = 16_000
HOP = 160
"""Samples from one frame of features to the next."""
FRAME = 400
"""Samples of a frame."""
BANDS = 80
DIM = 192
LEAST = RATE // 5
"""Samples; in fewer there are too few frames to pool."""
GRID = 10 * HOP
"""Pieces are cut to a multiple of these samples, 0.1 s, so that some share a batch: the network has no
mask for padding."""
BATCH_FRAMES = 3_000
GROUP = 512
"""Pieces that are sorted by length together."""
WEIGHTS = "campplus-zh-en"


class CAMPlusPlus:
    """CAM++ with the weights of the package."""

    def __init__(self, device: torch.device, *, setting: str) -> None:
        with quiet():
            from funasr.models.campplus.model import CAMPPlus

        self.device = device
        self.network = CAMPPlus(feat_dim=BANDS, embedding_size=DIM)
        weights = carried(WEIGHTS, setting=setting)
        self.network.load_state_dict(weights.tensors)
        self.network.eval().to(device)
        self.revision = weights.revision

    def embed(self, waves: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Embed pieces of sound, those of similar length in one batch.

        Args:
            waves: (samples,) float32 at RATE each, at least LEAST long.

        Yields:
            (DIM,) float32 of unit norm for each, in order.
        """
        while group := list(itertools.islice(waves := iter(waves), GROUP)):
            vectors = np.empty((len(group), DIM), dtype=np.float32)
            features = [features_of(wave[spare(len(wave)) :]) for wave in group]
            order = sorted(range(len(group)), key=lambda number: len(features[number]))
            for frames, same in itertools.groupby(order, key=lambda number: len(features[number])):
                numbers = list(same)
                for at in range(0, len(numbers), max(1, BATCH_FRAMES // frames)):
                    batch = numbers[at : at + max(1, BATCH_FRAMES // frames)]
                    vectors[batch] = self._vectors(np.stack([features[number] for number in batch]))
            yield from vectors

    def _vectors(self, features: np.ndarray) -> np.ndarray:
        """(n, frames, BANDS) features -> (n, DIM) of unit norm."""
        centred = torch.from_numpy(features - features.mean(axis=1, keepdims=True))
        with torch.inference_mode():
            return normalized(self.network(centred.to(self.device)).float().cpu().numpy())


def spare(samples: int) -> int:
    """Count the samples to leave out at the start of a piece, so that many pieces have equally many frames."""
    return (samples - FRAME) % GRID if samples >= LEAST + GRID else 0


def features_of(wave: np.ndarray) -> np.ndarray:
    """Compute the features of a piece of sound.

    Args:
        wave: (samples,) float32 at RATE.

    Returns:
        (1 + (samples - FRAME) // HOP, BANDS) float32; none for less than one frame.
    """
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = BANDS
    options.mel_opts.debug_mel = False
    fbank = kaldi_native_fbank.OnlineFbank(options)
    fbank.accept_waveform(RATE, np.ascontiguousarray(wave, dtype=np.float32))
    fbank.input_finished()
    count = fbank.num_frames_ready
    return np.array([fbank.get_frame(i) for i in range(count)], dtype=np.float32).reshape(count, BANDS)
