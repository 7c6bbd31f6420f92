"""What ffmpeg says of a file, as recorded from versions that indent it in two ways."""

import os
import subprocess
from pathlib import Path

import pytest

from fsclap.ffmpeg import Description, Track, description
from fsclap.media import DecodeSettings, decode
from fsclap.refusal import Refused

VERSION_4 = """\
[info] Input #0, matroska,webm, from 'file:/dev/fd/0':
[info]   Metadata:
[info]     title           : x
[info]     Stream #0:9: Audio: aac, 1 Hz, mono
[info]     ENCODER         : Lavf63.1.102
[info]   Duration: 00:00:30.02, start: -0.023000, bitrate: 285 kb/s
[info]     Chapter #0:0: start 0.000000, end 30.000000
[info]     Metadata:
[info]       Stream #0:8: Audio: aac, 1 Hz, mono
[info]     Stream #0:0: Video: h264 (Constrained Baseline), yuv420p(progressive), 320x180, 10 fps, 10 tbr, 1k tbn, 20 tbc (default)
[info]     Metadata:
[info]       HANDLER_NAME    : VideoHandler
[info]     Stream #0:1: Audio: aac (LC), 44100 Hz, stereo, fltp
[info]     Metadata:
[info]       Stream #0:7: Audio: aac, 1 Hz, mono
[info]     Stream #0:2(deu): Audio: aac (LC), 48000 Hz, mono, fltp (default)
[info]     Metadata:
[info]       HANDLER_NAME    : SoundHandler
[fatal] At least one output file must be specified
"""  # noqa: E501 (as it comes)
VERSION_9 = """\
[info] Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'file:/dev/fd/0':
[info]   Metadata:
[info]     Stream #0:9: Audio: aac, 1 Hz, mono
[info]     major_brand     : isom
[info]   Duration: 00:00:34.09, start: 1.400000, bitrate: 159 kb/s
[info]   Chapters:
[info]     Chapter #0:0: start 0.000000, end 30.000000
[info]       Metadata:
[info]         Stream #0:8: Audio: aac, 1 Hz, mono
[info]   Stream #0:0[0x1](und): Video: h264 (avc1 / 0x31637661), yuv420p, 320x180, 76 kb/s, 10 fps, 10 tbr, 10240 tbn (default)
[info]     Metadata:
[info]       handler_name    : VideoHandler
[info]   Stream #0:1[0x2](eng): Audio: aac (LC) (mp4a / 0x6134706D), 44100 Hz, stereo, fltp, 101 kb/s (comment)
[info]   Stream #0:2[0x3]: Audio: none (apac / 0x63617061), 48000 Hz, 4 channels, 128 kb/s (default)
[fatal] At least one output file must be specified
"""  # noqa: E501 (as it comes)


def track(number: int, rate: int, **others: object) -> Track:
    plain = {"mono": False, "language": "", "default": False, "aside": False, "decodable": True}
    return Track(number=number, sample_rate=rate, **{**plain, **others})  # type: ignore[arg-type]


def test_what_ffmpeg_4_says() -> None:
    assert description(VERSION_4.split("\n")) == Description(
        format="matroska,webm",
        duration=30.02,
        start=-0.023,
        tracks=(track(1, 44_100), track(2, 48_000, mono=True, language="deu", default=True)),
    )


def test_what_ffmpeg_9_says() -> None:
    assert description(VERSION_9.split("\n")) == Description(
        format="mov,mp4,m4a,3gp,3g2,mj2",
        duration=34.09,
        start=1.4,
        tracks=(
            track(1, 44_100, language="eng", aside=True),
            track(2, 48_000, default=True, decodable=False),
        ),
    )


def test_what_is_no_description() -> None:
    assert description(["[error] file:/dev/fd/0: Invalid data found when processing input"]) is None


def test_a_program_that_crashes_is_not_the_file_s_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, episode: Path
) -> None:
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nkill -SEGV $$\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    assert subprocess.run(["ffmpeg"], check=False).returncode < 0
    with pytest.raises(Refused, match=r"unreadable: .*bin/ffmpeg crashed \(signal 11\)"):
        decode(episode, tmp_path / "a.f32", sample_rate=8000, settings=DecodeSettings())
