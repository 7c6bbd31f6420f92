"""One source of each kind that goes wrong: it ends as a row that says why, and the run goes on.

All the ways in which an address or a file can be bad are in tests/fsclap/corpus/test_download.py
and tests/fsclap/test_audio.py.
"""

import asyncio
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prefect.client.orchestration import get_client

from flows.build_dataset import build_dataset
from fsclap.corpus.addresses import redact
from fsclap.corpus.settings import BuildSettings
from harness.samples import cut, sample_episodes
from storage.corpus import Corpus
from storage.verify import verify
from tasks.download import download, list_episodes
from tests.flows.pages import TITLE, feed, passing_for_public, serve

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


class Outcome(NamedTuple):
    status: str
    stage: str = ""
    reason: str = ""


KEPT = Outcome("kept")
FILES = {
    "00 good.mp4": KEPT,
    "01 the same again.mp4": Outcome("rejected", "download", "duplicate"),
    "02 text.mp4": Outcome("rejected", "decode", "not_media"),
    "03 tone.wav": Outcome("rejected", "diarization", "no_speech"),
}
"""File of a folder -> what becomes of it."""
REMOTE = {
    "status-404.mp4": Outcome("rejected", "download", "http_404"),
    "short-of.mp4": Outcome("failed", "download", "connection_lost"),
    "many.xml": Outcome("failed", "download", "too_many_episodes"),
    "redirect.mp4?to=http://169.254.169.254/keys": Outcome("failed", "download", "private_address"),
    "good.mp4?title=../../etc/passwd&token=REDACTED": KEPT,
}
"""Name on a server -> what becomes of it."""
LISTED = {
    "titles.xml": {"titled.mp4": Outcome("rejected", "diarization", "no_speech")},
    "password.xml": {"http://127.0.0.1/listed.mp4": Outcome("rejected", "download", "credentials_in_address")},
}
"""Feed -> what it lists -> what becomes of that."""
ADDRESSES = {
    "http://127.0.0.1:1/unreachable.mp4": Outcome("failed", "download", "private_address"),
    "http://user:hunter2@127.0.0.1/named.mp4": Outcome("rejected", "download", "credentials_in_address"),
    "/no/such/file.mp4": Outcome("rejected", "download", "no_such_file"),
}
"""Address -> what becomes of it."""


@pytest.fixture(scope="module", autouse=True)
def _no_pause_between_tries() -> Iterator[None]:
    delays = {task: task.retry_delay_seconds for task in (download, list_episodes)}
    for task in delays:
        task.retry_delay_seconds = [0.0]
    yield
    for task, delay in delays.items():
        task.retry_delay_seconds = delay


@pytest.fixture(scope="module")
def corpus(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """What a build makes of all of these sources at once."""
    folder = tmp_path_factory.mktemp("bad")
    good = cut(sample_episodes()[0], folder / "good.mp4", start=0, seconds=10)
    make_files(folder / "files", good)
    (folder / "nothing").mkdir()
    remote = Path(shutil.copy(good, folder / "remote.mp4"))
    with remote.open("ab") as stream:  # other bytes, so that it is no duplicate: a free atom, which players skip
        stream.write((8 + 16).to_bytes(4, "big") + b"free" + os.urandom(16))
    limits = {"connection_retries": 0, "socket_timeout": 10, "timeout": 30, "max_episodes": 200}
    settings = BuildSettings.model_validate({"download": {"limits": limits}})
    served = {"good.mp4": remote, "titled.mp4": folder / "files" / "03 tone.wav"}
    with serve(served) as (public, _), pytest.MonkeyPatch.context() as environment:
        for name, text in documents(public).items():
            (folder / name).write_text(text)
            served[name] = folder / name
        for variable, value in passing_for_public(public).items():
            environment.setenv(variable, value)
        addresses = [f"{public}/{name.replace('REDACTED', 'S3CRET')}" for name in (*REMOTE, *LISTED)]
        sources = [str(folder / "files"), str(folder / "nothing"), *ADDRESSES, *addresses]
        state = build_dataset(sources, str(folder / "corpus"), str(folder / "work"), settings, return_state=True)
    assert state.is_completed()
    return Corpus.open(str(folder / "corpus"))


@pytest.fixture(scope="module")
def outcomes(corpus: Corpus) -> dict[str, Outcome]:
    """Address of each source, as the corpus shows it -> what became of it."""
    whole = {row["source_id"]: row for row in corpus.rejects().to_pylist() if row["start"] is None}
    results = {}
    for source in corpus.ledger().values():
        reject = whole.get(source["source_id"])
        if reject is None:
            assert source["turns_found"] > 0
            results[source["url"]] = Outcome(source["status"])
        else:
            assert len(reject["detail"]) > 20
            results[source["url"]] = Outcome(source["status"], reject["stage"], reject["reason"])
    return results


def make_files(folder: Path, good: Path) -> None:
    import numpy as np
    import soundfile

    folder.mkdir()
    for name in ("00 good.mp4", "01 the same again.mp4"):
        shutil.copy(good, folder / name)
    (folder / "02 text.mp4").write_text("This is not a video.\n" * 100)
    rate = 16_000
    tone = 0.3 * np.sin(2 * np.pi * 440 / rate * np.arange(3 * rate))
    soundfile.write(folder / "03 tone.wav", tone, rate)


def documents(public: str) -> dict[str, str]:
    """Feeds by name."""
    return {
        "many.xml": feed(*(f"{public}/{number}.mp4" for number in range(300))),
        "titles.xml": feed(f"{public}/titled.mp4", title=TITLE),
        "password.xml": feed("http://user:hunter2@127.0.0.1/listed.mp4"),
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name.replace(" ", "%20"), outcome) for name, outcome in FILES.items()),
        *REMOTE.items(),
        *(item for listed in LISTED.values() for item in listed.items()),
        *((redact(address), outcome) for address, outcome in ADDRESSES.items()),
        ("/nothing", Outcome("rejected", "download", "empty_folder")),
    ],
)
def test_a_source_ends_as_rows_or_as_a_reason(outcomes: dict[str, Outcome], name: str, expected: Outcome) -> None:
    (address,) = [address for address in outcomes if name in address]
    assert outcomes[address] == expected


def test_every_source_is_in_the_ledger(corpus: Corpus) -> None:
    assert verify(corpus).problems == []
    listed = sum(map(len, LISTED.values()))
    assert len(corpus.ledger()) == len(FILES) + len(REMOTE) + len(ADDRESSES) + listed + 1


def test_no_secret_is_in_the_corpus(corpus: Corpus) -> None:
    """But in build.json, which a refresh repeats: what a user named is kept as it is."""
    files = [path for path in corpus.folder.rglob("*") if path.is_file() and path.name != "build.json"]
    assert len(files) > 10
    assert [path for path in files if b"S3CRET" in path.read_bytes() or b"hunter2" in path.read_bytes()] == []
    tables = [corpus.rejects(), corpus.sources(), corpus.utterances(columns=["url", "title"])]
    text = str([table.to_pylist() for table in tables])
    assert "REDACTED" in text
    assert not re.search("S3CRET|hunter2", text)


def test_no_secret_is_in_logs_states_and_artifacts(corpus: Corpus) -> None:
    text = asyncio.run(_text_of_the_server())
    assert "many.xml" in text
    assert "token=REDACTED" in text
    assert not re.search("S3CRET|hunter2", text)


async def _text_of_the_server() -> str:
    """All that a server shows of its runs."""
    async with get_client() as client:
        pages: list[Any] = [await client.read_logs(limit=200, offset=offset) for offset in range(0, 4000, 200)]
        runs = await client.read_task_runs(limit=200)
        artifacts = await client.read_artifacts(limit=200)
    messages = [record.message for page in pages for record in page]
    return str([messages, [(run.name, run.state) for run in runs], artifacts])


def test_a_title_of_a_stranger_is_a_line_of_text(corpus: Corpus) -> None:
    (row,) = [row for row in corpus.ledger().values() if "titled.mp4" in row["url"]]
    assert row["title"].startswith("gnp.exe <script>alert(1)</script> ../../etc/passwd {{ 7*7 }} %(title)s xxx")
    assert len(row["title"]) == 200
