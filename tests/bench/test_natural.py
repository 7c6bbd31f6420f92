"""The command that scores queries as people type them on an index; how they are scored is tested with the package."""

import json
from pathlib import Path

import pytest

from bench import natural


def test_an_index_is_scored_and_every_query_is_written(
    index_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    natural.main(["--index", str(index_folder), "--json", str(tmp_path / "figures.json")])
    written = json.loads((tmp_path / "figures.json").read_text())
    printed = capsys.readouterr().out
    assert written["figures"]["clips"] == 40
    for name in ("model", "words", "both", "ideal"):
        assert f"{written['figures'][name]}" in printed
    queries = written["queries"]
    assert len(queries) == written["figures"]["queries"] > 10
    for query in queries:
        assert query["model"] <= query["ideal"]
        if set(query["targets"]) == {"pitch_hz"}:  # the one attribute in which the clips of this index differ
            assert query["ideal"] == pytest.approx(1 - 10 / 2 / 40, abs=0.01)


def test_the_queries_that_settings_are_chosen_by_are_others() -> None:
    parts = [natural.load_queries(file) for file in (natural.VALIDATION, natural.BLIND, natural.QUERIES)]
    texts = [query.query.lower() for part in parts for query in part]
    assert len(set(texts)) == len(texts)
    assert min(map(len, parts)) > 60


def test_blind_queries_are_read_by_all_wordings(index_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out: list[bool] = []

    def measure(*_: object, **settings: bool) -> None:
        held_out.append(settings["held_out"])
        raise SystemExit

    monkeypatch.setattr(natural, "measure", measure)
    for arguments in (["--blind"], ["--validation"], []):
        with pytest.raises(SystemExit):
            natural.main(["--index", str(index_folder), *arguments])
    assert held_out == [True, False, False]


def test_an_index_of_few_clips_is_told_so(index_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsclap.evaluation.natural.FEWEST", 41)
    with pytest.raises(SystemExit, match="40 clips are too few"):
        natural.main(["--index", str(index_folder)])
