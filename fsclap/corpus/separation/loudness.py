"""How loud a recording is, and the one gain that brings it to a target: EBU R 128, ITU-R BS.1770-4.

ffmpeg measures; a recording of any length, memory-mapped, goes to it in pieces.
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import ffmpeg
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fsclap import Hertz, Seconds
from fsclap.audio import sample_index
from fsclap.ffmpeg import ffmpeg_binary

BLOCK: Seconds = 10.0
"""How much of a wave is in memory at once."""
SILENCE = -70.0
"""LUFS: the absolute gate of BS.1770-4; ffmpeg reports it for what has nothing above it."""


class LoudnessSettings(BaseModel):
    """Whether the recordings of a corpus are brought to one loudness."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target_lufs: float | None = Field(
        default=None,
        ge=-70,
        le=0,
        description="Integrated loudness, in LUFS, that one gain per episode brings its voices to; a whisper stays "
        "softer than a shout. -23 is EBU R 128, -16 is common online. None: levels stay as they are. "
        "Useful when sources differ widely in level; costs about 0.3 s per minute of audio.",
    )
    peak_dbfs: float = Field(
        default=-1.0,
        ge=-20,
        le=0,
        description="Highest true peak, in dBFS, that the gain may reach; an episode with high peaks stays below the "
        "target.",
    )


@dataclass(frozen=True, slots=True)
class Loudness:
    """The loudness of a whole recording.

    Attributes:
        integrated: LUFS, gated; None when nothing is above -70 LUFS or it is shorter than 0.4 s.
        true_peak: Of the waveform between the samples too (4 times oversampled), in dB relative to
            full scale; -inf for digital silence.
    """

    integrated: float | None
    true_peak: float


def measure(wave: np.ndarray, sample_rate: Hertz) -> Loudness:
    """Measure a recording with ffmpeg's `ebur128`, to 0.1 dB.

    Args:
        wave: (samples,) or (channels, samples) float32, 1 or 2 channels; a memory map will do. As
            the standard has it, channels add up: mono is 3 dB softer than the same wave on two
            channels.
        sample_rate: Hertz.

    Raises:
        ValueError: Of another shape, empty, or with a value that is not finite.
        RuntimeError: ffmpeg failed; the message is its own.
    """
    channels = wave[np.newaxis] if wave.ndim == 1 else wave
    if channels.ndim != 2 or channels.shape[0] not in (1, 2) or not channels.shape[1]:
        raise ValueError(
            f"expected a wave of (samples,) or (1 or 2, samples) with at least one sample, got {wave.shape}"
        )
    source = ffmpeg.input("pipe:0", f="f32le", ar=sample_rate, ac=len(channels))
    # framelog: without it, ffmpeg reports every 0.1 s, and the pipe with its report would fill.
    output = source.filter("ebur128", peak="true", framelog="quiet").output("pipe:1", f="null")
    command = [ffmpeg_binary(), "-hide_banner", "-nostats", *output.get_args()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        try:
            with process.stdin as pipe:
                for block in _blocks(channels, sample_index(BLOCK, sample_rate)):
                    pipe.write(block)
        except BrokenPipeError:
            pass  # ffmpeg has given up, and says why
        except BaseException:
            process.kill()
            raise
        report = process.stderr.read().decode(errors="replace")
    return _parsed(report, status=process.returncode)


def _blocks(channels: np.ndarray, samples: int) -> Iterator[bytes]:
    for start in range(0, channels.shape[1], samples):
        block = np.asarray(channels[:, start : start + samples], dtype="<f4")
        if not np.isfinite(block).all():
            raise ValueError("the wave has samples that are NaN or infinite: its loudness is not defined")
        yield block.T.tobytes()


def _parsed(report: str, *, status: int) -> Loudness:
    summary = report.rpartition("Summary:")[2]
    integrated, peak = (re.search(rf"^ +{name}: +(\S+) ", summary, re.MULTILINE) for name in ("I", "Peak"))
    if status != 0 or integrated is None or peak is None:
        raise RuntimeError(f"ffmpeg did not measure the loudness (status {status}): {report.strip()[-300:]}")
    level = float(integrated[1])
    return Loudness(level if level > SILENCE else None, float(peak[1]))


def gain(loudness: Loudness, settings: LoudnessSettings) -> float:
    """Return the factor for all samples of a recording; 1 without a target or without loudness."""
    if settings.target_lufs is None or loudness.integrated is None:
        return 1.0
    decibels = min(settings.target_lufs - loudness.integrated, settings.peak_dbfs - loudness.true_peak)
    return 10 ** (decibels / 20)
