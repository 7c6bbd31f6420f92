"""Engines that sleep: how many runs do their work is measured, not the work.

`sitecustomize` puts them in the place of the embedded engines where FSCLAP_SLEEP names the seconds that a recording
takes. Half of them go to separation, half to diarization. Sound and turns are made up, the same each time.
"""

import os
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # this module is loaded in every process of a stand, before the package is wanted
    from fsclap.corpus.diarization import base as diarization
    from fsclap.corpus.separation import base as separation
    from fsclap.corpus.turns import Diarized

SECONDS = float(os.environ.get("FSCLAP_SLEEP", "0")) / 2
TRIAL = 1.0
"""Length of the made-up sound that engines are tried on: nobody sleeps for that."""


def _sleep(samples: int, rate: int) -> None:
    if samples > TRIAL * rate * 1.01:
        time.sleep(SECONDS)


class Separator:
    name, revision, sample_rate = "spleeter", "asleep", 24_000

    def separate(self, mixtures: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        for mixture, output in zip(mixtures, outputs, strict=True):
            _sleep(len(output), self.sample_rate)
            output[:] = mixture.mean(axis=0)
            yield output


class Diarizer:
    name, revision, sample_rate = "whisper-campplus", "asleep", 16_000

    def diarize(self, recordings: Sequence[np.ndarray]) -> Iterator["Diarized"]:
        from fsclap.corpus.turns import Diarized, Turn

        voice = np.full(192, 192**-0.5, np.float32)
        for recording in recordings:
            _sleep(len(recording), self.sample_rate)
            middle = len(recording) / self.sample_rate / 2
            spans = ((0.0, middle), (middle, 2 * middle))
            yield Diarized([Turn(start, end, 0, "Made up.", "en", voice, 0.0) for start, end in spans], [])


if TYPE_CHECKING:  # they must stay what the stages expect
    _separator: separation.Separator = Separator()
    _diarizer: diarization.Diarizer = Diarizer()


def install(module: Any) -> None:
    """Replace the loader of a stage, once its package is loaded."""
    if module.__name__.endswith(".separation"):
        module.load_separator = lambda settings, device="cpu": Separator()
    else:
        module.load_diarizer = lambda settings, device="cpu": Diarizer()
