"""Media whose headers were damaged: a wave, or a refusal with its reason, within the time and the memory allowed."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fsclap.ffmpeg import ffmpeg_binary
from fsclap.media import DecodeSettings, decode
from fsclap.refusal import Refused
from tests.fuzz.mutations import damaged
from tests.properties import CASES

RATE = 16_000
SETTINGS = DecodeSettings(min_duration=0.1, max_duration=20, timeout=20)
REASONS = {
    "empty_file", "not_media", "no_audio_track", "truncated", "too_short", "too_long", "silent", "invalid_samples",
    "decode_timeout", "unreadable",
}  # fmt: skip
MEMORY = 2 << 30
"""Bytes of address space of the process that decodes: its libraries take a quarter of it."""
FORMATS = {
    "mp4": ["-c:a", "aac", "-c:v", "mpeg4"],
    "mkv": ["-c:a", "libvorbis", "-c:v", "mpeg4"],
    "webm": ["-c:a", "libopus", "-vn"],
    "wav": ["-vn"],
    "flac": ["-vn"],
    "ogg": ["-c:a", "libvorbis", "-vn"],
    "opus": ["-c:a", "libopus", "-vn"],
    "mp3": ["-vn"],
    "aac": ["-c:a", "aac", "-f", "adts", "-vn"],
    "avi": ["-c:a", "pcm_s16le", "-c:v", "mpeg4"],
}


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A second of a tone, and of a picture where the format has one, in each format."""
    folder = tmp_path_factory.mktemp("media")
    inputs = ["-f", "lavfi", "-i", "sine=440:duration=1:sample_rate=16000", "-f", "lavfi", "-i", "testsrc=64x48:5:1"]
    for name, options in FORMATS.items():
        command = [ffmpeg_binary(), "-v", "error", *inputs, *options, "-shortest", str(folder / f"clip.{name}")]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return {name: (folder / f"clip.{name}").read_bytes() for name in FORMATS}


def children() -> set[str]:
    """Process ids of what this process has started and what has not been reaped."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def decoded(media: bytes, folder: Path) -> str:
    """The reason of the refusal, or "decoded"."""
    path, destination = folder / "media", folder / "wave"
    path.write_bytes(media)
    before, threads = children(), threading.active_count()
    try:
        wave = decode(path, destination, sample_rate=RATE, settings=SETTINGS)
    except Refused as refused:
        return refused.reason
    finally:
        assert children() == before
        assert threading.active_count() <= threads + 1, "a timer that was cancelled may not have ended yet"
    assert wave.dtype == np.float32
    assert wave.shape[0] == 2
    assert 0 < wave.shape[1] <= RATE * (SETTINGS.max_duration + 1)
    assert np.isfinite(wave).all()
    return "decoded"


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_media_are_decoded_or_refused(media: dict[str, bytes], name: str, tmp_path: Path) -> None:
    assert decoded(media[name], tmp_path) == "decoded"
    found = {decoded(damaged(media[name], seed, header=600), tmp_path) for seed in range(max(2, CASES // 8))}
    assert found <= REASONS | {"decoded"}


def test_a_decoder_that_is_no_longer_needed_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "long"  # of a format that declares no length, so that it must be decoded to be too long
    tone = ["-f", "lavfi", "-i", "sine=440:duration=120:sample_rate=16000"]
    command = [ffmpeg_binary(), "-v", "error", *tone, "-c:a", "aac", "-f", "adts", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    assert decoded(path.read_bytes(), tmp_path) == "too_long"


def wav(*, rate: int, channels: int = 1, bits: int = 16, samples: int = 16_000) -> bytes:
    """A WAV file whose header says what it likes; rates beyond 32 bits wrap around."""
    data = (np.sin(np.arange(samples)) * 8000).astype("<i2").tobytes()
    frame = max(1, channels * bits // 8)

    def field(value: int, size: int) -> bytes:
        return (value % (1 << (8 * size))).to_bytes(size, "little")

    form = field(1, 2) + field(channels, 2) + field(rate, 4) + field(rate * frame, 4) + field(frame, 2) + field(bits, 2)
    body = b"WAVEfmt " + field(len(form), 4) + form + b"data" + field(len(data), 4) + data
    return b"RIFF" + field(len(body), 4) + body


NONSENSE = {"unreadable", "not_media"}
"""What becomes of a header that no sound has: which of the two depends on ffmpeg's version."""
HEADERS: list[tuple[dict[str, int], set[str]]] = [
    ({"rate": 16_000}, {"decoded"}),
    ({"rate": 1000}, {"decoded"}),
    ({"rate": 768_000}, {"too_short"}),
    ({"rate": 0}, NONSENSE),
    ({"rate": 1}, NONSENSE),
    ({"rate": 700_000_000}, NONSENSE),
    ({"rate": 2**31 - 1}, NONSENSE),
    ({"rate": 2**32 - 1}, NONSENSE),
    ({"rate": 16_000, "channels": 0}, NONSENSE),
    ({"rate": 16_000, "channels": 65_535}, NONSENSE),
    ({"rate": 16_000, "bits": 0}, NONSENSE),
    ({"rate": 16_000, "bits": 65_535}, NONSENSE),
]
LIMITED = f"""
import resource, sys
from pathlib import Path
from tests.fuzz.test_media import HEADERS, decoded, wav
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
for header, _ in HEADERS:
    print(decoded(wav(**header), Path(sys.argv[1])))
"""


def test_a_header_takes_no_more_memory_than_the_sound(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    found = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120, check=False
    )
    assert found.returncode == 0, found.stderr[-2000:]
    for (header, reasons), reason in zip(HEADERS, found.stdout.split(), strict=True):
        assert reason in reasons, header
