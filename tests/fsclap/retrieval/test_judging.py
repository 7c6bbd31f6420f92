from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fsclap.data.splits import Split
from fsclap.retrieval.app import make_app
from fsclap.retrieval.index import SearchError
from fsclap.retrieval.judging import Judgement, Judging
from fsclap.retrieval.search import Searcher
from storage.versions import CorpusVersion

QUERY = "a weary voice"


class InMemory:
    def __init__(self) -> None:
        self.judgements: list[Judgement] = []

    def add(self, row: Mapping[str, Any]) -> None:
        self.judgements.append(Judgement.model_validate(row))

    def rows(self) -> Iterable[Mapping[str, Any]]:
        return [judgement.model_dump() for judgement in self.judgements]


@pytest.fixture
def log() -> InMemory:
    return InMemory()


@pytest.fixture
def client(searcher: Searcher, version: CorpusVersion, log: InMemory) -> TestClient:
    return TestClient(make_app(searcher, version.audio, log), base_url="http://127.0.0.1")


def with_model(searcher: Searcher, folder: Path) -> Searcher:
    """The same index, with another folder recorded for its model."""
    record = searcher.index.record.model_copy(update={"model": str(folder)})
    return Searcher(replace(searcher.index, record=record), searcher.model)


def heard(clip: str, *, query: str = QUERY, verdict: str = "fits", judge: str = "Ada") -> dict[str, str]:
    return {"query": query, "utterance_id": clip, "verdict": verdict, "judge": judge}


def test_the_pool_is_the_best_and_some_others_of_the_test_part(searcher: Searcher, log: InMemory) -> None:
    test = Split.load(Path(searcher.index.record.model) / "split.json").test
    judging = Judging(searcher, log)
    pool = judging.pool(QUERY)
    ranked = [hit.utterance_id for hit in searcher.search(QUERY, top=40) if hit.utterance_id in test]
    assert set(ranked[:10]) <= set(pool) <= set(test)
    assert len(pool) == len(set(pool)) == min(15, len(test))
    assert pool == judging.pool(QUERY) != ranked[: len(pool)]
    assert judging.part == "test"
    rows = {row["utterance_id"]: row["caption"] for row in searcher.index.rows.to_pylist()}
    assert set(judging.queries) == {rows[id_] for id_ in test}


def test_without_a_split_all_clips_are_judged(searcher: Searcher, log: InMemory, tmp_path: Path) -> None:
    judging = Judging(with_model(searcher, tmp_path), log)
    assert judging.part == "all"
    assert set(judging.queries) == {caption.as_py() for caption in searcher.index.captions}
    best = [hit.utterance_id for hit in searcher.search(QUERY, top=10, by="model")]
    assert set(best) <= set(judging.pool(QUERY))


def test_a_damaged_split_is_an_error(searcher: Searcher, log: InMemory, tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text("{")
    with pytest.raises(SearchError, match=r"split\.json is damaged"):
        Judging(with_model(searcher, tmp_path), log)


def test_a_judge_never_gets_a_judged_clip_again(client: TestClient) -> None:
    asked = {"judge": "Ada", "query": QUERY}
    clips = client.get("/api/judging", params=asked).json()["clips"]
    for clip in clips[:2]:
        assert client.post("/api/judgements", json=heard(clip)).status_code == 201
    again = client.get("/api/judging", params=asked).json()
    assert (again["clips"], again["all"]) == (clips[2:], clips)
    assert again["verdicts"] == dict.fromkeys(clips[:2], "fits")
    assert client.get("/api/judging", params=asked | {"judge": "Bob"}).json()["clips"] == clips
    assert client.get("/api/judging", params=asked | {"query": "a loud voice"}).json()["pool"] == len(clips)


def test_a_query_that_is_done_gives_way_to_the_next(client: TestClient) -> None:
    first = client.get("/api/judging", params={"judge": "Ada"}).json()
    assert first["number"] == 0
    for clip in first["clips"]:
        client.post("/api/judgements", json=heard(clip, query=first["query"], verdict="no"))
    second = client.get("/api/judging", params={"judge": "Ada"}).json()
    assert second["number"] == 1
    assert second["query"] != first["query"]
    skipped = client.get("/api/judging", params={"judge": "Bob", "start": 1}).json()
    assert skipped["query"] == second["query"]
    done = client.get("/api/judging", params={"judge": "Ada", "start": second["queries"]}).json()
    assert (done["query"], done["clips"]) == (None, [])
    assert done["total"] == done["queries"] * len(first["clips"])
    assert done["left"] == done["total"] - len(first["clips"])


def test_a_judgement_says_who_heard_what_when_and_how_it_was_found(
    client: TestClient, log: InMemory, searcher: Searcher
) -> None:
    clip = client.get("/api/judging", params={"judge": "Ada", "query": QUERY}).json()["clips"][0]
    client.post("/api/judgements", json=heard(clip, query=f" {QUERY} ", verdict="partly", judge=" Ada "))
    (kept,) = log.judgements
    record = searcher.index.record
    assert kept.model_dump(exclude={"date"}) == {
        "query": QUERY,
        "utterance_id": clip,
        "verdict": "partly",
        "judge": "Ada",
        "recipe": "recipe-1",
        "model": record.model,
        "corpus": record.corpus,
        "version": record.version,
    }
    assert datetime.fromisoformat(kept.date).tzinfo is not None


def test_a_judge_learns_nothing_about_a_clip(client: TestClient) -> None:
    answer = client.get("/api/judging", params={"judge": "Ada", "query": QUERY}).json()
    assert set(answer) == {
        "part", "queries", "number", "query", "clips", "pool", "all", "verdicts", "total", "left",
    }  # fmt: skip
    assert all(isinstance(clip, str) for clip in answer["clips"])


def test_an_invalid_judgement_is_refused(client: TestClient, log: InMemory) -> None:
    clip = client.get("/api/judging", params={"judge": "Ada"}).json()["clips"][0]
    for wrong in (
        heard(clip, verdict="maybe"),
        heard(clip, judge=" "),
        heard(clip, query=""),
        heard(clip) | {"more": 1},
        {},
    ):
        answer = client.post("/api/judgements", json=wrong)
        assert answer.status_code == 400
        assert answer.json()["error"]
    assert client.post("/api/judgements", json=heard("nobody-00000")).status_code == 404
    form = client.post("/api/judgements", content="{}", headers={"Content-Type": "text/plain"})
    assert form.status_code == 415
    assert client.get("/api/judging", params={"judge": ""}).status_code == 400
    assert log.judgements == []


def test_without_a_log_nobody_judges(searcher: Searcher, version: CorpusVersion) -> None:
    client = TestClient(make_app(searcher, version.audio, None), base_url="http://127.0.0.1")
    assert client.get("/api/judging", params={"judge": "Ada"}).status_code == 404
