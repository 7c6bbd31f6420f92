"""Seconds of a decoded wave are those at which a player finds the same sound."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fsclap.ffmpeg import ffmpeg_binary
from fsclap.media import DecodeSettings, Recording, decode_recording
from fsclap.refusal import Refused
from fsclap.timeline import HOLE
from tests.fsclap.test_media import RATE, make, wav_header

LONG = 12.0
LATE = 4.087
BOTH = ("-map", "0:v", "-map", "1:a", "-c", "copy")


@pytest.fixture(scope="module")
def talk(episode: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds of a real episode, with a picture that can be cut anywhere."""
    video = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "5", "-s", "64x36", "-c:a", "aac", "-ac", "2")
    return make(tmp_path_factory.mktemp("talk") / "talk.mp4", "-ss", "20", "-i", episode, "-t", f"{LONG}", *video)


def dropping(expression: str) -> tuple[str, ...]:
    """Options that lose packets of the sound."""
    return ("-c", "copy", "-bsf:a", f"noise=drop='{expression}'")


GAP = dropping("between(pts*tb,4,9)")
LOST = dropping("not(mod(n+1,47))")


def part(talk: Path, target: Path, start: float, seconds: float, offset: float, *options: str) -> bytes:
    made = make(
        target, "-ss", f"{start}", "-i", talk, "-t", f"{seconds}", "-c", "copy", *options, "-output_ts_offset",
        f"{offset}",
    )  # fmt: skip
    return made.read_bytes()


def joined(name: str, offset: float, *options: str) -> Callable[[Path, Path], Path]:
    """Make a file of two halves, the clock of the second of which begins at `offset`."""

    def of(talk: Path, folder: Path) -> Path:
        suffix = Path(name).suffix
        first = part(talk, folder / f"1{suffix}", 0, 6, 0)
        (folder / name).write_bytes(first + part(talk, folder / f"2{suffix}", 6, 6, offset, *options))
        return folder / name

    return of


def late(name: str) -> Callable[[Path, Path], Path]:
    return lambda talk, folder: make(folder / name, "-i", talk, "-itsoffset", f"{LATE}", "-i", talk, *BOTH)


def without(name: str, options: Sequence[str], *codecs: str) -> Callable[[Path, Path], Path]:
    return lambda talk, folder: make(folder / name, "-i", talk, *options, *codecs)


@dataclass(frozen=True)
class Case:
    """A file whose samples alone do not tell the time.

    Attributes:
        make: From a whole recording and a folder to the file.
        sections: Where its stretches of sound begin on the player's clock, and how long they are.
    """

    make: Callable[[Path, Path], Path]
    sections: Sequence[tuple[float, float]]


AFTER_GAP = [(0, 4), (9, 3)]
CASES = {
    "late.mp4": Case(late("a.mp4"), [(LATE, LONG)]),
    "late.mkv": Case(late("a.mkv"), [(LATE, LONG)]),
    "late.ts": Case(late("a.ts"), [(LATE, LONG)]),
    "gap.mp4": Case(without("a.mp4", GAP), AFTER_GAP),
    "gap.mkv": Case(without("a.mkv", GAP), AFTER_GAP),
    "gap.ts": Case(without("a.ts", GAP), AFTER_GAP),
    "gap.webm": Case(without("a.webm", GAP, "-vn", "-c:a", "libopus"), AFTER_GAP),
    "lost.mp4": Case(without("a.mp4", LOST), [(0, 5.3), (5.4, 5.3), (10.9, 1.1)]),
    "lost.mkv": Case(without("a.mkv", LOST), [(0, 5.3), (5.4, 5.3), (10.9, 1.1)]),
    "ahead 5000 s.ts": Case(joined("a.ts", 5000), [(0, LONG)]),
    "ahead 5 s.ts": Case(joined("a.ts", 11), [(0, 6), (11, 6)]),
    "restarted.ts": Case(joined("a.ts", 0), [(0, LONG)]),
    "other tracks.ts": Case(joined("a.ts", 900, "-mpegts_start_pid", "0x200"), [(0, LONG)]),
    "restarted.mkv": Case(joined("a.mkv", 0), [(0, LONG)]),
    "edited.mp4": Case(
        lambda talk, folder: make(folder / "a.mp4", "-ss", "3.3", "-i", talk, "-c", "copy"), [(0, LONG - 3.3)]
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_player_finds_every_clip_where_its_seconds_say(name: str, talk: Path, tmp_path: Path) -> None:
    case = CASES[name]
    file = case.make(talk, tmp_path)
    found = recording(file, tmp_path)
    sections = [(section.player, section.seconds) for section in found.timeline.sections]
    assert sections == [pytest.approx(expected, abs=HOLE + 0.06) for expected in case.sections]
    for section in found.timeline.sections:
        if name in ("other tracks.ts", "restarted.mkv"):  # there the player loses its way after the first half
            section = found.timeline.sections[0]
        seconds = min(2.0, section.seconds - 0.1)
        start = section.wave + 0.3 * (min(6, section.seconds) - seconds)
        clip = found.wave.mean(axis=0)[round(start * RATE) : round((start + seconds) * RATE)]
        played = player(file, found.timeline.player(start), seconds, seek=name != "edited.mp4")
        assert agreement(clip, played) > 0.98


def recording(file: Path, folder: Path, **settings: object) -> Recording:
    chosen = DecodeSettings.model_validate(settings)
    return decode_recording(file, folder / "wave.f32", sample_rate=RATE, settings=chosen)


def player(file: Path, start: float, seconds: float, *, seek: bool = True) -> np.ndarray:
    """What ffmpeg plays from a second on: it goes there, or (with edit lists, where it misses) plays up to it."""
    position, source = ["-ss", f"{start:.6f}"], ["-i", str(file)]
    command = [ffmpeg_binary(), "-nostdin", "-v", "error", *(position + source if seek else source + position)]
    output = ["-map", "0:a:0", "-t", f"{seconds:.6f}", "-f", "f32le", "-ac", "1", "-ar", str(RATE), "pipe:1"]
    return np.frombuffer(subprocess.run([*command, *output], check=True, capture_output=True).stdout, "<f4")


def agreement(clip: np.ndarray, played: np.ndarray, slack: float = HOLE) -> float:
    """The largest correlation of a clip, its ends left out, with what was played within `slack` seconds."""
    edge = round(slack * RATE)
    inner = clip[edge:-edge]
    size = 2 ** int(np.ceil(np.log2(len(played) + len(inner))))
    products = np.fft.irfft(np.fft.rfft(played, size) * np.fft.rfft(inner, size).conj(), size)[: 2 * edge]
    energy = np.cumsum(np.concatenate([[0.0], np.square(played, dtype=np.float64)]))
    powers = np.array([energy[at + len(inner)] - energy[at] for at in range(2 * edge) if at + len(inner) < len(energy)])
    return float((products[: len(powers)] / np.sqrt(powers * np.square(inner).sum())).max())


def test_a_hole_of_hours_costs_no_room(talk: Path, tmp_path: Path) -> None:
    file = joined("a.mkv", 3 * 3600)(talk, tmp_path)
    found = recording(file, tmp_path)
    assert found.timeline.holes == [pytest.approx((6, 3 * 3600 - 6), abs=0.1)]
    assert found.wave.shape[1] == pytest.approx((LONG + 1) * RATE, rel=0.02)


@pytest.mark.parametrize("offset", [5000, 90_000])
def test_what_the_clock_of_a_stream_says_is_no_length(offset: float, talk: Path, tmp_path: Path) -> None:
    file = joined("a.ts", offset)(talk, tmp_path)
    assert recording(file, tmp_path).timeline.sound == pytest.approx(LONG, abs=0.2)
    with pytest.raises(Refused, match="too_long"):
        recording(file, tmp_path, max_duration=10)


# Headers of writers to a pipe -------------------------------------------------------------------------


SIZES = {
    "none": 0,
    "sox": 0x7FFFF000,
    "int": 0x7FFFFFFF,
    "arecord": 0x80000000,
    "ffmpeg": 2**32 - 1,
    "odd": 2**32 - 100,
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_wav_file_whose_writer_did_not_know_its_length(size: int, tmp_path: Path) -> None:
    tone = (8000 * np.sin(np.arange(16_000) * 0.3)).astype("<i2").tobytes()
    (tmp_path / "a.wav").write_bytes(wav_header(size=size) + tone)
    assert recording(tmp_path / "a.wav", tmp_path).timeline.sound == pytest.approx(2.0)


def test_an_aiff_file_whose_writer_did_not_know_its_length(talk: Path, tmp_path: Path) -> None:
    """As sox writes one to a pipe: 0x7F000000 bytes of sound, two channels of 16 bits."""
    data = bytearray(make(tmp_path / "whole.aiff", "-i", talk, "-vn").read_bytes())
    data[4:8] = (0x7F00002E).to_bytes(4, "big")
    at = data.index(b"COMM") + 10
    data[at : at + 4] = (0x7F000000 // 4).to_bytes(4, "big")
    at = data.index(b"SSND") + 4
    data[at : at + 4] = (0x7F000008).to_bytes(4, "big")
    (tmp_path / "a.aiff").write_bytes(data)
    assert recording(tmp_path / "a.aiff", tmp_path).timeline.sound == pytest.approx(LONG, abs=0.1)


# Which sound ------------------------------------------------------------------------------------------


def tracks(folder: Path, name: str, *frequencies: float, options: Sequence[str] = ()) -> Path:
    """A file with a tone per track; 0 is silence."""
    sources = [f"sine=frequency={hz}:duration=2" if hz else "anullsrc=duration=2" for hz in frequencies]
    inputs = [part for source in sources for part in ("-f", "lavfi", "-i", source)]
    maps = [part for number in range(len(frequencies)) for part in ("-map", f"{number}:a")]
    return make(folder / name, *inputs, *maps, "-t", "2", *options)


def pitch(found: Recording) -> float:
    wave = found.wave.mean(axis=0)[:RATE]
    return float(np.argmax(np.abs(np.fft.rfft(wave))))


SECOND = ("-disposition:a:0", "0", "-disposition:a:1", "default")


@pytest.mark.parametrize(
    ("frequencies", "options", "track"),
    [
        ((300, 500), (), 1),
        ((300, 500), SECOND, 2),
        ((0, 500), (), 2),
        ((300, 0), SECOND, 1),
        ((300, 500), ("-disposition:a:0", "comment", "-disposition:a:1", "0"), 2),
    ],
    ids=["first", "default", "first is silent", "default is silent", "comment"],
)
@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_the_track_that_a_player_would_take(
    name: str, frequencies: Sequence[float], options: Sequence[str], track: int, tmp_path: Path
) -> None:
    if name == "a.mp4" and "comment" in options:
        pytest.skip("MP4 has no such mark")
    found = recording(tracks(tmp_path, name, *frequencies, options=options), tmp_path)
    assert (found.track, found.tracks) == (track, 2)
    assert pitch(found) == frequencies[track - 1]


def test_a_setting_names_the_track(tmp_path: Path) -> None:
    named = ("-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=deu", "-metadata:s:a:2", "language=fra")
    file = tracks(tmp_path, "a.mkv", 300, 500, 0, options=named)
    assert [pitch(recording(file, tmp_path, track=name)) for name in (1, 2, "eng", "deu")] == [300, 500, 300, 500]
    with pytest.raises(Refused, match=r"no_such_track: .* 1 \(eng\), 2 \(deu\), 3 \(fra\)"):
        recording(file, tmp_path, track=4)
    with pytest.raises(Refused, match="silent"):
        recording(file, tmp_path, track="fra")


def test_silence_in_every_track_is_silence(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"silent: .* None of its 2 audio tracks"):
        recording(tracks(tmp_path, "a.mkv", 0, 0), tmp_path)


@pytest.mark.parametrize("first", [0.0, 3.0])
def test_opposite_channels_do_not_cancel(first: float, talk: Path, tmp_path: Path) -> None:
    """From a second on, or all the time, the right channel is the left one turned over."""
    plain = recording(talk, tmp_path).wave.mean(axis=0).copy()
    turned = f"aeval=val(0)|val(0)*if(lt(t\\,{first})\\,1\\,-1)"
    found = recording(make(tmp_path / "a.wav", "-i", talk, "-vn", "-af", f"pan=mono|c0=c0,{turned}"), tmp_path)
    assert agreement(found.wave.mean(axis=0)[: len(plain)], plain) > 0.9
    assert np.abs(found.wave.mean(axis=0)).max() == pytest.approx(np.abs(found.wave[0]).max(), rel=0.01)
    assert found.inverted == pytest.approx(LONG - first, abs=1.1)


def test_channels_that_merely_differ_are_left_alone(talk: Path, tmp_path: Path) -> None:
    found = recording(make(tmp_path / "a.wav", "-i", talk, "-vn", "-af", "pan=stereo|c0=c0|c1=0*c0"), tmp_path)
    assert found.inverted == 0
