"""The oracle judge: what it says of a clip, that it goes the way of people's verdicts, and that it says what it is."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from bench import judge_by_measure
from bench.judge_by_measure import directions_of, verdict
from fsclap.data.splits import Split
from fsclap.evaluation.natural import load_queries
from fsclap.retrieval.search import Searcher
from storage.judgements import Judgements


def test_a_verdict_goes_by_the_place_on_the_scale() -> None:
    assert [verdict(place) for place in (0.81, 0.8, 0.51, 0.5, 0.1)] == ["fits", "partly", "partly", "no", "no"]


def test_words_ask_for_their_side_of_the_scale() -> None:
    assert directions_of("emotion=sad;pitch=very low;energy=loud;pauses=many;events=laughter") == {
        "pitch": -1,
        "energy": 1,
        "pauses": 1,
    }
    assert directions_of("pitch=medium") == {}
    assert directions_of("") == {}


def test_the_oracle_judges_what_the_view_offers_and_says_that_it_is_one(
    searcher: Searcher, index_folder: Path, corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--index", str(index_folder), "--store", str(tmp_path / "store"), "--captions", "2"]
    judge_by_measure.main([*command, "--json", str(tmp_path / "figures.json")])
    printed = capsys.readouterr().out
    assert "no person judged anything" in printed
    assert "nDCG@10 by the oracle" in printed
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["oracle"] in printed
    rows = Judgements(tmp_path / "store").rows()
    assert {row["judge"] for row in rows} == {"measure"}
    assert {row["utterance_id"] for row in rows} <= set(
        Split.load(Path(searcher.index.record.model) / "split.json").test
    )
    assert not (corpus_folder / "judgements.parquet").exists()
    said: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        said[row["query"]].append(row["verdict"])
    telling = [verdicts for verdicts in said.values() if len(set(verdicts)) > 1]
    assert (written["judged"]["queries"], written["judged"]["left_out"]) == (len(telling), len(said) - len(telling))
    assert written["judged"]["judgements"] == sum(map(len, telling))
    pitches = dict(
        zip(
            searcher.index.rows["utterance_id"].to_pylist(),
            [entry["pitch_hz"] for entry in searcher.index.rows["attributes"].to_pylist()],
            strict=True,
        )
    )
    high = {query.query for query in load_queries() if query.targets == {"pitch_hz": 1}}
    by_verdict = {
        fit: [pitches[row["utterance_id"]] for row in rows if row["query"] in high and row["verdict"] == fit]
        for fit in ("fits", "partly", "no")
    }
    assert set() < high <= said.keys()
    # 20 pitches, each of two clips: the highest four are the highest fifth, the highest ten the upper half.
    values = list(pitches.values())
    assert min(by_verdict["fits"]) > np.quantile(values, 0.8) > max(by_verdict["partly"])
    assert min(by_verdict["partly"]) > np.median(values) > max(by_verdict["no"])
    judge_by_measure.main(command)
    assert len(Judgements(tmp_path / "store").rows()) == len(rows)
