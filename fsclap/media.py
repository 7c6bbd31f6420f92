"""Decode any media file to a wave on disk, with ffmpeg; refuse what is unusable."""

import logging
import math
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO

import ffmpeg
import imageio_ffmpeg
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fsclap import Hertz, Seconds, sandbox
from fsclap.audio import SAMPLE_TYPE, resampled, sample_index
from fsclap.refusal import Refused
from fsclap.settings import execution

log = logging.getLogger(__name__)

CHANNELS = 2
"""Channels of a decoded wave: mono is doubled, more than two are mixed down."""
LOUDEST = 100.0  # +40 dBFS: beyond it lie integers written as floats, and damage
TRUNCATED_SHARE = 0.05
TRUNCATED_MIN: Seconds = 1.0
"""A source is truncated when it ends more than 5 % and more than 1 s before its declared end."""
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
SAMPLE_RATES = range(1000, 768_001)  # hertz; any other is damage, or meant to exhaust memory


class DecodeSettings(BaseModel):
    """What is accepted as a source of sound."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_duration: Seconds = Field(default=0.5, gt=0, description="Seconds; a shorter recording is refused (too_short).")
    max_duration: Seconds = Field(
        default=4 * 3600,
        gt=0,
        description="Seconds; a longer recording is refused (too_long). A decoded recording takes 8 bytes per sample "
        "on disk: 1.3 GB per hour at 44.1 kHz.",
    )
    silence_dbfs: float = Field(
        default=-60.0,
        ge=-120,
        le=0,
        description="dBFS; a recording whose loudest second has a lower RMS level is refused (silent).",
    )
    max_invalid_share: float = Field(
        default=0.001,
        ge=0,
        le=1,
        description="Largest share of samples that may be NaN, infinite or beyond +40 dBFS. They become 0; with more "
        "of them the recording is refused (invalid_samples).",
    )
    timeout: Seconds = execution(1800.0, gt=0, description="Seconds that ffmpeg may spend on one recording.")


@dataclass(frozen=True, slots=True)
class Track:
    """The first audio track of a media file, as its container declares it.

    Attributes:
        sample_rate: Hertz.
        mono: It has one channel.
        duration: Of the whole container; None when it declares none, or ffmpeg only estimates it.
    """

    sample_rate: Hertz
    mono: bool
    duration: Seconds | None


@dataclass(slots=True)
class _Levels:
    """Counts and levels of a wave, collected while it passes."""

    samples: int = 0
    invalid: int = 0
    loudest: float = 0.0  # RMS of the loudest second, full scale = 1


@dataclass(slots=True)
class _Ffmpeg:
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


def decode(media: Path, destination: Path, *, sample_rate: Hertz, settings: DecodeSettings) -> np.ndarray:
    """Decode a file's first audio track, of any length, to raw samples on disk.

    The format is detected from the content; the file's name does not matter.

    Args:
        media: Any file with sound that ffmpeg reads.
        destination: Overwritten with interleaved little-endian float32 stereo; `open_decoded` reads
            it again. Incomplete when the file is refused.
        sample_rate: Of the result, in hertz (resampled by soxr).
        settings: What is accepted.

    Returns:
        (2, samples) float32, a read-only memory map of `destination`. Full scale is 1; a sample can
        lie beyond.

    Raises:
        Refused: `empty_file`, `not_media`, `no_audio_track`, `truncated`, `too_short`, `too_long`,
            `silent`, `invalid_samples`, `decode_timeout` or `unreadable`.
        OSError: `media` can't be opened, or `destination` can't be written.
    """
    if media.stat().st_size == 0:
        raise Refused("empty_file", f"{media.name} has 0 bytes; fetch it again.")
    track = _probe(media, settings)
    if track.duration is not None and track.duration > settings.max_duration:
        raise _too_long(media, settings)
    with destination.open("wb") as out:
        seen = _decode_to(out, media, track=track, sample_rate=sample_rate, settings=settings)
    _refuse_unusable(media, seen, duration=seen.samples / track.sample_rate, settings=settings)
    return open_decoded(destination)


def open_decoded(path: Path) -> np.ndarray:
    """Open a file that `decode` wrote as a read-only memory map, (2, samples) float32."""
    flat = np.memmap(path, dtype=SAMPLE_TYPE, mode="r")
    return flat.reshape(-1, CHANNELS).T


def _probe(media: Path, settings: DecodeSettings) -> Track:
    # Without an output ffmpeg describes its input and stops; ffmpeg-python compiles no such
    # command.
    options = [part for name, value in INPUT.items() for part in (f"-{name}", value) if part is not None]
    with _run([*options, "-i", STANDARD_INPUT], media, timeout=settings.timeout) as running:
        running.stdout.read()
        running.process.wait()
    if running.expired.is_set():
        raise _timed_out(media, settings)
    return _track(media, running.messages)


def _track(media: Path, messages: list[str]) -> Track:
    """Parse ffmpeg's description of its input.

    Lines of metadata are indented deeper, so a title cannot pass for one of these.
    """
    described = next((m for line in messages if (m := re.match(r"\[info\] Input #0, (\S+), from ", line))), None)
    if described is None:
        raise _not_opened(media, messages)
    audio = [line for line in messages if re.match(r"\[info\]   Stream #0:\d+\S*: Audio: ", line)]
    if not audio:
        raise Refused(
            "no_audio_track", f"{media.name} ({described[1]}) has no audio track; choose a version with sound."
        )
    rate = re.search(r", (\d+) Hz\b", audio[0])
    if rate is None or int(rate[1]) not in SAMPLE_RATES:
        raise Refused(
            "unreadable",
            f"{media.name}: the audio track declares {f'a sample rate of {rate[1]} Hz' if rate else 'no sample rate'} "
            f"({_last_error(messages)}); {SAMPLE_RATES.start} to {SAMPLE_RATES.stop - 1} Hz are supported.",
        )
    mono = re.search(r" Hz, (mono|1 channels)\b", audio[0]) is not None
    return Track(sample_rate=int(rate[1]), mono=mono, duration=_declared_duration(messages))


def _declared_duration(messages: list[str]) -> Seconds | None:
    if any("Estimating duration from bitrate" in line for line in messages):
        return None
    pattern = r"\[info\]   Duration: (\d+):(\d\d):(\d\d\.\d+),"
    found = next((m for line in messages if (m := re.match(pattern, line))), None)
    return None if found is None else 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3])


def _not_opened(media: Path, messages: list[str]) -> Refused:
    if any("moov atom not found" in line for line in messages):
        return Refused(
            "truncated",
            f"{media.name} ends before its index (moov atom not found): an incomplete download; fetch it again.",
        )
    return Refused(
        "not_media",
        f"{media.name} has no supported media format ({_last_error(messages)}): probably a web page, text or "
        "playlist was saved in its place. Fetch the media file itself.",
    )


def _decode_to(out: IO[bytes], media: Path, *, track: Track, sample_rate: Hertz, settings: DecodeSettings) -> _Levels:
    seen = _Levels()
    source = ffmpeg.input(STANDARD_INPUT, **INPUT)
    # Mono is doubled here: ffmpeg would take it down by 3 dB.
    channels = 1 if track.mono else CHANNELS
    output = source["a:0"].output("pipe:1", f="f32le", acodec="pcm_f32le", ac=channels, ar=track.sample_rate)
    with _run(output.get_args(), media, timeout=settings.timeout) as running:
        blocks = _decoded_blocks(running, media, seen=seen, track=track, settings=settings)
        for block in resampled(blocks, track.sample_rate, sample_rate):
            out.write(block.astype(SAMPLE_TYPE, copy=False).tobytes())
        running.process.wait()
    if running.expired.is_set():
        raise _timed_out(media, settings)
    _refuse_incomplete(media, running, seen=seen, track=track, settings=settings)
    return seen


def _decoded_blocks(
    running: _Ffmpeg, media: Path, *, seen: _Levels, track: Track, settings: DecodeSettings
) -> Iterator[np.ndarray]:
    """Yield the wave second by second, (samples, 2) float32, cleaned; fill in `seen`."""
    frame = (1 if track.mono else CHANNELS) * SAMPLE_TYPE.itemsize
    while data := running.stdout.read(track.sample_rate * frame):
        whole = np.frombuffer(data[: len(data) // frame * frame], dtype=SAMPLE_TYPE)
        block = whole.repeat(CHANNELS).reshape(-1, CHANNELS) if track.mono else whole.reshape(-1, CHANNELS)
        # Written so that NaN, too, is not valid.
        valid = np.abs(block) <= LOUDEST
        block = np.where(valid, block, np.float32(0))
        seen.samples += len(block)
        seen.invalid += valid.size - int(valid.sum())
        seen.loudest = max(seen.loudest, float(np.sqrt(np.mean(np.square(block), dtype=np.float64))))
        if seen.samples > sample_index(settings.max_duration, track.sample_rate):
            raise _too_long(media, settings)
        yield block


def _refuse_incomplete(media: Path, running: _Ffmpeg, *, seen: _Levels, track: Track, settings: DecodeSettings) -> None:
    messages = running.messages
    decoded = seen.samples / track.sample_rate
    # ffmpeg takes the size of the file for the length of a RIFF file, so its header is read here.
    declared = decoded * _riff_growth(media) if track.duration is None else track.duration
    cut = Refused(
        "truncated",
        f"{media.name} declares {declared:.1f} s and ends after {decoded:.1f} s of sound: an incomplete download; "
        "fetch it again.",
    )
    if any(re.search(r"\[error\].*(partial file|File ended prematurely)", line) for line in messages):
        raise cut
    if _ends_early(decoded, declared) and _ends_early(_demuxed_duration(media, settings), declared):
        raise cut
    if running.process.returncode != 0 or seen.samples == 0:
        raise Refused(
            "unreadable",
            f"{media.name}: ffmpeg gave up after {decoded:.1f} s of sound ({_last_error(messages)}). "
            "Fetch it again, or convert it to a common format.",
        )


def _ends_early(reached: Seconds, declared: Seconds) -> bool:
    return declared - reached > max(TRUNCATED_MIN, TRUNCATED_SHARE * declared)


def _riff_growth(media: Path) -> float:
    """Ratio of the size that a WAV or AVI header declares to the file's; at least 1."""
    with media.open("rb") as file:
        header = file.read(8)
    declared = int.from_bytes(header[4:8], "little")
    if header[:4] != b"RIFF" or declared == 0xFFFFFFFF:  # what a writer to a pipe puts there
        return 1.0
    return max(1.0, (declared + 8) / media.stat().st_size)


def _demuxed_duration(media: Path, settings: DecodeSettings) -> Seconds:
    """Where the last packet of any track ends: a whole file may have a short audio track."""
    # All tracks, but none is decoded: their packets are counted as they are.
    source = ffmpeg.input(STANDARD_INPUT, **{name: value for name, value in INPUT.items() if value is not None})
    output = source.output("pipe:1", f="null", map="0", c="copy", progress="pipe:1", ignore_unknown=None)
    with _run(output.get_args(), media, timeout=settings.timeout) as running:
        times = re.findall(rb"out_time_us=(\d+)", running.stdout.read())
        running.process.wait()
    if running.expired.is_set():
        raise _timed_out(media, settings)
    return int(times[-1]) / 1e6 if times else 0.0


def _refuse_unusable(media: Path, seen: _Levels, *, duration: Seconds, settings: DecodeSettings) -> None:
    share = seen.invalid / (seen.samples * CHANNELS)
    level = 20 * math.log10(max(seen.loudest, 1e-10))
    if share > settings.max_invalid_share:
        raise Refused(
            "invalid_samples",
            f"{media.name}: {share:.2%} of the samples are NaN, infinite or beyond +40 dBFS, and "
            f"max_invalid_share allows {settings.max_invalid_share:.2%}; export it again.",
        )
    if duration < settings.min_duration:
        raise Refused(
            "too_short", f"{media.name} lasts {duration:.2f} s, less than min_duration = {settings.min_duration:g} s."
        )
    if level < settings.silence_dbfs:
        raise Refused(
            "silent",
            f"{media.name}: the loudest second is at {level:.0f} dBFS, below silence_dbfs = "
            f"{settings.silence_dbfs:g}; check that its first audio track is the one with the sound.",
        )
    if seen.invalid:
        log.warning("%s: set %d invalid samples (%.4f %%) to 0", media.name, seen.invalid, 100 * share)


def _too_long(media: Path, settings: DecodeSettings) -> Refused:
    return Refused(
        "too_long",
        f"{media.name} lasts longer than max_duration = {settings.max_duration:g} s; cut it, or raise the setting.",
    )


def _timed_out(media: Path, settings: DecodeSettings) -> Refused:
    return Refused(
        "decode_timeout",
        f"{media.name}: ffmpeg had not finished after timeout = {settings.timeout:g} s and was stopped; raise the "
        "setting, or convert the file to a common format.",
    )


def _last_error(messages: list[str]) -> str:
    """Return the last error ffmpeg reported, without memory addresses."""
    errors = [line for line in messages if re.match(r"(\[[^]]* @ 0x[0-9a-f]+\] )*\[(error|fatal)\]", line)]
    reasons = [line for line in errors if "At least one output" not in line and "Error opening input f" not in line]
    if not reasons:
        return "ffmpeg gave no reason"
    text = re.sub(r"(\[[^]]* @ 0x[0-9a-f]+\] |\[(error|fatal)\] )+", "", reasons[-1]).replace(STANDARD_INPUT, "input")
    return f"ffmpeg: {text.strip()[:200]}"


@contextmanager
def _run(args: list[str], media: Path, *, timeout: Seconds) -> Iterator[_Ffmpeg]:
    """Run ffmpeg on `media`; on leaving, the process has ended in any case."""
    command = [ffmpeg_binary(), "-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info", *args]
    environment = sandbox.environment(AV_LOG_FORCE_NOCOLOR="1")
    # The messages go to a file: a pipe that nobody reads while the sound is read would fill and
    # block ffmpeg.
    with media.open("rb") as source, tempfile.TemporaryFile() as stderr:
        running = _Ffmpeg(
            subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE, stderr=stderr, env=environment)
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


def _expire(running: _Ffmpeg) -> None:
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
