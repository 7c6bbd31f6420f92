"""The whole flow on short real episodes, downloaded from a server on localhost, through a real Prefect server."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import TaskRun

from flows.build_dataset import build_dataset
from flows.refresh_corpus import refresh_corpus
from fsclap.corpus.download import DownloadSettings
from fsclap.corpus.filtering.consistency import ConsistencySettings
from fsclap.corpus.settings import BuildSettings
from storage.corpus import Corpus
from storage.verify import verify
from tests.flows.conftest import SAMPLES, cut
from tests.flows.pages import serve

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

Row = dict[str, Any]
LOCAL = DownloadSettings(private_addresses=True)


@dataclass(frozen=True)
class Built:
    """A corpus of two episodes of a feed; `shown` is what the feed shows, `spare` an episode it could show."""

    feed: str
    shown: dict[str, Path]
    spare: Path
    asked: list[str]
    corpus: str
    work: str

    def build(self, **settings: Any) -> Any:
        chosen = BuildSettings(download=LOCAL, **settings)
        return build_dataset([self.feed], self.corpus, self.work, chosen, return_state=True)

    def rows(self) -> list[Row]:
        columns = ["utterance_id", "start", "end", "similarity", "speaker", "caption", "text"]
        return Corpus.open(self.corpus).utterances(columns=columns).to_pylist()

    def outputs(self, stage: str) -> set[str]:
        return {path.parent.name for path in Path(self.work, stage).glob("*/*/manifest.json")}


@pytest.fixture(scope="module")
def first(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    folder = tmp_path_factory.mktemp("build")
    episodes = sorted(path.relative_to(SAMPLES).as_posix() for path in SAMPLES.glob("*/*.mp4"))
    cuts = [
        cut(episode, folder / f"e{number:02d}.mp4", start=0, seconds=30)
        for number, episode in enumerate((episodes[0], episodes[-1], episodes[1]), start=1)
    ]
    shown = {path.name: path for path in cuts[:2]}
    with serve(shown) as (address, asked):
        built = Built(f"{address}/feed.xml", shown, cuts[2], asked, str(folder / "corpus"), str(folder / "work"))
        assert built.build().is_completed()
        yield built


@pytest.fixture
def built(first: Built, tmp_path: Path) -> Iterator[Built]:
    """A copy that a test may change."""
    shutil.copytree(first.corpus, tmp_path / "corpus")
    shutil.copytree(first.work, tmp_path / "work")
    shown = dict(first.shown)
    first.asked.clear()
    yield replace(first, corpus=str(tmp_path / "corpus"), work=str(tmp_path / "work"))
    first.shown.clear()
    first.shown.update(shown)


async def task_states(state: Any) -> dict[str, str]:
    """Task run name -> name of its final state, of the flow run that ended in `state`."""
    async with get_client() as client:
        only = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        runs: list[TaskRun] = await client.read_task_runs(flow_run_filter=only)
    return {run.name: run.state_name or "" for run in runs}


def test_every_source_and_every_turn_is_accounted_for(first: Built) -> None:
    corpus = Corpus.open(first.corpus)
    assert verify(corpus).problems == []
    ledger = corpus.ledger().values()
    assert {row["url"].rsplit("/", 1)[-1] for row in ledger} == set(first.shown)
    for row in ledger:
        assert row["status"] == "kept"
        assert row["turns_found"] == row["turns_kept"] + row["turns_rejected"] > 0
        assert row["duration"] == pytest.approx(30, abs=0.2)
        assert {"download", "decode", "separation", "diarization", "captioning"} <= set(row["stage_seconds"])
    turn_rejects = [row for row in corpus.rejects().to_pylist() if row["start"] is not None]
    assert sum(row["turns_rejected"] for row in ledger) == len(turn_rejects)
    assert sum(row["turns_kept"] for row in ledger) == len(first.rows())


def test_utterances_lie_within_their_episode_and_say_something(first: Built) -> None:
    rows = first.rows()
    assert len(rows) >= 5
    assert all(0 <= row["start"] < row["end"] <= 30.2 for row in rows)
    assert all(row["caption"].endswith(".") for row in rows)
    assert len({row["speaker"] for row in rows}) >= 3


def test_a_second_run_computes_nothing_and_adds_no_row(built: Built) -> None:
    before, version = built.rows(), Corpus.open(built.corpus).version()
    state = built.build()
    assert state.result().changed_sources == 0
    assert built.rows() == before
    assert Corpus.open(built.corpus).version() == version
    assert built.asked == ["feed.xml"]


def test_another_threshold_runs_only_the_filter_and_what_follows(built: Built) -> None:
    before = {stage: built.outputs(stage) for stage in ("download", "separation", "diarization", "attributes")}
    highest = max(row["similarity"] for row in built.rows())
    state = built.build(consistency=ConsistencySettings(threshold=round(highest, 3)))
    assert {stage: built.outputs(stage) for stage in before} == before
    assert built.asked == ["feed.xml"]
    states = asyncio.run(task_states(state))
    assert {states[name] for name in states if name.startswith(("separate", "diarize"))} == {"Cached"}
    assert {states[name] for name in states if name.startswith("filter")} == {"Completed"}
    rows = built.rows()
    assert all(row["similarity"] >= round(highest, 3) for row in rows)
    assert verify(Corpus.open(built.corpus)).problems == []


def test_a_refresh_processes_the_new_episode_alone(built: Built) -> None:
    before = {row["utterance_id"]: row for row in built.rows()}
    # The copy learns where it lies.
    build_dataset([built.feed], built.corpus, built.work, BuildSettings(download=LOCAL))
    built.shown[built.spare.name] = built.spare
    built.asked.clear()
    published = refresh_corpus(built.corpus)
    assert published.changed_sources == 1
    assert built.spare.name in built.asked
    assert not set(built.asked) - {"feed.xml", built.spare.name}
    after = {row["utterance_id"]: row for row in built.rows()}
    assert before.items() < after.items()
    assert refresh_corpus(built.corpus).changed_sources == 0


def test_work_files_that_were_deleted_are_made_again(built: Built) -> None:
    before = built.rows()
    shutil.rmtree(built.work)
    shutil.rmtree(built.corpus)
    assert built.build().result().utterances == len(before)
    assert built.rows() == before


def test_settings_are_validated_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="threshold"):
        BuildSettings(consistency={"threshold": 7})
    with pytest.raises(ValueError, match="thresholds"):
        BuildSettings(consistency={"thresholds": 0.5})
