"""`fsclap compare`: what is asked of the deployment, what is refused before, and the report alone."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from flows.compare_systems import compare_systems
from fsclap.comparison.settings import ComparisonSettings
from tests.fsclap.comparison import made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The parameters of the runs that were started."""
    runs: list[dict[str, Any]] = []

    def start(command: list[str], *, input: bytes, check: bool) -> Any:
        assert command[-1] == "compare-systems/compare-systems"
        runs.append(json.loads(input))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("cli.compare.subprocess.run", start)
    return runs


def test_the_deployment_gets_what_was_named(
    asked: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = (
        "compare mine TextrolSpeech=ts --published-parts --systems fs_clap clap_laion --seeds 2 --epochs 4 --ablation"
    )
    assert main([*words.split(), "--out", "here", "--settings", '{"pool": 199, "training": {"batch": 32}}']) == 0
    (parameters,) = asked
    assert (parameters["out"], parameters["models"]) == (str(tmp_path / "here"), str(tmp_path / "here/models"))
    checked = compare_systems.validate_parameters(parameters)
    mine, textrol = checked["corpora"]
    assert (mine.corpus, mine.shown, mine.paper) == (str(tmp_path / "mine"), "mine", None)
    assert (textrol.corpus, textrol.shown, textrol.paper) == (str(tmp_path / "ts"), "TextrolSpeech", "TextrolSpeech")
    assert textrol.split.test_series == ("*-test",)
    settings = checked["settings"]
    assert (settings.systems, settings.seeds, settings.pool, settings.ablation) == (
        ("fs_clap", "clap_laion"),
        2,
        199,
        True,
    )
    assert settings.training == {"batch": 32, "epochs": 4}
    assert main(["compare"]) == 0
    assert asked[1] == {}, "the deployment's own"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--systems", "clap"], "clap"),
        (["--settings", "{"], "Expecting"),
        (["--epochs", "0"], "epochs"),
        (["--seeds", "0"], "seeds"),
    ],
)
def test_what_cant_be_compared_starts_nothing(
    words: list[str], why: str, asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *words]) == 1
    assert why in capsys.readouterr().err
    assert not asked


def test_the_report_is_written_without_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--report", "--out", str(tmp_path)]) == 1
    assert "holds no comparison" in capsys.readouterr().err
    settings = ComparisonSettings(systems=("fs_clap",), seeds=1, resamples=1000)
    made.grid(tmp_path / "cells", settings, unfinished=[("fs_clap", "style", 0)]).save(tmp_path)
    assert main(["compare", "--report", "--out", str(tmp_path)]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == tmp_path / "report.html"
    assert "not trained yet" in page.read_text()
