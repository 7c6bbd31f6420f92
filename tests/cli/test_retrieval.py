"""`fsclap index`, `search` and `describe`, as a person types them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from cli import main as cli
from fsclap.audio import decode_flac
from fsclap.evaluation.results import FILE
from fsclap.retrieval.app import make_app
from fsclap.retrieval.recordings import MAX_RECORDING_BYTES
from fsclap.retrieval.search import Searcher
from storage.corpus import Corpus
from storage.models import Decision, ModelStore
from storage.versions import CorpusVersion
from tests.fsclap.evaluation.examples import evaluation
from tests.fsclap.retrieval.fixtures import commit, make_model

Shown = pytest.CaptureFixture[str]
QUERY = "a weary voice, speaking slowly"
ROOT = Path(__file__).parents[2]


def run(*arguments: str | Path) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_a_search_shows_what_it_finds(index_folder: Path, searcher: Searcher, capsys: Shown) -> None:
    assert run("search", QUERY, "--index", index_folder, "--top", "3") == 0
    shown = capsys.readouterr().out
    places = [shown.index(f"[{hit.utterance_id}]") for hit in searcher.search(QUERY, top=3)]
    assert places == sorted(places)
    assert shown.count("\n") == 6
    assert searcher.search(QUERY)[0].caption in shown


def test_conditions_can_be_given_in_short_and_in_full(index_folder: Path, searcher: Searcher, capsys: Shown) -> None:
    given = ("--emotion", "sad", "--min-duration", "1", "--speaker", "lines", "--where", "attributes.pitch_hz<150")
    assert run("search", QUERY, "--index", index_folder, "--top", "50", "--json", *given) == 0
    found = json.loads(capsys.readouterr().out)
    expected = [
        hit.utterance_id
        for hit in searcher.search(QUERY, top=50)
        if hit.row["emotion"] == "sad"
        and hit.row["duration"] >= 1
        and "Lines" in hit.row["speaker"]
        and hit.row["attributes"]["pitch_hz"] < 150
    ]
    assert [row["utterance_id"] for row in found] == expected
    assert expected


def test_a_search_can_be_by_words(index_folder: Path, searcher: Searcher, capsys: Shown) -> None:
    query = "a high voice 😀"
    assert run("search", query, "--by", "words", "--index", index_folder, "--top", "3") == 0
    shown = capsys.readouterr()
    hits = searcher.search(query, by="words", top=3)
    assert hits[0].why == ("high pitch",)
    known = searcher.calibration("words")
    assert known is not None
    assert f"{known.share(hits[0].score):4.0%}  {hits[0].caption}  (high pitch)" in shown.out
    assert "'😀' can't be read" in shown.err
    for by in ("model", "words", "both"):
        assert run("search", query, "--by", by, "--index", index_folder, "--top", "3", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        hits = searcher.search(query, by=by, top=3)
        assert [(row["utterance_id"], row["why"]) for row in found] == [(hit.utterance_id, [*hit.why]) for hit in hits]
        assert all(0 <= row["share"] <= 1 for row in found)


def test_a_guess_has_no_percentage(index_folder: Path, searcher: Searcher, capsys: Shown) -> None:
    query = "quarterly tax return"
    assert searcher.guesses(query)
    assert run("search", query, "--index", index_folder, "--top", "2") == 0
    shown = capsys.readouterr()
    assert "%" not in shown.out
    assert "little more than a guess" in shown.err


def test_no_result_is_an_answer(index_folder: Path, capsys: Shown) -> None:
    assert run("search", QUERY, "--index", index_folder, "--emotion", "furious") == 0
    assert "No clip meets these conditions." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([QUERY, "--where", "mood=sad"], "no column 'mood'"),
        (["  "], "query is empty"),
        (["低沉的声音"], "can't be read: describe the speech in English"),
        ([QUERY, "--rerank", "5"], "model.rerank"),
        (["--like", "nobody"], "no clip 'nobody'"),
        (["--clip", "/nowhere.wav"], "/nowhere.wav"),
        ([QUERY, "--index", "/nowhere"], "fsclap index build"),
        ([QUERY, "--export", "found.doc"], ".parquet"),
    ],
)
def test_a_failed_search_says_why_in_one_sentence(
    index_folder: Path, arguments: list[str], said: str, capsys: Shown
) -> None:
    assert run("search", "--index", index_folder, *arguments) == 1
    shown = capsys.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_a_recording_finds_the_clip_that_it_is(
    index_folder: Path, searcher: Searcher, version: CorpusVersion, tmp_path: Path, capsys: Shown
) -> None:
    id_ = searcher.index.rows["utterance_id"][9].as_py()  # 1.5 s
    ((_, flac),) = version.audio([id_])
    wave, rate = decode_flac(flac)
    soundfile.write(tmp_path / "clip.wav", np.stack([wave, wave], axis=1), rate, subtype="FLOAT")
    assert run("search", "--clip", tmp_path / "clip.wav", "--index", index_folder, "--top", "1", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["utterance_id"] == id_
    assert found["score"] == pytest.approx(1, abs=1e-3)
    assert run("describe", tmp_path / "clip.wav", "--index", index_folder, "--json", "--top", "2") == 0
    captions = [description["caption"] for description in json.loads(capsys.readouterr().out)]
    assert captions == [description.caption for description in searcher.describe(searcher.vector(id_), top=2)]
    assert run("describe", "--like", id_, "--index", index_folder, "--top", "2") == 0
    assert capsys.readouterr().out.count("\n") == 2


def recording(file: Path, seconds: float) -> Path:
    noise = np.random.default_rng(0).normal(scale=0.1, size=round(seconds * 8000))
    soundfile.write(file, noise, 8000, format="WAV")
    return file


@pytest.mark.parametrize(
    ("seconds", "answer"),
    [
        (0.05, "is too short: a recording to search with lasts at least 0.1 s"),
        (0.2, None),
        (59.9, None),
        (60.1, "is too long: a recording to search with lasts at most 60 s"),
        ("text", "no supported media format"),
        ("nothing", "has 0 bytes"),
        ("silence", "silence_dbfs"),
        ("large", "has 20.0 MB; the limit is 20 MB"),
    ],
)
def test_the_command_and_the_page_accept_the_same_recordings(
    seconds: float | str,
    answer: str | None,
    index_folder: Path,
    searcher: Searcher,
    version: CorpusVersion,
    tmp_path: Path,
    capsys: Shown,
) -> None:
    file = tmp_path / "mine.wav"
    if isinstance(seconds, float):
        recording(file, seconds)
    elif seconds == "silence":
        soundfile.write(file, np.zeros(8000), 8000)
    else:
        file.write_bytes({"text": b"words " * 50, "nothing": b"", "large": bytes(MAX_RECORDING_BYTES + 1)}[seconds])
    client = TestClient(make_app(searcher, version.audio, None), base_url="http://127.0.0.1")
    headers = {"Content-Type": "application/octet-stream"}
    page = client.post("/api/sound?top=3", content=file.read_bytes(), headers=headers).json()
    status = run("search", "--clip", file, "--index", index_folder, "--top", "3", "--json")
    shown = capsys.readouterr()
    if answer is None:
        assert status == 0
        found = [(row["utterance_id"], pytest.approx(row["score"], abs=1e-5)) for row in json.loads(shown.out)]
        assert [(clip["utterance_id"], clip["score"]) for clip in page["clips"]] == found
        assert [row["share"] for row in json.loads(shown.out)] == [
            pytest.approx(clip["share"], abs=1e-3) for clip in page["clips"]
        ]
    else:
        assert status == 1
        assert answer in page["error"]
        assert shown.err.splitlines()[-1].replace(file.name, "The file") == page["error"]


def test_a_search_loads_neither_plots_nor_training(index_folder: Path) -> None:
    code = (
        "import sys; from cli.main import main; status = main(sys.argv[1:]); "
        "print(*sys.modules, file=sys.stderr); sys.exit(status)"
    )
    command = [sys.executable, "-c", code, "search", QUERY, "--index", str(index_folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "fsclap.retrieval.search" in loaded
    unused = (
        "matplotlib",
        "fsclap.training",
        "fsclap.evaluation.run",
        "fsclap.retrieval.app",
        "fastapi",
        "umap",
        "prefect",
    )
    assert loaded.isdisjoint(unused)


def test_search_results_can_be_exported(index_folder: Path, tmp_path: Path, capsys: Shown) -> None:
    assert run("search", QUERY, "--index", index_folder, "--top", "2", "--export", tmp_path / "found") == 0
    assert len(list((tmp_path / "found").glob("*.flac"))) == 2
    assert str(tmp_path / "found") in capsys.readouterr().err
    assert run("search", QUERY, "--index", index_folder, "--export", tmp_path / "found") == 1
    assert "exists" in capsys.readouterr().err


def test_an_index_is_built_with_the_newest_model_while_none_is_current(
    small_corpus: Path, version: CorpusVersion, tmp_path: Path, capsys: Shown
) -> None:
    build = ("index", "build", "--corpus", small_corpus, "--models", tmp_path / "models", "--device", "cpu")
    assert run(*build, "--index", tmp_path / "index") == 1
    assert "no finished model" in capsys.readouterr().err
    model = make_model(tmp_path / "models" / "newest", version)
    (model / "training.json").write_text("{}")
    assert run(*build, "--index", tmp_path / "index") == 0
    assert f"20 clips and 13 captions of {small_corpus}" in capsys.readouterr().out
    assert run("index", "show", "--index", tmp_path / "index", "--json") == 0
    assert json.loads(capsys.readouterr().out)["model"] == str(model)
    assert run("index", "show", "--index", tmp_path / "index") == 0
    assert "The model was not promoted, and was not evaluated." in capsys.readouterr().out
    for arguments, warned in (([QUERY, "--by", "both"], True), ([QUERY], False)):
        assert run("search", *arguments, "--index", tmp_path / "index") == 0
        assert ("The model was not promoted" in capsys.readouterr().err) is warned
    (model / "evaluation" / "corpus-v1").mkdir(parents=True)
    evaluation().save(model / "evaluation" / "corpus-v1" / FILE)
    decision = {"model": model.name, "against": None, "promoted": True, "reason": "it beats chance"}
    rest: dict[str, Any] = {"figure": None, "difference": None, "clips": 20, "date": "2026-01-01"}
    ModelStore.open(tmp_path / "models").record(Decision(**decision, **rest))
    assert run(*build, "--index", tmp_path / "index") == 0
    assert "The model is the current one: mAP@10 among 1,000 clips" in capsys.readouterr().out
    assert run("search", QUERY, "--index", tmp_path / "index") == 0
    assert "promoted" not in capsys.readouterr().err


def test_an_index_lies_beside_its_corpus(
    waves: dict[str, np.ndarray], model_folder: Path, tmp_path: Path, capsys: Shown
) -> None:
    corpus = Corpus.open(tmp_path / "mine", create=True)
    commit(corpus, "Crossed Lines", waves["Crossed Lines"], clips=4)
    assert run("index", "build", "--corpus", tmp_path / "mine", "--model", model_folder) == 0
    search = ("search", QUERY, "--index", tmp_path / "mine-index", "--top", "1")
    assert run(*search) == 0
    assert capsys.readouterr().err.count("bring it up to date") == 0
    commit(corpus, "Dvě ryby", waves["Dvě ryby"], clips=4)
    assert run(*search) == 0, "what it holds can still be found"
    assert "bring it up to date: fsclap index build" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "mine")
    commit(Corpus.open(tmp_path / "mine", create=True), "Dvě ryby", waves["Dvě ryby"], clips=4)
    assert run(*search) == 1
    assert "another corpus" in capsys.readouterr().err
