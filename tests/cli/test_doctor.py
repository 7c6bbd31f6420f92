"""`fsclap doctor` says what to mend, and is content with what is in order."""

import json
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli import doctor
from cli import main as cli
from tests.object_store import BUCKET, nanio

Shown = pytest.CaptureFixture[str]


def examine(capsys: Shown, *arguments: str | Path) -> tuple[int, dict[str, dict[str, str]]]:
    capsys.readouterr()
    status = cli.main(["doctor", "--json", *map(str, arguments)])
    return status, {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)}


def within(folder: Path) -> list[str]:
    return [f"--{name}={folder / name}" for name in ("corpus", "models", "index", "work")]


def test_what_is_missing_is_named_with_what_to_do(
    tmp_path: Path, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("FSCLAP_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "corpus").write_text("a file")
    status, found = examine(capsys, "--profile=full", *within(tmp_path))
    assert status == 1
    assert "make ui" in found["server"]["remedy"]
    assert found["corpus"]["remedy"].startswith("Correct the permissions of")
    assert found["work"]["remedy"] == ""
    weights = [finding["remedy"] for what, finding in found.items() if what.startswith("weights")]
    assert "Run `fsclap models fetch --profile full`" in weights
    assert cli.main(["doctor", *within(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("MEND  server: http://127.0.0.1:9/api does not answer") for line in lines)
    assert any(line.startswith("ok    ffmpeg: ") for line in lines)


def test_a_full_disk_is_noticed(tmp_path: Path, capsys: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1e6))
    _, found = examine(capsys, *within(tmp_path))
    assert found["work"]["remedy"].startswith("Free some space")


def test_ray_is_asked_for_only_where_builds_use_it(
    tmp_path: Path, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    for part in ("_weights", "_tools"):
        monkeypatch.setattr(doctor, part, lambda *_: iter(()))
    monkeypatch.setattr(doctor, "ray_is_installed", lambda: False)
    assert "ray" not in examine(capsys, *within(tmp_path))[1]
    status, found = examine(capsys, "--fan-out=ray", *within(tmp_path))
    assert (status, "pip install 'fsclap[ray]'" in found["ray"]["remedy"]) == (1, True)


def test_a_cluster_is_looked_for_where_ray_address_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setattr(doctor, "ray_is_installed", lambda: True)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2.60.0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    alone = doctor._ray()
    assert (alone.remedy, "of this machine alone" in alone.found) == ("", True)
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", f"ray://{address}")
        assert doctor._ray().remedy == ""
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert "does not answer" in doctor._ray().found
    assert doctor._ray().remedy.endswith("or correct RAY_ADDRESS")
    monkeypatch.setenv("RAY_ADDRESS", "head.example.org:6379")
    monkeypatch.setattr("socket.create_connection", lambda *_: socket.socket())
    assert doctor._ray().remedy.startswith("Set PREFECT_API_URL to an address that the machines")


def test_a_server_without_deployments_and_workers_is_noticed(
    prefect_server: None, tmp_path: Path, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL

    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    _, found = examine(capsys, *within(tmp_path))
    assert found["server"]["remedy"] == found["clock"]["remedy"] == ""
    assert "deployments.bootstrap" in found["deployments"]["remedy"]
    assert "limit on downloads" not in found, "the tests' server has it"


def test_a_store_that_loses_commits_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    place: list[Any] = within(tmp_path_factory.mktemp("here"))
    with nanio(tmp_path_factory.mktemp("nanio") / "data") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        _, found = examine(capsys, *place, f"--corpus=s3://{BUCKET}-careless/doctor")
    assert "ignores conditional puts" in found["corpus"]["found"]
    assert found["corpus"]["remedy"]


def test_a_sound_store_is_in_order(bucket: str, tmp_path: Path, capsys: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    _, found = examine(capsys, *within(tmp_path), f"--models={bucket}/models")
    assert found["models"]["remedy"] == found["clock of the models"]["remedy"] == ""
    assert "conditional puts are kept" in found["models"]["found"]
