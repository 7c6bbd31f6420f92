"""The same talk is known in another format and with another start; another talk is not taken for it."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from fsclap.corpus.fingerprint import FRAMES, SHORTEST, STRETCHES, fingerprint, from_text, same_sound, to_text
from fsclap.ffmpeg import ffmpeg_binary
from fsclap.media import DecodeSettings, decode
from harness.samples import sample_episodes
from storage.sounds import SHAPE

RATE = 16_000


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """A talk, the same in other formats, and another talk: (2, samples) each."""
    folder = tmp_path_factory.mktemp("formats")
    talk, other = sample_episodes()[:2]
    files = {"talk": talk, "other": other}
    for name, options in {
        "talk.mp3": ["-b:a", "64k"],
        "talk.ogg": ["-c:a", "libopus", "-b:a", "24k"],
        "late.m4a": ["-af", "adelay=4000:all=1"],
    }.items():
        files[name] = folder / name
        subprocess.run([ffmpeg_binary(), "-v", "error", "-i", talk, "-vn", *options, files[name]], check=True)
    settings = DecodeSettings()
    return {
        name: decode(Path(file), folder / f"{name}.f32", sample_rate=RATE, settings=settings)
        for name, file in files.items()
    }


def test_a_talk_is_known_in_every_format_and_another_is_not(waves: dict[str, np.ndarray]) -> None:
    prints = {name: fingerprint(wave, RATE) for name, wave in waves.items()}
    everything = np.stack(list(prints.values()))
    for name, bits in prints.items():
        alike = {other for other, same in zip(prints, same_sound(bits, everything), strict=True) if same}
        assert alike == ({"other"} if name == "other" else prints.keys() - {"other"})


def test_opposite_phases_are_heard(waves: dict[str, np.ndarray]) -> None:
    left = waves["talk"][0]
    bits = fingerprint(np.stack([left, -left]), RATE)
    assert same_sound(bits, fingerprint(waves["talk"], RATE)[None]).tolist() == [True]


def test_what_is_silent_or_short_is_like_nothing(waves: dict[str, np.ndarray]) -> None:
    silent = fingerprint(np.zeros((2, 30 * RATE), np.float32), RATE)
    short = fingerprint(waves["talk"][:, : int(SHORTEST * RATE) - 1], RATE)
    for bits in (silent, short):
        assert bits.shape == (STRETCHES, FRAMES) == SHAPE
        assert same_sound(bits, np.stack([silent, short, fingerprint(waves["talk"], RATE)])).tolist() == [False] * 3
    assert same_sound(short, np.zeros((0, *SHAPE), np.uint32)).tolist() == []


def test_a_fingerprint_is_a_line_of_text(waves: dict[str, np.ndarray]) -> None:
    bits = fingerprint(waves["talk"], RATE)
    np.testing.assert_array_equal(from_text(to_text(bits)), bits)
