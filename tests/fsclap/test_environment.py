"""What the package sets for the libraries that it imports."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fsclap.environment import CACHES, SILENT, prepare

DETECT = """
import sys
told = []
sys.addaudithook(lambda event, args: told.append((event, args)) if event.startswith("socket.") else None)
import numpy as np
from fsclap.corpus.speech import speech_probability
noise = np.random.default_rng(0).normal(scale=0.1, size=16_000).astype(np.float32)
speech_probability(noise)
assert "onnxruntime" in sys.modules
assert not told, told
"""


def test_the_runtime_of_the_detector_keeps_no_diary_and_calls_nobody(tmp_path: Path) -> None:
    """ONNX Runtime writes a device id and a queue of events into the home before it sends them."""
    environment = {name: value for name, value in os.environ.items() if name not in SILENT}
    subprocess.run([sys.executable, "-c", DETECT], env={**environment, "HOME": str(tmp_path)}, check=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_the_user_has_set_stays() -> None:
    environ = {"ORT_DISABLE_TELEMETRY": "0", **dict.fromkeys(CACHES, "/mine")}
    prepare(environ)
    assert environ == {**SILENT, "ORT_DISABLE_TELEMETRY": "0", **dict.fromkeys(CACHES, "/mine")}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def caches(monkeypatch: pytest.MonkeyPatch, home: str) -> list[Path]:
    monkeypatch.setenv("HOME", home)
    environ: dict[str, str] = {}
    prepare(environ)
    return [Path(environ[name]).parent for name in CACHES if name in environ]


def test_a_user_without_a_home_has_caches_that_nobody_else_can_write_to(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = caches(monkeypatch, str(tmp_path / "nonexistent"))
    assert folders == [temporary / f"fsclap-{os.getuid()}"] * len(CACHES)
    assert folders[0].stat().st_mode & 0o777 == 0o700
    assert caches(monkeypatch, str(tmp_path / "nonexistent")) == folders, "the next process finds what is compiled"
    assert not (tmp_path / "nonexistent").exists()


def test_a_folder_that_others_can_write_to_is_not_trusted(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = temporary / f"fsclap-{os.getuid()}"
    trap.mkdir()
    trap.chmod(0o777)
    for folder in caches(monkeypatch, "/dev/null"):
        assert folder != trap
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_home_is_left_to_the_libraries(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert caches(monkeypatch, str(tmp_path)) == []
    assert list(temporary.iterdir()) == []
