"""ffmpeg as a confined process, and what it says of a media file."""

import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO

import imageio_ffmpeg

from fsclap import Hertz, Seconds, sandbox

STDERR_LIMIT = 1 << 19  # bytes of ffmpeg's messages read from each end: a damaged file can cause millions
# ffmpeg's own standard input: seekable, as an MP4 with its index at the end needs, while the name
# of the media file can neither suggest a format nor pass for an option.
STANDARD_INPUT = "file:/dev/fd/0"
MEDIA = (
    "aac", "ac3", "ac4", "aiff", "amr", "amrnb", "amrwb", "ape", "asf", "asf_o", "ast", "au", "avi", "caf", "dsf",
    "dts", "dtshd", "dv", "eac3", "flac", "flv", "gsm", "gxf", "iamf", "iff", "ircam", "loas", "matroska", "mlp",
    "mov", "mp3", "mpc", "mpc8", "mpeg", "mpegts", "mxf", "nistsphere", "nut", "ogg", "oma", "qcp", "rm", "shn",
    "sox", "tak", "truehd", "tta", "voc", "w64", "wav", "wtv", "wv",
)  # fmt: skip
"""Formats that are opened. None of these is a list of other files, or of addresses, as hls, dash,
concat and imf are; nor a text or a picture, which ffmpeg reads as media too."""
INPUT: dict[str, str | None] = {"protocol_whitelist": "file", "format_whitelist": ",".join(MEDIA), "threads": "1"}
INPUT |= dict.fromkeys(("vn", "sn", "dn"))  # a picture is never decoded, whatever its size
MEMORY = 1_000_000_000  # bytes that ffmpeg may use; the sound of 8K video takes less than a tenth of it
MESSAGES = 1 << 28  # bytes that ffmpeg may write to a file: its messages
# Other than these, a track is taken only if there is no better one: comments on the work, and
# descriptions of the picture.
_ASIDE = ("comment", "visual impaired", "descriptions", "karaoke", "attached pic")


@dataclass(frozen=True, slots=True)
class Track:
    """An audio track, as its container declares it.

    Attributes:
        number: 1 for the file's first audio track.
        sample_rate: Hertz; None when it declares none.
        mono: It has one channel.
        language: Three letters, as the file says; "" when it does not.
        default: The file names it as the one to play.
        aside: It is a commentary or describes the picture.
        decodable: ffmpeg knows its codec.
    """

    number: int
    sample_rate: Hertz | None
    mono: bool
    language: str
    default: bool
    aside: bool
    decodable: bool


@dataclass(frozen=True, slots=True)
class Description:
    """What ffmpeg says of a file without decoding it.

    Attributes:
        format: Its names for the container: "mov,mp4,m4a,3gp,3g2,mj2".
        duration: As the container has it; None when there is none, or ffmpeg estimates it by the bit rate.
        start: The timestamp at which the file begins.
        tracks: The audio tracks.
    """

    format: str
    duration: Seconds | None
    start: Seconds
    tracks: tuple[Track, ...]

    def is_any_of(self, formats: Sequence[str]) -> bool:
        return not set(self.format.split(",")).isdisjoint(formats)


@dataclass(slots=True)
class Run:
    """A run of ffmpeg.

    Attributes:
        process: With its standard output as a pipe.
        expired: Set when it was stopped for taking too long.
        messages: Its lines once it has ended, with levels: "[error] moov atom not found".
    """

    process: subprocess.Popen[bytes]
    expired: threading.Event = field(default_factory=threading.Event)
    messages: list[str] = field(default_factory=list)

    @property
    def stdout(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout


def ffmpeg_binary() -> str:
    """Find the system's ffmpeg, or the one that imageio-ffmpeg carries.

    Raises:
        RuntimeError: There is neither.
    """
    return shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()


@lru_cache
def ffmpeg_version() -> str:
    """Read which ffmpeg decodes: "4.2.2-static". What one version refuses another may decode.

    Raises:
        RuntimeError: It does not run.
    """
    try:
        shown = subprocess.run([ffmpeg_binary(), "-version"], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"{ffmpeg_binary()} does not run ({error}); install ffmpeg, or repair it") from error
    return (shown.stdout.split() + [""] * 3)[2]


@contextmanager
def run(args: Sequence[str], media: Path, *, timeout: Seconds, pass_fds: Sequence[int] = ()) -> Iterator[Run]:
    """Run ffmpeg on `media`; on leaving, the process has ended in any case.

    Args:
        args: Its options; STANDARD_INPUT is the file.
        media: The file.
        timeout: Seconds until it is stopped.
        pass_fds: Other pipes that it writes to.
    """
    command = [ffmpeg_binary(), "-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info", *args]
    environment = sandbox.environment(AV_LOG_FORCE_NOCOLOR="1")
    # The messages go to a file: a pipe that nobody reads while the sound is read would fill and
    # block ffmpeg.
    with media.open("rb") as source, tempfile.TemporaryFile() as stderr:
        running = Run(
            subprocess.Popen(
                command, stdin=source, stdout=subprocess.PIPE, stderr=stderr, env=environment, pass_fds=pass_fds
            )
        )
        timer = threading.Timer(timeout, _expire, [running])
        timer.start()
        try:
            sandbox.limit(running.process, memory=MEMORY, file_size=MESSAGES)
            yield running
        finally:
            timer.cancel()
            running.process.kill()
            running.process.wait()
            running.stdout.close()
            running.messages = _lines(stderr)


def input_options(**more: str) -> list[str]:
    """Return the options that confine what is read as INPUT does, and the input itself."""
    options = INPUT | more
    parts = [part for name, value in options.items() for part in (f"-{name}", value) if part is not None]
    return [*parts, "-i", STANDARD_INPUT]


def description(messages: list[str]) -> Description | None:
    """Parse what ffmpeg says of its input; None when it could not open it.

    Streams come after the line of the duration, at two spaces (ffmpeg 5 and later) or four (before). From
    there on metadata is deeper still, and before it deeper than the duration, so that no title can
    pass for a description.
    """
    lines = iter(messages)
    format_ = next((m[1] for line in lines if (m := re.match(r"\[info\] Input #0, (\S+), from ", line))), None)
    if format_ is None:
        return None
    timing = next((line for line in lines if line.startswith("[info]   Duration: ")), "")
    streams = [line for line in lines if re.match(r"\[info\] {3}(?: {2})?Stream #0:\d", line)]
    audio = [m for line in streams if (m := _AUDIO.match(line))]
    return Description(
        format=format_,
        duration=None if any("Estimating duration from bitrate" in line for line in messages) else _duration(timing),
        start=float(found[1]) if (found := re.search(r", start: (-?\d+\.\d+)", timing)) else 0.0,
        tracks=tuple(_track(number, match) for number, match in enumerate(audio, start=1)),
    )


_AUDIO = re.compile(r"\[info\] +Stream #0:\d+(?:\[0x[0-9a-f]+\])?(?:\((?P<language>\w+)\))?: Audio: (?P<codec>.*)")


def _track(number: int, match: re.Match[str]) -> Track:
    codec = match["codec"]
    rate = re.search(r", (\d+) Hz\b", codec)
    flags = re.findall(r"\(([a-z ]+)\)", codec)
    return Track(
        number=number,
        sample_rate=None if rate is None else int(rate[1]),
        mono=re.search(r" Hz, (mono|1 channels)\b", codec) is not None,
        language=match["language"] or "",
        default="default" in flags,
        aside=any(flag in flags for flag in _ASIDE),
        decodable=not codec.startswith("none"),
    )


def _duration(line: str) -> Seconds | None:
    found = re.match(r"\[info\]   Duration: (\d+):(\d\d):(\d\d\.\d+),", line)
    return None if found is None else 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3])


def last_error(messages: list[str]) -> str:
    """Return the last error ffmpeg reported, without memory addresses."""
    errors = [line for line in messages if re.match(r"(\[[^]]* @ 0x[0-9a-f]+\] )*\[(error|fatal)\]", line)]
    reasons = [line for line in errors if "At least one output" not in line and "Error opening input f" not in line]
    if not reasons:
        return "ffmpeg gave no reason"
    text = re.sub(r"(\[[^]]* @ 0x[0-9a-f]+\] |\[(error|fatal)\] )+", "", reasons[-1]).replace(STANDARD_INPUT, "input")
    return f"ffmpeg: {text.strip()[:200]}"


def _expire(running: Run) -> None:
    running.expired.set()
    running.process.kill()


def _lines(stderr: IO[bytes]) -> list[str]:
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(0)
    head = stderr.read(STDERR_LIMIT)
    stderr.seek(max(STDERR_LIMIT, size - STDERR_LIMIT))
    # Not splitlines(): a title may hold characters that it takes for line ends, and ffmpeg does
    # not.
    return (head + stderr.read()).decode(errors="replace").split("\n")
