"""Sample recordings, decoded once for all tests of the corpus."""

from pathlib import Path

import numpy as np
import pytest

from fsclap.media import DecodeSettings, decode


@pytest.fixture(scope="session")
def dry_stereo(dry_episode: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """(2, samples) at 44.1 kHz: an episode without music, as a read-only memory map."""
    raw = tmp_path_factory.mktemp("dry") / "44100.f32"
    return decode(dry_episode, raw, sample_rate=44_100, settings=DecodeSettings())


@pytest.fixture(scope="session")
def dry_mono(dry_episode: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """(samples,) at 16 kHz: the same episode."""
    raw = tmp_path_factory.mktemp("dry") / "16000.f32"
    wave = np.array(decode(dry_episode, raw, sample_rate=16_000, settings=DecodeSettings()).mean(axis=0))
    wave.setflags(write=False)
    return wave
