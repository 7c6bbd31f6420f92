"""Decoding real files, damaged ones, and what a stranger may make."""

import resource
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fsclap.audio import resample
from fsclap.ffmpeg import ffmpeg_binary
from fsclap.media import DecodeSettings, decode, open_decoded
from fsclap.refusal import Refused

RATE = 44_100
SETTINGS = DecodeSettings()
HOSTILE_TITLE = "\n".join(
    ["x", "[info]   Duration: 99:00:00.00, start\x1b[2J", "y\u2028[info]   Duration: 99:00:00.00, start"]
)


def make(target: Path, *args: str | Path) -> Path:
    """Runs the real ffmpeg to make a file."""
    command = [ffmpeg_binary(), "-nostdin", "-loglevel", "error", "-y", *map(str, args), str(target)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return target


@pytest.fixture(scope="module")
def clip(episode: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds of a real episode, picture and sound, index at the end."""
    folder = tmp_path_factory.mktemp("clip")
    return make(folder / "clip.mp4", "-i", episode, "-t", "8", "-c:v", "libx264", "-c:a", "aac", "-ac", "2")


@pytest.fixture(scope="module")
def wave(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """(samples,) float32 mono at RATE: the sound of `clip`."""
    path = make(tmp_path_factory.mktemp("wave") / "clip.wav", "-i", clip, "-vn", "-ac", "1", "-ar", str(RATE))
    return soundfile.read(path, dtype="float32")[0]


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[..., Refused]:
    def attempt(source: Path, settings: DecodeSettings = SETTINGS) -> Refused:
        with pytest.raises(Refused) as caught:
            decode(source, tmp_path / "refused.f32", sample_rate=RATE, settings=settings)
        assert source.name in caught.value.detail
        assert str(source.parent) not in caught.value.detail
        return caught.value

    return attempt


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    size = min(len(a), len(b))
    return float(np.corrcoef(a[:size], b[:size])[0, 1])


def test_a_video_decodes_to_stereo_samples_that_can_be_opened_again(
    clip: Path, wave: np.ndarray, tmp_path: Path
) -> None:
    decoded = decode(clip, tmp_path / "raw.f32", sample_rate=RATE, settings=SETTINGS)
    assert decoded.dtype == np.float32
    assert decoded.shape == (2, pytest.approx(len(wave), abs=RATE // 10))
    assert correlation(decoded.mean(axis=0), wave) > 0.999
    assert not decoded.flags.writeable
    np.testing.assert_array_equal(open_decoded(tmp_path / "raw.f32"), decoded)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("phone.wav", ["-ar", "8000", "-ac", "1"]),
        ("studio.flac", ["-ar", "96000", "-ac", "2"]),
        ("surround.ac3", ["-ac", "6"]),
        ("web.webm", ["-ar", "48000", "-c:a", "libopus"]),
    ],
)
def test_any_rate_and_layout_gives_the_same_sound(
    name: str, args: list[str], clip: Path, wave: np.ndarray, tmp_path: Path
) -> None:
    media = make(tmp_path / name, "-i", clip, "-vn", *args)
    decoded = decode(media, tmp_path / "raw.f32", sample_rate=RATE, settings=SETTINGS)
    assert decoded.shape[1] == pytest.approx(len(wave), abs=RATE // 10)
    assert aligned_correlation(decoded.mean(axis=0), wave) > 0.9


def aligned_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """The largest over shifts of up to 50 ms, since a lossy codec may delay by a frame."""
    size = min(len(a), len(b))
    spectra = np.fft.rfft(a[:size], 2 * size), np.fft.rfft(b[:size], 2 * size)
    lags = np.fft.irfft(spectra[0] * spectra[1].conj())
    near = np.concatenate([lags[: RATE // 20], lags[-RATE // 20 :]])
    return float(near.max() / np.linalg.norm(a[:size]) / np.linalg.norm(b[:size]))


def test_mono_keeps_its_level(wave: np.ndarray, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "mono.wav", wave, RATE, subtype="FLOAT")
    decoded = decode(tmp_path / "mono.wav", tmp_path / "raw.f32", sample_rate=RATE, settings=SETTINGS)
    np.testing.assert_array_equal(decoded, np.stack([wave, wave]))


def test_streamed_resampling_equals_resampling_at_once(wave: np.ndarray, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "mono.wav", wave, RATE, subtype="FLOAT")
    decoded = decode(tmp_path / "mono.wav", tmp_path / "raw.f32", sample_rate=16_000, settings=SETTINGS)
    np.testing.assert_allclose(decoded[0], resample(wave, RATE, 16_000), atol=1e-5)


@pytest.mark.parametrize("name", ["clip.txt", "clip.mp3", "clip", "-i.mp4", "concat:clip.mp4", "x y\n'.mp4"])
def test_the_name_of_a_file_does_not_matter(name: str, clip: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(clip.read_bytes())
    expected = decode(clip, tmp_path / "a.f32", sample_rate=RATE, settings=SETTINGS)
    np.testing.assert_array_equal(
        decode(tmp_path / name, tmp_path / "b.f32", sample_rate=RATE, settings=SETTINGS), expected
    )


def test_a_title_can_not_pass_for_a_description_of_the_file(clip: Path, tmp_path: Path) -> None:
    media = make(tmp_path / "hostile.mp4", "-i", clip, "-c", "copy", "-metadata", f"title={HOSTILE_TITLE}")
    expected = decode(clip, tmp_path / "a.f32", sample_rate=RATE, settings=SETTINGS)
    np.testing.assert_array_equal(decode(media, tmp_path / "b.f32", sample_rate=RATE, settings=SETTINGS), expected)


def test_an_audio_track_shorter_than_its_picture_is_whole(clip: Path, tmp_path: Path) -> None:
    picture = ["-f", "lavfi", "-t", "20", "-i", "color=size=64x64:rate=5"]
    media = make(tmp_path / "outro.mp4", "-i", clip, *picture, "-map", "1:v", "-map", "0:a", "-c:a", "copy")
    decoded = decode(media, tmp_path / "raw.f32", sample_rate=RATE, settings=SETTINGS)
    assert decoded.shape[1] == pytest.approx(8 * RATE, rel=0.02)


def test_empty_file(tmp_path: Path, refusal: Callable[..., Refused]) -> None:
    (tmp_path / "a.mp4").touch()
    assert refusal(tmp_path / "a.mp4").reason == "empty_file"


@pytest.mark.parametrize(
    "content",
    [
        "<!doctype html><html><body>Video unavailable</body></html>",
        "a plain text\n" * 100,
        "ffconcat version 1.0\nfile clip.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nclip.mp4\n#EXT-X-ENDLIST\n",
        "1\n00:00:00,000 --> 00:00:05,000\nHello\n",
    ],
)
@pytest.mark.parametrize("name", ["a.mp3", "a.mp4", "a.m3u8"])
def test_not_media(content: str, name: str, clip: Path, tmp_path: Path, refusal: Callable[..., Refused]) -> None:
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())  # what the lists point at is there to be read
    (tmp_path / name).write_text(content)
    assert refusal(tmp_path / name).reason == "not_media"


@pytest.mark.parametrize("name", ["archive.mp4", "picture.mp3"])
def test_other_kinds_of_files_are_not_media(name: str, tmp_path: Path, refusal: Callable[..., Refused]) -> None:
    with zipfile.ZipFile(tmp_path / "archive.mp4", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", bytes(10**6))
    picture = ["-f", "lavfi", "-i", "color=s=64x64", "-frames:v", "1", "-f", "image2pipe", "-c:v", "png"]
    make(tmp_path / "picture.mp3", *picture)
    assert refusal(tmp_path / name).reason == "not_media"


def test_no_audio_track(clip: Path, tmp_path: Path, refusal: Callable[..., Refused]) -> None:
    assert refusal(make(tmp_path / "mute.mp4", "-i", clip, "-c", "copy", "-an")).reason == "no_audio_track"


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("index-last.mp4", ["-c", "copy"]),
        ("index-first.mp4", ["-c", "copy", "-movflags", "+faststart"]),
        ("a.mkv", ["-c", "copy"]),
        ("a.flac", ["-vn"]),
        ("a.wav", ["-vn"]),
        ("a.mp3", ["-vn"]),
    ],
)
def test_truncated(name: str, args: list[str], clip: Path, tmp_path: Path, refusal: Callable[..., Refused]) -> None:
    whole = make(tmp_path / name, "-i", clip, *args)
    decode(whole, tmp_path / "whole.f32", sample_rate=RATE, settings=SETTINGS)
    cut = tmp_path / f"cut-{name}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    assert refusal(cut).reason == "truncated"


def test_too_short(clip: Path, tmp_path: Path, refusal: Callable[..., Refused]) -> None:
    assert refusal(make(tmp_path / "a.wav", "-i", clip, "-t", "0.3")).reason == "too_short"


def test_too_long_by_its_header_is_refused_before_decoding(
    clip: Path, tmp_path: Path, refusal: Callable[..., Refused]
) -> None:
    assert refusal(clip, DecodeSettings(max_duration=4)).reason == "too_long"
    assert not (tmp_path / "refused.f32").exists()


def test_too_long_without_a_header_stops_at_the_limit(
    clip: Path, tmp_path: Path, refusal: Callable[..., Refused]
) -> None:
    endless = make(tmp_path / "endless.aac", "-i", clip, "-vn", "-c:a", "aac")  # a raw stream declares no duration
    assert refusal(endless, DecodeSettings(max_duration=4)).reason == "too_long"
    assert (tmp_path / "refused.f32").stat().st_size <= 5 * RATE * 8


def test_silent(tmp_path: Path, refusal: Callable[..., Refused]) -> None:
    noise = np.random.default_rng(0).normal(scale=10 ** (-70 / 20), size=3 * RATE).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, RATE, subtype="FLOAT")
    assert refusal(tmp_path / "a.wav").reason == "silent"


def test_one_loud_second_in_a_quiet_minute_is_not_silence(wave: np.ndarray, tmp_path: Path) -> None:
    quiet = np.zeros(60 * RATE, dtype=np.float32)
    quiet[30 * RATE : 31 * RATE] = 0.003 * np.sin(np.arange(RATE) * 0.05)
    soundfile.write(tmp_path / "a.wav", quiet, RATE, subtype="FLOAT")
    assert decode(tmp_path / "a.wav", tmp_path / "raw.f32", sample_rate=RATE, settings=SETTINGS).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_invalid_samples(value: float, wave: np.ndarray, tmp_path: Path, refusal: Callable[..., Refused]) -> None:
    broken = wave.copy()
    broken[::50] = value
    soundfile.write(tmp_path / "a.wav", broken, RATE, subtype="FLOAT")
    assert refusal(tmp_path / "a.wav").reason == "invalid_samples"


def test_a_few_invalid_samples_become_zeros(wave: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = wave.copy()
    broken[[1000, 2000]] = np.nan
    soundfile.write(tmp_path / "a.wav", broken, RATE, subtype="FLOAT")
    decoded = decode(tmp_path / "a.wav", tmp_path / "raw.f32", sample_rate=RATE, settings=SETTINGS)
    np.testing.assert_array_equal(decoded[0], np.nan_to_num(broken, nan=0.0))
    assert "4 invalid samples" in caplog.text


def test_decode_timeout(clip: Path, refusal: Callable[..., Refused]) -> None:
    assert refusal(clip, DecodeSettings(timeout=1e-4)).reason == "decode_timeout"


def test_unreadable_says_what_ffmpeg_said(clip: Path, tmp_path: Path, refusal: Callable[..., Refused]) -> None:
    whole = make(tmp_path / "a.flac", "-i", clip, "-vn")
    data = bytearray(whole.read_bytes())
    noise = np.random.default_rng(0).integers(0, 256, len(data) - 9000, dtype=np.uint8)
    data[9000:] = noise.tobytes()
    (tmp_path / "b.flac").write_bytes(data)
    refused = refusal(tmp_path / "b.flac")
    assert refused.reason in {"unreadable", "truncated"}
    assert "0x" not in refused.detail
    assert "/dev/fd" not in refused.detail


def test_ffmpeg_is_reaped_when_decoding_is_given_up(
    clip: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., Refused]
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def remember(*args: object, **kwargs: object) -> subprocess.Popen[bytes]:
        started.append(popen(*args, **kwargs))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr("fsclap.ffmpeg.subprocess.Popen", remember)
    monkeypatch.setattr("fsclap.media._declared_duration", lambda media, source: None)
    assert refusal(clip, DecodeSettings(max_duration=2)).reason == "too_long"
    assert len(started) == 2
    assert all(process.returncode is not None for process in started)


def test_a_missing_file_is_not_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        decode(tmp_path / "none.mp4", tmp_path / "raw.f32", sample_rate=RATE, settings=SETTINGS)


# What a stranger may make ----------------------------------------------------------------------------


def wav_header(*, rate: int = 8000, channels: int = 1, size: int = 32_000) -> bytes:
    form = (16).to_bytes(4, "little") + (1).to_bytes(2, "little") + channels.to_bytes(2, "little")
    form += rate.to_bytes(4, "little") + (rate * channels * 2 % 2**32).to_bytes(4, "little")
    form += (channels * 2 % 2**16).to_bytes(2, "little") + (16).to_bytes(2, "little")
    data = b"data" + size.to_bytes(4, "little")
    return b"RIFF" + min(size + 36, 2**32 - 2).to_bytes(4, "little") + b"WAVEfmt " + form + data


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (wav_header(rate=10**9), "unreadable"),
        (wav_header(rate=2**32 - 1), "not_media"),
        (wav_header(rate=1), "unreadable"),
        (wav_header(channels=255), "unreadable"),
        (wav_header(channels=65535), "unreadable"),
        (wav_header(size=2**32 - 100), "silent"),  # a writer to a pipe may say anything
    ],
    ids=["gigahertz", "4 GHz", "1 Hz", "255 channels", "65535 channels", "4 GB"],
)
def test_a_header_that_claims_too_much(
    header: bytes, reason: str, tmp_path: Path, refusal: Callable[..., Refused]
) -> None:
    (tmp_path / "a.wav").write_bytes(header + bytes(32_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refusal(tmp_path / "a.wav").reason == reason
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


LISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" mediaPresentationDuration="PT8S">'
    '<Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "imf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>{}</Id>'
    "</CompositionPlaylist>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={}\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{}"/></svg>',
}


@pytest.mark.parametrize("kind", LISTS)
def test_no_file_leads_to_another(
    kind: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., Refused]
) -> None:
    (tmp_path / "list").write_text(LISTS[kind].format(clip))
    assert refusal(tmp_path / "list").reason == "not_media"
    assert not (tmp_path / "refused.f32").exists()


def test_sound_that_lies_in_another_file_is_not_read(clip: Path, tmp_path: Path) -> None:
    """An MP4 whose track says that its samples are in another file (dref url, not self-contained)."""
    data = bytearray(clip.read_bytes())
    at = data.index(b"dref")
    entry = data.index(b"url ", at)
    data[entry + 4 : entry + 8] = bytes(4)  # the flag "in this file" taken away
    (tmp_path / "a.mp4").write_bytes(data)
    shutil.copy(clip, tmp_path / "other.mp4")
    decoded = decode(tmp_path / "a.mp4", tmp_path / "a.f32", sample_rate=RATE, settings=SETTINGS)
    expected = decode(clip, tmp_path / "b.f32", sample_rate=RATE, settings=SETTINGS)
    np.testing.assert_array_equal(decoded, expected)  # its own bytes, whatever the reference says


@pytest.mark.parametrize("size", ["16000x16000", "7680x4320"])
def test_a_picture_is_never_decoded(size: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = ["-f", "lavfi", "-i", f"color=size={size}:rate=1:duration=2", "-c:v", "mjpeg", "-q:v", "31"]
    media = make(tmp_path / "a.mkv", "-i", clip, *picture, "-map", "0:a", "-map", "1:v", "-c:a", "copy")
    monkeypatch.setattr("fsclap.ffmpeg.MEMORY", 150_000_000)  # a frame of 16000 by 16000 takes 384 MB
    decoded = decode(media, tmp_path / "a.f32", sample_rate=RATE, settings=SETTINGS)
    assert decoded.shape[1] == pytest.approx(8 * RATE, rel=0.05)


def test_memory_of_ffmpeg_is_bounded(
    clip: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., Refused]
) -> None:
    monkeypatch.setattr("fsclap.ffmpeg.MEMORY", 10_000_000)  # which is not enough for anything
    assert refusal(clip).reason in {"not_media", "unreadable"}


def test_tracks_attachments_and_metadata_without_number(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "attached").write_bytes(bytes(5_000_000))
    chapters = "".join(f"[CHAPTER]\nSTART={n}\nEND={n + 1}\ntitle={'x' * 1000}\n" for n in range(2000))
    (tmp_path / "meta").write_text(f";FFMETADATA1\ntitle={'t' * 100_000}\n{chapters}")
    tracks = [part for _ in range(100) for part in ("-map", "0:a")]
    attached = ["-attach", tmp_path / "attached", "-metadata:s:t", "mimetype=application/octet-stream"]
    media = make(
        tmp_path / "a.mkv", "-i", clip, "-f", "ffmetadata", "-i", tmp_path / "meta", *tracks, "-map_metadata", "1",
        "-c", "copy", *attached,
    )  # fmt: skip
    decoded = decode(media, tmp_path / "a.f32", sample_rate=RATE, settings=SETTINGS)
    assert decoded.shape[1] == pytest.approx(8 * RATE, rel=0.05)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.f32", "a.mkv", "attached", "meta"]


def test_a_chain_of_streams_is_sound_up_to_the_limit(
    clip: Path, tmp_path: Path, refusal: Callable[..., Refused]
) -> None:
    one = make(tmp_path / "one.ogg", "-i", clip, "-vn", "-c:a", "libvorbis", "-t", "2")
    (tmp_path / "chain.ogg").write_bytes(one.read_bytes() * 20)
    assert refusal(tmp_path / "chain.ogg", DecodeSettings(max_duration=10)).reason in {"too_long", "unreadable"}


def test_the_worker_s_keys_are_not_handed_to_ffmpeg(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, str]] = []
    popen = subprocess.Popen

    def remember(*args: object, **kwargs: object) -> subprocess.Popen[bytes]:
        seen.append(kwargs["env"])  # type: ignore[arg-type]
        return popen(*args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setenv("PREFECT_API_KEY", "hunter2")
    monkeypatch.setattr("fsclap.ffmpeg.subprocess.Popen", remember)
    decode(clip, tmp_path / "a.f32", sample_rate=RATE, settings=SETTINGS)
    assert seen
    assert "hunter2" not in str(seen)
