"""Whatever a source may be, it ends as utterances or as a row that says why not, and the run goes on."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile

from flows.build_dataset import build_dataset
from fsclap.audio import DecodeSettings, ffmpeg_binary
from fsclap.corpus.download import DownloadSettings, clean_text
from fsclap.corpus.settings import BuildSettings
from storage.check import check
from storage.corpus import Corpus
from tasks.download import download, list_episodes
from tests.flows.conftest import cut
from tests.flows.pages import serve

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

KEPT = ("kept", "", "")

REMOTE = {
    # name behind the address: outcome as (status, stage, reason)
    "status-404.mp4": ("rejected", "download", "http_404"),
    "status-403.mp4": ("rejected", "download", "http_403"),
    "status-503.mp4": ("failed", "download", "http_503"),
    "page.html": ("rejected", "download", "not_media"),
    "page.mp4": ("rejected", "download", "not_media"),
    "empty.mp4": ("rejected", "download", "empty_file"),
    "loop.mp4": ("rejected", "download", "redirect_loop"),
    "endless.mp4": ("rejected", "download", "too_large"),
    "short-of.mp4": ("failed", "download", "connection_lost"),
    "good.mp4?title=../../etc/passwd": KEPT,
}
ADDRESSES = {
    "http://127.0.0.1:1/unreachable.mp4": ("failed", "download", "unreachable"),
    "ftp://127.0.0.1/a.mp4": ("rejected", "download", "unsupported_scheme"),
    "/no/such/file.mp4": ("rejected", "download", "no_such_file"),
}
FILES = {
    "00 good.mp4": KEPT,
    "01 the same again.mp4": ("rejected", "download", "duplicate"),
    "02 zero bytes.mp4": ("rejected", "download", "empty_file"),
    "03 text.mp4": ("rejected", "decode", "not_media"),
    "04 no index.mp4": ("rejected", "decode", "truncated"),
    "05 cut off.mp4": ("rejected", "decode", "truncated"),
    "06 no sound.mp4": ("rejected", "decode", "no_audio_track"),
    "07 silence.wav": ("rejected", "decode", "silent"),
    "08 a tenth of a second.wav": ("rejected", "decode", "too_short"),
    "09 tone.wav": ("rejected", "diarization", "no_speech"),
    "10 not a number.wav": ("rejected", "decode", "invalid_samples"),
    "11 an hour.flac": ("rejected", "decode", "too_long"),
    "12 video with a wrong ending.txt": KEPT,
    "13 8 kHz.wav": KEPT,
    "14 5.1.flac": KEPT,
    "15 96 kHz.flac": KEPT,
    "16 ../in the title; rm -rf $HOME.mp4": KEPT,
    "17 caf\udce9.mp4": KEPT,
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
    settings = BuildSettings(
        download=DownloadSettings(max_megabytes=40, connection_retries=0, socket_timeout=5),
        decode=DecodeSettings(max_duration=1200),
    )
    with serve({"good.mp4": remote}) as (address, _):
        sources = [str(folder / "files"), str(folder / "nothing"), *ADDRESSES, *(f"{address}/{n}" for n in REMOTE)]
        build_dataset(sources, str(folder / "corpus"), str(folder / "work"), settings)
    return Corpus.open(str(folder / "corpus"))


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


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address(outcomes: Corpus, address: str) -> None:
    assert outcome_of(outcomes, address, field="url") == ADDRESSES[address]


def test_an_empty_folder(outcomes: Corpus) -> None:
    assert outcome_of(outcomes, "/nothing", field="url") == ("rejected", "download", "empty_folder")


def test_nothing_is_lost(outcomes: Corpus) -> None:
    assert check(outcomes) == []
    assert len(outcomes.ledger()) == len(FILES) + len(REMOTE) + len(ADDRESSES) + 1
