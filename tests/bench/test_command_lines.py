"""Every bench starts from another folder, and takes paths that are relative to it."""

import argparse
import importlib
import json
import os
from pathlib import Path

import pytest

from bench import dialogues, report, style_corpus
from samples import make
from samples.sources import PACKAGES

ROOT = Path(__file__).parents[2]
LIBRARIES = {"__init__", "flow", "report"}
BENCHES = sorted(path.stem for path in (ROOT / "bench").glob("*.py") if path.stem not in LIBRARIES)
FLAC = ".flac"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def debian(tmp_path_factory: pytest.TempPathFactory, packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for apt-get and dpkg: every archive is empty, and unpacks to the tree `packages`."""
    programs = tmp_path_factory.mktemp("bin")
    for name, script in {
        "apt-get": 'touch "$2_1_all.deb"',
        "dpkg": f'test -e "$2" && mkdir -p "$3" && cp -r {packages}/. "$3"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize("bench", BENCHES)
def test_paths_are_absolute_once_the_command_line_is_read(
    bench: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actions: list[argparse.Action] = []

    def stop(parser: argparse.ArgumentParser, arguments: object = None) -> None:
        actions.extend(parser._actions)
        raise SystemExit

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    with pytest.raises(SystemExit):
        importlib.import_module(f"bench.{bench}").main([])
    assert Path not in {action.type for action in actions}
    assert "json" in {action.dest for action in actions if action.type is report.absolute_path}
    defaults = [action.default for action in actions if isinstance(action.default, Path)]
    assert all(path.is_absolute() for path in defaults)
    assert report.absolute_path("some/file") == elsewhere / "some/file"


@pytest.mark.parametrize("bench", BENCHES)
def test_help_says_how_a_bench_is_started(bench: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(f"bench.{bench}").main(["--help"])
    assert stop.value.code == 0
    assert f"python -m bench.{bench}" in capsys.readouterr().out


def test_dialogues_downloads_packages_to_a_relative_cache(elsewhere: Path, debian: None) -> None:
    dialogues.main(["--cache", "cache", "--out", "out", "--minutes", "0.5", "--json", "figures/dialogues.json"])
    assert sorted(path.name for path in elsewhere.iterdir()) == ["cache", "figures", "out"]
    archives = {path.name for path in (elsewhere / "cache/archives").glob("*.deb")}
    assert archives == {f"{package}_1_all.deb" for package in PACKAGES}
    assert {path.name for path in (elsewhere / "out").iterdir()} == set(dialogues.HALVES)
    written = json.loads((elsewhere / "figures/dialogues.json").read_text())
    assert set(written["minutes"]) == set(dialogues.HALVES)
    assert set(written["machine"]) == {"date", "processor", "cores"}


def test_dialogues_uses_its_default_folders(elsewhere: Path, debian: None) -> None:
    dialogues.main(["--minutes", "0.5"])
    assert (elsewhere / "data/packages/extracted/usr/share").is_dir()
    assert list((elsewhere / "data/dialogues").glob("*/*/truth.json"))


def test_style_corpus_uses_its_default_folders(elsewhere: Path, debian: None, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    monkeypatch.setattr(style_corpus, "build_corpus", lambda episodes, out: built.append((episodes, out)))
    monkeypatch.setattr(style_corpus, "summary", lambda corpus: {"clips": 0})
    style_corpus.main([])
    assert built == [(elsewhere / "data/style/episodes", elsewhere / "data/style")]
    assert list((elsewhere / "data/style/episodes/train-00").glob(f"*{FLAC}"))
    assert json.loads((elsewhere / "data/style/summary.json").read_text())["clips"] == 0


def test_samples_are_made_from_the_default_cache(
    elsewhere: Path, debian: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(make, "make", lambda root, out, *, seed: made.append((root, out)))
    make.main(["--out", "episodes"])
    assert made == [(elsewhere / "data/packages/extracted", elsewhere / "episodes")]
    assert (made[0][0] / "usr/share").is_dir()
