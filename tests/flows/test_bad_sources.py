"""Whatever a source may be, it ends as utterances or as a row that says why not, and the run goes on."""

import asyncio
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from prefect.client.orchestration import get_client

from flows.build_dataset import build_dataset
from fsclap.audio import DecodeSettings, ffmpeg_binary
from fsclap.corpus.addresses import redact
from fsclap.corpus.download import DownloadSettings, clean_text
from fsclap.corpus.settings import BuildSettings
from storage.corpus import Corpus
from storage.verify import verify
from tasks.download import download, list_episodes
from tests.flows.conftest import cut
from tests.flows.pages import ENTRIES, HLS, MPD, TITLE, feed, gzip_bomb, hostile_documents, passing_for_public, serve

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

KEPT = ("kept", "", "")

NO_SPEECH = ("rejected", "diarization", "no_speech")
SILENT = ("rejected", "decode", "silent")
PRIVATE = ("failed", "download", "private_address")


def refused(reason: str, *, stage: str = "download") -> tuple[str, str, str]:
    return ("rejected", stage, reason)


REMOTE = {
    # name behind the address: outcome as (status, stage, reason)
    "status-404.mp4": refused("http_404"),
    "status-403.mp4": refused("http_403"),
    "status-503.mp4": ("failed", "download", "http_503"),
    "page.html": refused("not_media"),
    "page.mp4": refused("not_media"),
    "empty.mp4": refused("empty_file"),
    "loop.mp4": refused("redirect_loop"),
    "chain-1.mp4": refused("redirect_loop"),
    "endless.mp4": refused("too_large"),
    "short-of.mp4": ("failed", "download", "connection_lost"),
    "slow.mp4": refused("download_timeout"),
    "stammering.mp4": refused("download_timeout"),
    "gzip-bomb.html": refused("page_too_large"),
    "laughs.xml": refused("not_media"),
    "many.xml": ("failed", "download", "too_many_episodes"),
    "itself.xml": refused("is_a_playlist"),
    "get.php": refused("unsafe_extension"),
    "hls-segments.m3u8": PRIVATE,
    "hls-file.m3u8": refused("unsupported_scheme"),
    "hls-drm.m3u8": refused("unsupported_protocol"),
    "dash-segments.mpd": PRIVATE,
    "redirect.mp4?to=http://169.254.169.254/keys": PRIVATE,
    "redirect.mp4?to=file:///etc/group": refused("unsupported_scheme"),
    "good.mp4?title=../../etc/passwd&token=REDACTED": KEPT,
}
LISTED = {
    "titles.xml": {"titled.mp4": SILENT},
    "intranet.xml": {"/secret.mp4": PRIVATE},
    "entries.xml": {address: refused(reason) for address, reason in ENTRIES.items() if "hunter2" not in address},
    "password.xml": {"http://127.0.0.1/listed.mp4": refused("credentials_in_address")},
}
"""Feed -> what it lists -> outcome."""
ADDRESSES = {
    "http://127.0.0.1:1/unreachable.mp4": PRIVATE,
    "http://[::ffff:169.254.169.254]/": PRIVATE,
    "http://0x7f.1:1/": PRIVATE,
    "ftp://127.0.0.1/a.mp4": refused("unsupported_scheme"),
    "file:///etc/hosts": refused("unsupported_scheme"),
    "data:text/html,<b>": refused("unsupported_scheme"),
    "http://user:hunter2@127.0.0.1/named.mp4": refused("credentials_in_address"),
    "/no/such/file.mp4": refused("no_such_file"),
    "--help": refused("no_such_file"),
}
FILES = {
    "00 good.mp4": KEPT,
    "01 the same again.mp4": refused("duplicate"),
    "02 zero bytes.mp4": refused("empty_file"),
    "03 text.mp4": refused("not_media", stage="decode"),
    "04 no index.mp4": refused("truncated", stage="decode"),
    "05 cut off.mp4": refused("truncated", stage="decode"),
    "06 no sound.mp4": refused("no_audio_track", stage="decode"),
    "07 silence.wav": SILENT,
    "08 a tenth of a second.wav": refused("too_short", stage="decode"),
    "09 tone.wav": NO_SPEECH,
    "10 not a number.wav": refused("invalid_samples", stage="decode"),
    "11 an hour.flac": refused("too_long", stage="decode"),
    "12 video with a wrong ending.txt": KEPT,
    "13 8 kHz.wav": KEPT,
    "14 5.1.flac": KEPT,
    "15 96 kHz.flac": KEPT,
    "16 ../in the title; rm -rf $HOME.mp4": KEPT,
    "17 caf\udce9.mp4": KEPT,
    "18 hls list.mp4": refused("not_media", stage="decode"),
    "19 concat list.mp3": refused("not_media", stage="decode"),
    "20 dash manifest.mp4": refused("not_media", stage="decode"),
    "21 a billion hertz.wav": refused("unreadable", stage="decode"),
    "22 4 GB declared.wav": refused("truncated", stage="decode"),
    "23 255 channels.wav": refused("unreadable", stage="decode"),
    "24 half an hour in kilobytes.aac": refused("too_long", stage="decode"),
    "25 zip.mp4": refused("not_media", stage="decode"),
    "26 picture.mp3": refused("not_media", stage="decode"),
    "27 page.mp3": refused("not_media", stage="decode"),
    "28 %(title)s %s {}.wav": SILENT,
    "29 \u202egnp.wav": SILENT,
}


class Outcome(NamedTuple):
    status: str
    stage: str
    reason: str


def ffmpeg(*arguments: str) -> None:
    subprocess.run([ffmpeg_binary(), "-nostdin", "-v", "error", "-y", *arguments], check=True)


def make_files(folder: Path, good: Path) -> None:
    folder.mkdir()
    path = {int(name[:2]): folder / name.replace("/", "\u2215") for name in FILES}
    data = good.read_bytes()
    shutil.copy(good, path[0])
    shutil.copy(good, path[1])
    path[2].touch()
    path[3].write_text("This is not a video.\n" * 100)
    path[4].write_bytes(data[: len(data) // 2])  # the index of this mp4 is at its end
    fast = folder.parent / "fast.mp4"
    ffmpeg("-i", str(good), "-c", "copy", "-movflags", "+faststart", str(fast))
    path[5].write_bytes(fast.read_bytes()[: fast.stat().st_size // 3])
    ffmpeg("-i", str(good), "-an", "-c", "copy", str(path[6]))
    rate = 16_000
    soundfile.write(path[7], np.zeros(5 * rate), rate)
    soundfile.write(path[8], np.sin(np.arange(rate // 10)), rate)
    soundfile.write(path[9], 0.3 * np.sin(2 * np.pi * 440 / rate * np.arange(5 * rate)), rate)
    soundfile.write(path[10], np.full(5 * rate, np.nan), rate, subtype="FLOAT")
    ffmpeg("-f", "lavfi", "-i", "sine=440:r=8000:d=3600", str(path[11]))
    shutil.copy(good, path[12])
    _other_bytes(path[12])
    ffmpeg("-i", str(good), "-vn", "-ac", "1", "-ar", "8000", str(path[13]))
    ffmpeg("-i", str(good), "-vn", "-af", "pan=5.1|FC=c0|FL=0.1*c0|FR=0.1*c0", str(path[14]))
    ffmpeg("-i", str(good), "-vn", "-ar", "96000", str(path[15]))
    for number in (16, 17):
        shutil.copy(good, path[number])
        _other_bytes(path[number])
    make_hostile_files(path)


def make_hostile_files(path: dict[int, Path]) -> None:
    path[18].write_text(HLS.format("", path[0]))
    path[19].write_text(f"ffconcat version 1.0\nfile '{path[0]}'\n")
    path[20].write_text(MPD.format(f"<BaseURL>{path[0]}</BaseURL>"))
    header = path[7].read_bytes()
    path[21].write_bytes(header[:24] + (10**9).to_bytes(4, "little") + header[28:])
    path[22].write_bytes(header[:4] + b"\xf0\xff\xff\xff" + header[8:40] + b"\x00\xff\xff\xff" + header[44:])
    channels = (255).to_bytes(2, "little") + header[24:32] + (510).to_bytes(2, "little")
    path[23].write_bytes(header[:22] + channels + header[34:44] + bytes(510 * 16_000))
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono", "-t", "100", "-b:a", "8k", str(path[24]))
    path[24].write_bytes(path[24].read_bytes() * 20)  # frames of silence, and no header that tells how many
    with zipfile.ZipFile(path[25], "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", bytes(10**6))
    ffmpeg("-f", "lavfi", "-i", "color=s=64x64", "-frames:v", "1", "-f", "image2pipe", "-c:v", "png", str(path[26]))
    path[27].write_text("<!doctype html><audio src='file:///etc/passwd'>")
    for number in (28, 29):
        soundfile.write(path[number], np.zeros(number * 1000), 16_000)


def _other_bytes(media: Path) -> None:
    """The same recording with other bytes, so that it is no duplicate: a free atom, which players skip."""
    with media.open("ab") as stream:
        stream.write((8 + 16).to_bytes(4, "big") + b"free" + os.urandom(16))


@pytest.fixture(scope="module")
def outcomes(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("bad")
    good = cut(sample(), folder / "good.mp4", start=0, seconds=20)
    remote = folder / "remote.mp4"
    shutil.copy(good, remote)
    _other_bytes(remote)
    make_files(folder / "files", good)
    (folder / "nothing").mkdir()
    gzip_bomb()
    settings = BuildSettings(
        download=DownloadSettings(
            max_megabytes=40, connection_retries=0, socket_timeout=10, timeout=15, max_episodes=200
        ),
        decode=DecodeSettings(max_duration=1200),
    )
    files = {"good.mp4": remote, "get.php": remote, "titled.mp4": folder / "files" / "07 silence.wav"}
    with (
        serve({"secret.mp4": good}) as (private, asked),
        serve(files) as (public, _),
        pytest.MonkeyPatch.context() as env,
    ):
        for name, text in documents(public, private).items():
            (folder / name).write_text(text)
            files[name] = folder / name
        for variable, value in passing_for_public(public).items():
            env.setenv(variable, value)
        addresses = [f"{public}/{name.replace('REDACTED', 'S3CRET')}" for name in (*REMOTE, *LISTED)]
        sources = [str(folder / "files"), str(folder / "nothing"), *ADDRESSES, *addresses]
        state = build_dataset(sources, str(folder / "corpus"), str(folder / "work"), settings, return_state=True)
        assert state.is_completed()
        assert asked == []
    return Corpus.open(str(folder / "corpus"))


def documents(public: str, private: str) -> dict[str, str]:
    return hostile_documents(public, private) | {
        "titles.xml": feed(f"{public}/titled.mp4", title=TITLE),
        "password.xml": feed("http://user:hunter2@127.0.0.1/listed.mp4"),
        "entries.xml": feed(*(address for address in ENTRIES if "hunter2" not in address)),
    }


def sample() -> str:
    from tests.flows.conftest import SAMPLES

    return sorted(path.relative_to(SAMPLES).as_posix() for path in SAMPLES.glob("*/*.mp4"))[0]


@pytest.fixture(scope="module", autouse=True)
def _no_waiting_between_tries() -> Any:
    delays = {task: task.retry_delay_seconds for task in (download, list_episodes)}
    for task in delays:
        task.retry_delay_seconds = [0.0]
    yield
    for task, delay in delays.items():
        task.retry_delay_seconds = delay


def outcome_of(corpus: Corpus, name: str, *, field: str) -> Outcome:
    (source,) = [row for row in corpus.ledger().values() if name in row[field]]
    rejects = [row for row in corpus.rejects().to_pylist() if row["source_id"] == source["source_id"]]
    whole = [row for row in rejects if row["start"] is None]
    if source["status"] == "kept":
        assert whole == []
        assert source["turns_found"] > 0
        return Outcome("kept", "", "")
    (reject,) = whole
    assert len(reject["detail"]) > 20
    return Outcome(source["status"], reject["stage"], reject["reason"])


@pytest.mark.parametrize("name", FILES)
def test_a_file(outcomes: Corpus, name: str) -> None:
    shown = clean_text(Path(name.replace("/", "\u2215")).stem)
    assert outcome_of(outcomes, shown, field="title") == FILES[name]


@pytest.mark.parametrize("name", REMOTE)
def test_an_address_on_a_server(outcomes: Corpus, name: str) -> None:
    assert outcome_of(outcomes, name, field="url") == REMOTE[name]


@pytest.mark.parametrize(
    ("name", "expected"), [(name, one) for listed in LISTED.values() for name, one in listed.items()]
)
def test_what_a_feed_lists(outcomes: Corpus, name: str, expected: tuple[str, str, str]) -> None:
    assert outcome_of(outcomes, name, field="url") == expected


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address(outcomes: Corpus, address: str) -> None:
    assert outcome_of(outcomes, redact(address), field="url") == ADDRESSES[address]


def test_an_empty_folder(outcomes: Corpus) -> None:
    assert outcome_of(outcomes, "/nothing", field="url") == ("rejected", "download", "empty_folder")


def test_nothing_is_lost(outcomes: Corpus) -> None:
    assert verify(outcomes).problems == []
    listed = sum(map(len, LISTED.values()))
    assert len(outcomes.ledger()) == len(FILES) + len(REMOTE) + len(ADDRESSES) + listed + 1


def test_no_secret_is_in_the_corpus(outcomes: Corpus) -> None:
    """But in build.json, which a refresh repeats: what a user named is kept as it is."""
    files = [path for path in outcomes.folder.rglob("*") if path.is_file() and path.name != "build.json"]
    assert len(files) > 10
    assert [path for path in files if b"S3CRET" in path.read_bytes() or b"hunter2" in path.read_bytes()] == []
    tables = [outcomes.rejects(), outcomes.sources(), outcomes.utterances(columns=["url", "title"])]
    assert "REDACTED" in str([table.to_pylist() for table in tables])
    assert not re.search("S3CRET|hunter2", str([table.to_pylist() for table in tables]))


def test_no_secret_is_in_logs_states_and_artifacts(outcomes: Corpus) -> None:
    told = asyncio.run(_told_by_the_server())
    assert "many.xml" in told
    assert "token=REDACTED" in told
    assert not re.search("S3CRET|hunter2", told)


async def _told_by_the_server() -> str:
    async with get_client() as client:
        pages = [await client.read_logs(limit=200, offset=offset) for offset in range(0, 4000, 200)]
        runs = await client.read_task_runs(limit=200)
        artifacts = await client.read_artifacts(limit=200)
    return str([[one.message for page in pages for one in page], [(run.name, run.state) for run in runs], artifacts])


def test_a_title_of_a_stranger_is_a_line_of_text(outcomes: Corpus) -> None:
    (row,) = [row for row in outcomes.ledger().values() if "titled.mp4" in row["url"]]
    assert row["title"].startswith("gnp.exe <script>alert(1)</script> ../../etc/passwd {{ 7*7 }} %(title)s xxx")
    assert len(row["title"]) == 200
