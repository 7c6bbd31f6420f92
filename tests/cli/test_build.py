"""`fsclap build` as a person types it: what it hands on, and what it refuses before anything starts."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli import main as cli
from deployments.start import missing

ROOT = Path(__file__).parents[2]


@pytest.fixture
def handed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """The parameters of each run that was asked for; the working folder is a user's own."""
    asked: list[dict[str, Any]] = []

    def start(command: list[str], *, input: bytes, check: bool) -> subprocess.CompletedProcess[bytes]:
        assert command[1:] == ["-m", "deployments.start", "build-dataset/build-dataset"]
        asked.append(json.loads(input))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(cli.subprocess, "run", start)
    monkeypatch.chdir(tmp_path)
    return asked


def test_what_is_here_is_named_by_its_whole_path(
    handed_on: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "my talks").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "a.mp4").touch()
    feed = "https://example.org/feed.xml"
    assert cli.main(["build", "my talks", "~/a.mp4", ".", feed, "--corpus", "out"]) == 0
    assert cli.main(["build", "--corpus", "~/corpus"]) == 0
    assert cli.main(["build", "--corpus", "s3://bucket/corpus"]) == 0
    assert cli.main(["build"]) == 0
    assert cli.main(["build", "--fetch-again", "--singletons", "keep"]) == 0
    here = str(tmp_path)
    assert handed_on == [
        {"sources": [f"{here}/my talks", f"{here}/home/a.mp4", here, feed], "corpus": f"{here}/out"},
        {"corpus": f"{here}/home/corpus"},
        {"corpus": "s3://bucket/corpus"},
        {},
        {"settings": {"download": {"limits": {"fetch_again": True}}, "consistency": {"singletons": "keep"}}},
    ]


def test_a_name_that_is_no_utf_8_is_handed_on_as_an_address(handed_on: list[dict[str, Any]], tmp_path: Path) -> None:
    from fsclap.corpus.download import DownloadSettings, list_episodes

    name = os.fsdecode(b"caf\xe9.mp4")
    (tmp_path / name).write_bytes(b"sound")
    assert cli.main(["build", name]) == 0
    (address,) = handed_on[0]["sources"]
    assert address == f"{tmp_path.as_uri()}/caf%E9.mp4"
    (episode,) = list_episodes(address, DownloadSettings())
    assert episode == list_episodes(str(tmp_path / name), DownloadSettings())[0]
    assert episode.locator == address


def test_three_thousand_files_are_a_run(handed_on: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    files = [tmp_path / "videos" / f"{number:04d} a talk about this and that.mp4" for number in range(3000)]
    for file in files:
        file.touch()
    assert cli.main(["build", *(f"videos/{file.name}" for file in files)]) == 0
    assert handed_on == [{"sources": list(map(str, files))}]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.mp4"], "'nothing.mp4': neither an address nor a file or folder here"),
        ([".", "--corpus", "[2024]"], "no corpus can be in"),
        (["https://example.org/" + "x" * 600_000], "name the folder that they are in"),
    ],
    ids=["no file", "no corpus", "too many"],
)
def test_what_can_not_be_is_a_sentence_and_starts_nothing(
    arguments: list[str], said: str, handed_on: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["build", *arguments]) == 1
    assert said in capsys.readouterr().err
    assert handed_on == []


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (None, "No Prefect server is named: set PREFECT_API_URL"),
        ("http://127.0.0.1:9/api", "No Prefect server answers at http://127.0.0.1:9/api"),
    ],
)
def test_a_server_that_is_not_there_is_a_sentence(server: str | None, said: str) -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    updates = {PREFECT_CLIENT_MAX_RETRIES: 0} | ({PREFECT_API_URL: server} if server else {})
    with temporary_settings(updates, restore_defaults=set() if server else {PREFECT_API_URL}):
        problem = asyncio.run(missing("build-dataset/build-dataset"))
    assert problem is not None
    assert problem.startswith(said)
    assert "make ui" in problem


def test_a_server_without_the_deployment_is_a_sentence(prefect_server: None) -> None:
    problem = asyncio.run(missing("build-dataset/build-dataset"))
    assert problem is not None
    assert "python -m deployments.bootstrap" in problem


@pytest.mark.slow
def test_the_sentence_is_all_that_is_shown(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cli.main", "build", str(ROOT / "samples")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("No Prefect server is named")
    assert len(done.stderr.splitlines()) == 1
