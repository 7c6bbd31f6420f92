"""Two builds of one corpus and a refresh at once: every source once, and no work is lost."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL

from harness.samples import cut, sample_episodes
from storage.build_record import read_build
from storage.corpus import Corpus
from storage.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

BUILD = """
import sys
from flows.build_dataset import build_dataset
from fsclap.corpus.settings import BuildSettings
build_dataset(sys.argv[3:], sys.argv[1], sys.argv[2], BuildSettings(batch_episodes=1))
"""
REFRESH = """
import sys
from flows.refresh_corpus import refresh_corpus
refresh_corpus(sys.argv[1])
"""


@pytest.mark.parametrize("where", ["a local folder", "an object store"])
def test_every_source_is_there_once(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    episodes = sample_episodes()[:4]
    one, two = tmp_path / "one", tmp_path / "two"
    files = [
        cut(episode, one / f"e{number}.mp4", start=0, seconds=12) for number, episode in enumerate(episodes, start=1)
    ]
    shared = [str(file) for file in files[1:3]]
    two.mkdir()
    again = shutil.copy(files[0], two / "again.mp4")  # the same recording under another address
    root = str(tmp_path) if where == "a local folder" else request.getfixturevalue("bucket")
    corpus, work = f"{root}/corpus", str(tmp_path / "work")
    run(BUILD, corpus, work, shared[0]).wait()
    both = [
        run(BUILD, corpus, work, str(files[0]), *shared),
        run(BUILD, corpus, work, *reversed(shared), str(files[3]), str(again)),
        run(REFRESH, corpus),
    ]
    assert [process.wait() for process in both] == [0, 0, 0]

    table = Corpus.open(corpus)
    assert verify(table).problems == []
    ledger = table.ledger()
    statuses = Counter(row["status"] for row in ledger.values())
    assert statuses == {"kept": 4, "rejected": 1}
    assert {row["reason"] for row in table.rejects().to_pylist() if row["start"] is None} == {"duplicate"}
    build = read_build(table)
    assert build is not None
    assert set(build["sources"]) == {*map(str, files), str(again)}
    assert set(table.speakers()["speaker"].to_pylist()) == set(
        table.utterances(columns=["speaker"])["speaker"].to_pylist()
    )


def run(script: str, *arguments: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    return subprocess.Popen([sys.executable, "-c", script, *arguments], env=environment)
