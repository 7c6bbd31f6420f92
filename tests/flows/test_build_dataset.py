"""build-dataset and refresh-corpus on short real episodes from a server on localhost."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from prefect.variables import Variable
from pydantic import BaseModel

from flows.build_dataset import build_dataset
from flows.refresh_corpus import refresh_corpus
from fsclap.audio import decode_flac, resample
from fsclap.corpus.settings import BuildSettings
from fsclap.settings import is_execution, shaping
from storage.build_record import read_build
from storage.corpus import SCHEMAS, Corpus
from storage.verify import verify
from tasks.paused import VARIABLE
from tests.flows.built import HOLE, LATE, SECONDS, Built, artifacts, local_settings, task_states
from tests.fsclap.test_clocks import RATE, agreement, player

STAGES = ("download", "separation", "diarization", "attributes", "consistency", "captioning")
STAGE_TASKS = ("separate", "diarize", "measure", "filter", "caption")
"""Prefixes of the names of the task runs that Prefect caches; a download always asks the work
store."""


def test_every_source_and_every_turn_is_accounted_for(built_corpus: Built) -> None:
    corpus = Corpus.open(built_corpus.corpus)
    assert verify(corpus).problems == []
    ledger = corpus.ledger().values()
    assert {row["url"].rsplit("/", 1)[-1] for row in ledger} == set(built_corpus.shown)
    for row in ledger:
        assert row["status"] == "kept"
        assert row["turns_found"] == row["turns_kept"] + row["turns_rejected"] > 0
        missing = row["sound"]["missing_seconds"]
        assert row["duration"] + missing == pytest.approx(SECONDS, abs=0.2)
        assert {"download", "decode", "separation", "diarization", "captioning"} <= set(row["stage_seconds"])
    turn_rejects = [row for row in corpus.rejects().to_pylist() if row["start"] is not None]
    assert sum(row["turns_rejected"] for row in ledger) == len(turn_rejects)
    assert sum(row["turns_kept"] for row in ledger) == len(built_corpus.rows())


@pytest.mark.slow
def test_speech_that_makes_no_turn_is_a_reject_with_its_times(built: Built, tmp_path: Path) -> None:
    found = {row["source_id"]: row["turns_found"] for row in Corpus.open(built.corpus).ledger().values()}
    settings = local_settings(diarization={"min_turn": 2.5})
    build_dataset([built.feed], str(tmp_path / "corpus"), built.work, settings, return_state=True)
    corpus = Corpus.open(str(tmp_path / "corpus"))
    assert verify(corpus).problems == []
    short = [row for row in corpus.rejects().to_pylist() if row["stage"] == "diarization"]
    assert {row["reason"] for row in short} == {"too_short"}
    assert all(row["start"] < row["end"] < row["start"] + 2.5 and row["text"] is None for row in short)
    assert any(row["start"] > LATE for row in short)
    assert {row["source_id"]: row["turns_found"] for row in corpus.ledger().values()} == found


@pytest.mark.slow
def test_what_holds_no_words_is_an_event_if_asked_for(built: Built, tmp_path: Path) -> None:
    found = {row["source_id"]: row["turns_found"] for row in Corpus.open(built.corpus).ledger().values()}
    # Of no word is the recogniser as sure as this asks, so all that is short is taken for a burst.
    unsure = {"min_turn": 2.5, "events": True, "whisper_campplus": {"least_confidence": 1.0}}
    settings = local_settings(diarization=unsure)
    build_dataset([built.feed], str(tmp_path / "corpus"), built.work, settings, return_state=True)
    corpus = Corpus.open(str(tmp_path / "corpus"))
    assert verify(corpus).problems == []
    assert {row["source_id"]: row["turns_found"] for row in corpus.ledger().values()} == found
    rows = corpus.utterances().to_pylist()
    assert {row["kind"] for row in rows if row["duration"] >= 2.5} == {"speech"}
    events = [row for row in rows if row["duration"] < 2.5]
    assert events
    for row in events:
        assert (row["kind"], row["text"], row["language"], row["similarity"]) == ("event", "", None, None)
        assert row["speaker_embedding"] == []
        assert row["caption"]
        assert not {"speaking_rate", "pauses", "relative_rate"} & {word["attribute"] for word in row["style"]}
    heard = {row["speaker"] for row in rows if row["kind"] == "speech"}
    assert {row["speaker"] for row in events} <= heard


def test_utterances_lie_within_their_episode_and_say_something(built_corpus: Built) -> None:
    rows = built_corpus.rows()
    assert len(rows) >= 5
    assert all(0 <= row["start"] < row["end"] <= LATE + SECONDS + 0.2 for row in rows)
    assert all(row["caption"].endswith(".") for row in rows)
    assert len({row["speaker"] for row in rows}) >= 3


def test_the_sources_of_a_batch_share_a_transaction(built_corpus: Built) -> None:
    corpus = Corpus.open(built_corpus.corpus)
    assert len([row for row in corpus.ledger().values() if row["status"] == "kept"]) >= 2
    assert len(corpus.shards()) == 1
    assert {name: corpus.delta(name).version() for name in SCHEMAS} == dict.fromkeys(SCHEMAS, 1)


def test_a_player_finds_each_row_where_its_seconds_say(built_corpus: Built) -> None:
    corpus = Corpus.open(built_corpus.corpus)
    (source,) = [row for row in corpus.ledger().values() if row["url"].endswith("e02.mp4")]
    assert source["sound"] == {
        "track": 1,
        "tracks": 1,
        "start": pytest.approx(LATE, abs=0.05),
        "holes": 1,
        "missing_seconds": pytest.approx(HOLE[1] - HOLE[0], abs=0.05),
        "inverted_seconds": 0.0,
    }
    rows = [row for row in corpus.utterances().to_pylist() if row["source_id"] == source["source_id"]]
    turns = [*rows, *(row for row in corpus.rejects().to_pylist() if row["source_id"] == source["source_id"])]
    assert min(row["start"] for row in turns) >= LATE
    assert any(row["end"] <= HOLE[0] for row in rows)
    assert any(row["start"] >= HOLE[1] for row in rows)
    assert not [row for row in turns if row["start"] < HOLE[0] < HOLE[1] < row["end"]]
    for row in rows:
        clip, rate = decode_flac(row["audio"]["bytes"])
        played = player(built_corpus.shown["e02.mp4"], row["start"], row["duration"])
        # The rows hold the vocals, the player has the music too; tests/fsclap/test_clocks.py compares like with like.
        assert agreement(resample(clip, rate, RATE), played) > 0.85


def test_a_second_run_computes_nothing_and_adds_no_row(built: Built) -> None:
    before, version = built.rows(), Corpus.open(built.corpus).version()
    state = built.build()
    assert state.result().changed_sources == 0
    assert built.rows() == before
    assert Corpus.open(built.corpus).version() == version
    assert built.requests == ["feed.xml"]


def test_execution_settings_recompute_nothing(built: Built) -> None:
    before = {stage: built.outputs(stage) for stage in STAGES}
    rows, version = built.rows(), Corpus.open(built.corpus).version()
    usual = local_settings().resolved()
    other = with_other_execution(usual)
    changed = {name for name, value in flat(other).items() if value != flat(usual)[name]}
    assert changed >= {"batch_episodes", "decode.timeout", "download.limits.timeout", "separation.batch"}

    state = build_dataset([built.feed], built.corpus, built.work, other, return_state=True)
    assert state.result().changed_sources == 0
    assert Corpus.open(built.corpus).version() == version

    # An empty corpus takes every episode through every stage, each of which finds its output in the
    # work folder.
    shutil.rmtree(built.corpus)
    state = build_dataset([built.feed], built.corpus, built.work, other, return_state=True)
    assert built.rows() == rows
    assert {stage: built.outputs(stage) for stage in STAGES} == before
    assert set(built.requests) == {"feed.xml"}
    states = task_states(state)
    names = [name for name in states if name.startswith(STAGE_TASKS)]
    assert len(names) == len(STAGE_TASKS)
    assert {states[name] for name in names} == {"Cached"}


def test_another_threshold_runs_only_the_filter_and_what_follows(built: Built) -> None:
    before = {stage: built.outputs(stage) for stage in STAGES[:4]}
    highest = max(row["similarity"] for row in built.rows())
    state = built.build(consistency={"threshold": round(highest, 3)})
    assert {stage: built.outputs(stage) for stage in before} == before
    assert built.requests == ["feed.xml"]
    states = task_states(state)
    assert {states[name] for name in states if name.startswith(("separate", "diarize"))} == {"Cached"}
    assert {states[name] for name in states if name.startswith("filter")} == {"Completed"}
    rows = built.rows()
    assert all(row["similarity"] >= round(highest, 3) for row in rows)
    assert verify(Corpus.open(built.corpus)).problems == []


def test_a_refresh_processes_the_new_episode_alone(built: Built) -> None:
    before = {row["utterance_id"]: row for row in built.rows()}
    built.build()  # so that build.json of the copy names the copy of the work folder
    built.shown[built.spare.name] = built.spare
    built.requests.clear()
    published = refresh_corpus(built.corpus)
    assert published.changed_sources == 1
    assert built.spare.name in built.requests
    assert not set(built.requests) - {"feed.xml", built.spare.name}
    after = {row["utterance_id"]: row for row in built.rows()}
    assert before.items() < after.items()
    assert refresh_corpus(built.corpus).changed_sources == 0


def test_a_deleted_output_is_computed_again_and_no_other(built: Built) -> None:
    before, rows = {stage: built.outputs(stage) for stage in STAGES}, built.rows()
    lost, kept = sorted(before["diarization"])
    (folder,) = Path(built.work, "diarization").glob(f"*/{lost}")
    shutil.rmtree(folder)
    shutil.rmtree(built.corpus)
    assert built.build().is_completed()
    assert built.rows() == rows
    after = {stage: built.outputs(stage) for stage in STAGES}
    assert after["diarization"][lost] > before["diarization"][lost]
    assert after["diarization"][kept] == before["diarization"][kept]
    assert {stage: set(keys) for stage, keys in after.items()} == {stage: set(keys) for stage, keys in before.items()}
    assert after["separation"] == before["separation"]


def test_a_build_that_keeps_nothing_fails_and_says_why(prefect_server: None, quick_plots: None, tmp_path: Path) -> None:
    (tmp_path / "talks").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "talks" / name).write_text("This is not a video.\n" * 100)
    corpus = str(tmp_path / "corpus")
    state = build_dataset([str(tmp_path / "talks")], corpus, str(tmp_path / "work"), return_state=True)
    assert state.is_failed()
    assert re.match(r"Nothing was kept of 2 sources: 2 not_media\. file://\S+/[ab]\.mp4 has no", state.message)
    assert verify(Corpus.open(corpus)).problems == []
    again = refresh_corpus(corpus, return_state=True)
    assert (again.is_failed(), again.message) == (True, state.message)


def test_settings_are_validated_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="threshold"):
        BuildSettings.model_validate({"consistency": {"threshold": 7}})
    with pytest.raises(ValueError, match="thresholds"):
        BuildSettings.model_validate({"consistency": {"thresholds": 0.5}})


def with_other_execution(settings: Any) -> Any:
    """A copy with another value for every number that is marked `execution`."""
    changes: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel) and not is_execution(field):
            changes[name] = with_other_execution(value)
        elif is_execution(field) and type(value) in (int, float):
            changes[name] = value + 1
    other = type(settings).model_validate({**dict(settings), **changes})
    assert shaping(other) == shaping(settings)
    return other


def flat(settings: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Dotted name of each setting -> value."""
    values: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        values |= flat(value, f"{prefix}{name}.") if isinstance(value, BaseModel) else {prefix + name: value}
    return values


def test_a_paused_feed_is_not_asked_and_the_run_says_so(built: Built) -> None:
    before = built.rows()
    Variable.set(VARIABLE, [built.feed])
    try:
        state = built.build()
    finally:
        Variable.unset(VARIABLE)
    assert state.is_completed()
    assert built.requests == [], "nobody was asked"
    assert built.feed in artifacts(state)["build-paused"]
    assert built.rows() == before
    build = read_build(Corpus.open(built.corpus))
    assert build is not None
    assert build["sources"] == [built.feed], "a refresh takes it up again once it is off the list"
