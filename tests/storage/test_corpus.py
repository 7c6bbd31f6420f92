import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import deltalake
import pyarrow.fs
import pytest
from deltalake.exceptions import CommitFailedError

import storage.corpus
from storage.corpus import SCHEMAS, WITHOUT_AUDIO, Corpus, SourceRows
from storage.objects import PlaceError
from storage.rows import CorpusError
from storage.verify import verify

ROOT = Path(__file__).parents[2]


def contents(corpus):
    """What the three tables hold, by source, for comparison with a dict model."""
    rows = {}
    for name, table in (("utterances", corpus.utterances()), ("rejects", corpus.rejects())):
        for row in table.to_pylist(maps_as_pydicts="strict"):
            rows.setdefault(row["source_id"], {}).setdefault(name, []).append(row)
    return {
        source_id: {
            "status": source["status"],
            "recipe": source["recipe"],
            "utterances": [row["utterance_id"] for row in rows.get(source_id, {}).get("utterances", [])],
            "rejects": [(row["reason"], row["start"]) for row in rows.get(source_id, {}).get("rejects", [])],
        }
        for source_id, source in corpus.ledger().items()
    }


def expected(rows):
    order = sorted(rows["rejects"], key=lambda row: (row["start"] is None, row["start"]))
    return {
        "status": rows["source"]["status"],
        "recipe": rows["source"]["recipe"],
        "utterances": [row["utterance_id"] for row in rows["utterances"]],
        "rejects": [(row["reason"], row["start"]) for row in order],
    }


def assert_holds(corpus, *committed):
    assert contents(corpus) == {rows["source"]["source_id"]: expected(rows) for rows in committed}
    assert verify(corpus).problems == []


# Opening


def test_open_says_that_there_is_no_folder(tmp_path):
    with pytest.raises(CorpusError, match="there is no such folder"):
        Corpus.open(tmp_path / "nowhere")


def test_open_says_that_a_folder_is_no_corpus(tmp_path):
    (tmp_path / "notes.txt").write_text("not a corpus")
    with pytest.raises(CorpusError, match="none of its tables"):
        Corpus.open(tmp_path)


def test_open_names_the_table_that_is_missing(corpus):
    Path(corpus.uri("rejects")).rename(Path(corpus.location) / "elsewhere")
    with pytest.raises(CorpusError, match="no Delta table rejects"):
        Corpus.open(corpus.location)


def test_many_workers_may_create_one_corpus(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: Corpus.open(tmp_path / "c", create=True), range(8)))
    assert {corpus.version() for corpus in made} == {0}


def test_a_location_may_be_a_uri(tmp_path, make_rows):
    corpus = Corpus.open(f"file://{tmp_path}/c", create=True)
    corpus.commit_source(**make_rows("e1"))
    assert corpus.folder == tmp_path / "c"
    assert verify(corpus).problems == []
    with pytest.raises(PlaceError, match="not a local folder"):
        _ = Corpus("s3://bucket/corpus").folder
    with pytest.raises(CorpusError, match="not a location"):
        Corpus.at("ftp://host/corpus")


# Committing


def test_a_commit_comes_back_field_by_field(corpus, make_rows):
    rows = make_rows("e1", kept=4, emotion="joy")
    assert corpus.commit_source(**rows) == "committed"
    read = corpus.utterances().to_pylist(maps_as_pydicts="strict")
    for row, given in zip(read, rows["utterances"], strict=True):
        assert row["audio"] == given["audio"]
        assert row["similarity"] == pytest.approx(given["similarity"], abs=1e-6)
        measured = {key: value for key, value in given["attributes"].items() if value is not None}
        assert {key: row["attributes"][key] for key in measured} == pytest.approx(measured, rel=1e-6)
        assert row["attributes"]["pitch_slope_st"] is None
        for field in ("utterance_id", "duration", "text", "emotion", "events", "caption", "sample_rate"):
            assert row[field] == given[field]
    (source,) = corpus.ledger().values()
    assert source["stage_seconds"] == rows["source"]["stage_seconds"]
    assert source["committed_at"].tzinfo is not None


def test_the_threads_that_read_a_local_table_need_no_python(corpus):
    # A process that ended in the middle of such a scan crashed (139) or hung: its threads asked for Python's lock.
    assert isinstance(corpus.dataset().filesystem, pyarrow.fs.SubTreeFileSystem)


def test_a_replay_changes_nothing(corpus, make_rows):
    rows = make_rows("e1")
    corpus.commit_source(**rows)
    before = corpus.version(), corpus.sources(), corpus.shards()
    slower = rows | {"source": rows["source"] | {"stage_seconds": {"decode": 9.0}}}
    assert corpus.commit_source(**rows) == "unchanged"
    assert corpus.commit_source(**slower) == "unchanged"
    assert (corpus.version(), corpus.sources(), corpus.shards()) == before


def test_a_new_recipe_replaces_the_rows_of_its_source_only(corpus, make_rows):
    first, second, other = make_rows("e1"), make_rows("e1", kept=1, recipe="recipe-2"), make_rows("e2")
    corpus.commit_source(**first)
    corpus.commit_source(**other)
    version = corpus.version()
    assert corpus.commit_source(**second) == "committed"
    assert_holds(corpus, second, other)
    assert corpus.utterances(version=version, columns=["utterance_id"]).num_rows == 6
    assert len(corpus.shards()) == 2


def test_sources_are_committed_together(corpus, make_rows):
    """New ones by one transaction per table, those that had rows by another; each is what it would be alone."""
    old, same = make_rows("e1"), make_rows("e2")
    gone = make_rows("e3", kept=0, rejected=0, status="failed")
    for rows in (old, same, make_rows("e3")):
        corpus.commit_source(**rows)
    before = {name: corpus.delta(name).version() for name in SCHEMAS}
    renewed, *new = make_rows("e1", kept=1, recipe="recipe-2"), make_rows("e4"), make_rows("e5", kept=2)
    given = [new[0], same, renewed, gone, new[1]]
    found = corpus.commit_sources([SourceRows(**rows) for rows in given])
    assert found == ["committed", "unchanged", "committed", "kept_earlier", "committed"]
    assert_holds(corpus, renewed, same, make_rows("e3"), *new)
    assert {name: corpus.delta(name).version() - before[name] for name in SCHEMAS} == dict.fromkeys(SCHEMAS, 2)
    alone = {rows["source"]["source_id"]: corpus.commit_source(**rows) for rows in (renewed, same, *new)}
    assert set(alone.values()) == {"unchanged"}


def test_a_source_is_in_a_commit_once(corpus, make_rows):
    with pytest.raises(CorpusError, match="there twice"):
        corpus.commit_sources([SourceRows(**make_rows("e1")), SourceRows(**make_rows("e1", kept=1))])
    assert corpus.ledger() == {}


def test_a_rejected_source_makes_no_version_of_the_utterances(corpus, make_rows):
    corpus.commit_source(**make_rows("e1"))
    version = corpus.version()
    refused = make_rows("e2", kept=0, rejected=0, status="rejected")
    assert corpus.commit_source(**refused) == "committed"
    assert corpus.version() == version
    assert_holds(corpus, make_rows("e1"), refused)


def test_a_rejection_takes_back_what_was_kept(corpus, make_rows):
    corpus.commit_source(**make_rows("e1"))
    refused = make_rows("e1", kept=0, rejected=3, status="rejected", recipe="recipe-2")
    assert corpus.commit_source(**refused) == "committed"
    assert_holds(corpus, refused)


def test_a_failure_takes_nothing_away_from_an_earlier_run(corpus, make_rows):
    kept = make_rows("e1")
    corpus.commit_source(**kept)
    failed = make_rows("e1", kept=0, rejected=0, status="failed", recipe="recipe-2")
    assert corpus.commit_source(**failed) == "kept_earlier"
    assert_holds(corpus, kept)


def test_a_failure_is_recorded_and_can_be_made_good(corpus, make_rows):
    failed, kept = make_rows("e1", kept=0, rejected=0, status="failed"), make_rows("e1")
    corpus.commit_source(**failed)
    assert_holds(corpus, failed)
    corpus.commit_source(**kept)
    assert_holds(corpus, kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"turns_found": 9}, "turns_found of .* is 9, but 3 were kept and 2 rejected"),
        ({"turns_kept": 4, "turns_found": 6}, "turns_kept of .* is 4, but it has 3 rows"),
        ({"turns_rejected": 1, "turns_found": 4}, "turns_rejected of .* is 1, but it has 2 rows"),
        ({"status": "done"}, "status of .* is 'done', not one of kept, rejected, failed"),
        ({"status": "rejected"}, "it must have no utterances"),
        ({"source_id": "x' OR '1'='1"}, "source_id .* is not 8 to 64 lower-case hexadecimal digits"),
        ({"recipe": "recipe-2"}, "recipe 'recipe-1' is not that of the source"),
        ({"committed_at": None}, "committed_at is set by the commit"),
    ],
)
def test_what_does_not_add_up_is_refused_and_nothing_written(corpus, make_rows, change, message):
    rows = make_rows("e1")
    with pytest.raises(CorpusError, match=message):
        corpus.commit_source(**rows | {"source": rows["source"] | change})
    assert contents(corpus) == {}
    assert corpus.version() == 0


def test_a_source_that_was_not_kept_must_say_why(corpus, make_rows):
    rows = make_rows("e1", kept=0, rejected=0, status="failed")
    with pytest.raises(CorpusError, match="at least one row in rejects that gives the reason"):
        corpus.commit_source(rows["source"])


def test_utterance_ids_must_be_of_the_source_and_unique(corpus, make_rows):
    rows = make_rows("e1", kept=2)
    first, second = rows["utterances"]
    with pytest.raises(CorpusError, match="occurs twice"):
        corpus.commit_source(**rows | {"utterances": [first, first]})
    with pytest.raises(CorpusError, match="does not start with its source_id"):
        corpus.commit_source(**rows | {"utterances": [first, second | {"utterance_id": "1"}]})


def test_totals(corpus, make_rows):
    corpus.commit_source(**make_rows("e1", kept=3, rejected=2))
    corpus.commit_source(**make_rows("e2", kept=0, rejected=0, status="failed"))
    totals = corpus.totals()
    assert totals.sources == {"kept": 1, "rejected": 0, "failed": 1}
    assert (totals.turns_found, totals.turns_kept, totals.turns_rejected) == (5, 3, 2)
    assert totals.speakers == 2
    assert totals.hours_in == pytest.approx(60 / 3600)
    durations = [row["duration"] for row in make_rows("e1")["utterances"]]
    assert totals.hours_out == pytest.approx(sum(durations) / 3600)


def test_the_audio_can_be_left_unread(corpus, make_rows):
    corpus.commit_source(**make_rows("e1"))
    assert corpus.utterances(columns=WITHOUT_AUDIO).column_names == list(WITHOUT_AUDIO)
    assert "audio" not in WITHOUT_AUDIO


def test_the_table_of_speakers_is_replaced_as_a_whole(corpus):
    assert corpus.speakers().num_rows == 0
    place = {"series": "s", "episode": "e01", "clips": 3, "seconds": 9.5}
    two = [
        {"speaker": "s/e01/S00", "linked_speaker": "s/e01/S00", "similarity": 0.9, **place},
        {"speaker": "s/e01/S01", "linked_speaker": "s/e01/S01", "similarity": None, **place},
    ]
    corpus.write_speakers(two)
    with pytest.raises(CorpusError, match="speakers: clips"):
        corpus.write_speakers([{**two[0], "clips": None}])
    read = corpus.speakers().to_pylist()
    assert [row["speaker"] for row in read] == ["s/e01/S00", "s/e01/S01"]
    assert [row["similarity"] for row in read] == [pytest.approx(0.9), None]
    corpus.write_speakers(two[:1])
    assert corpus.speakers().num_rows == 1
    assert [path.name for path in Path(corpus.location).glob("speakers*")] == ["speakers.parquet"]


def test_a_version_that_is_not_there_is_an_error(corpus):
    with pytest.raises(CorpusError, match="at version 7"):
        corpus.utterances(version=7)


# Several writers


def race(*jobs):
    """Run the jobs at once and return what they returned, in order."""
    barrier = threading.Barrier(len(jobs))

    def start(job):
        barrier.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(start, jobs))


@pytest.mark.parametrize("existing", [False, True])
def test_two_writers_of_one_source_write_it_once(corpus, make_rows, existing):
    if existing:
        corpus.commit_source(**make_rows("e1", kept=5))
    rows = make_rows("e1", recipe="recipe-2")
    outcomes = race(*[lambda: corpus.commit_source(**rows)] * 4)
    assert "committed" in outcomes
    assert_holds(corpus, rows)


def test_writers_of_overlapping_groups_both_succeed(corpus, make_rows):
    """What one of them wrote first is no more stale for the other."""
    rows = [make_rows(f"e{number}") for number in range(6)]
    groups = [[SourceRows(**one) for one in part] for part in (rows[:4], rows[2:], rows[::-1])]
    race(*[lambda group=group: corpus.commit_sources(group) for group in groups])
    assert_holds(corpus, *rows)


def test_writers_that_disagree_leave_the_rows_of_one_of_them(corpus, make_rows):
    variants = [make_rows("e1", kept=count, recipe=f"recipe-{count}") for count in (1, 2)]
    race(*[lambda rows=rows: corpus.commit_source(**rows) for rows in variants])
    assert verify(corpus).problems == []
    assert next(iter(contents(corpus).values())) in [expected(rows) for rows in variants]


def test_writers_of_different_sources_all_succeed(corpus, make_rows):
    first = [make_rows(f"e{index}", kept=2) for index in range(6)]
    assert race(*[lambda rows=rows: corpus.commit_source(**rows) for rows in first]) == ["committed"] * 6
    again = [make_rows(f"e{index}", kept=3, recipe="recipe-2") for index in range(3)] + [
        make_rows(f"e{index}") for index in range(6, 9)
    ]
    assert race(*[lambda rows=rows: corpus.commit_source(**rows) for rows in again]) == ["committed"] * 6
    assert_holds(corpus, *again, *first[3:])


def test_a_conflict_that_never_ends_is_an_error(corpus, make_rows, monkeypatch):
    def conflict(*_, **__):
        raise CommitFailedError("a concurrent transaction added new data")

    monkeypatch.setattr(storage.corpus, "write_deltalake", conflict)
    monkeypatch.setattr(storage.corpus.time, "sleep", lambda _: None)
    with pytest.raises(CorpusError, match="other writers changed it"):
        corpus.commit_source(**make_rows("e1"))


def run_commit(tmp_path, location, rows, *, before=""):
    """Commit in a process of its own; `before` is code that runs first."""
    arguments = tmp_path / f"{rows['source']['source_id']}-{rows['source']['recipe']}.pickle"
    arguments.write_bytes(pickle.dumps(rows))
    code = f"""
        import os, pathlib, pickle, signal
        import storage.corpus
        from storage.corpus import Corpus
        {textwrap.indent(textwrap.dedent(before), " " * 8).strip()}
        rows = pickle.loads(pathlib.Path({str(arguments)!r}).read_bytes())
        print(Corpus.open({str(location)!r}).commit_source(**rows))
    """
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_processes_write_one_source_once(corpus, tmp_path, make_rows):
    rows = make_rows("e1")
    writers = [run_commit(tmp_path, corpus.location, rows) for _ in range(2)]
    outcomes = [writer.communicate()[0].strip() for writer in writers]
    assert all(writer.returncode == 0 for writer in writers)
    assert set(outcomes) <= {"committed", "unchanged"}
    assert_holds(corpus, rows)


# Crashes


@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_before_the_ledger_is_made_good_by_a_replay(corpus, make_rows, monkeypatch, existing):
    if existing:
        corpus.commit_source(**make_rows("e1", kept=5))
    rows = make_rows("e1", recipe="recipe-2")

    def fail_at_the_ledger(table, *arguments, **options):
        if table.table_uri.rstrip("/").endswith("sources"):
            raise OSError("No space left on device")
        return deltalake.write_deltalake(table, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(storage.corpus, "write_deltalake", fail_at_the_ledger)
        with pytest.raises(CorpusError, match=r"cannot write to .*/sources: No space left .* then run again"):
            corpus.commit_source(**rows)
    assert verify(corpus).problems, "half a commit must not pass for a whole one"
    version = corpus.version()
    assert corpus.commit_source(**rows) == "committed"
    assert corpus.version() == version, "the utterances were written already"
    assert_holds(corpus, rows)


KILL = """
    write, calls = storage.corpus.write_deltalake, []
    def write_or_die(*arguments, **options):
        calls.append(1)
        if len(calls) == {call} and {before}:
            os.kill(os.getpid(), signal.SIGKILL)
        write(*arguments, **options)
        if len(calls) == {call}:
            os.kill(os.getpid(), signal.SIGKILL)
    storage.corpus.write_deltalake = write_or_die
"""


@pytest.mark.parametrize(
    ("call", "before", "existing"),
    [
        (1, True, False),
        (1, False, True),
        (2, False, False),
        (3, True, True),
        (3, False, False),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [(1, True, True), (1, False, False), (2, False, True), (3, True, False), (3, False, True)]
        ),
    ],
)
def test_a_killed_writer_loses_and_doubles_nothing(corpus, tmp_path, make_rows, call, before, existing):
    other = make_rows("e2")
    corpus.commit_source(**other)
    if existing:
        corpus.commit_source(**make_rows("e1", kept=5))
    rows = make_rows("e1", recipe="recipe-2")
    writer = run_commit(tmp_path, corpus.location, rows, before=KILL.format(call=call, before=before))
    writer.communicate()
    assert writer.returncode == -signal.SIGKILL
    corpus.commit_source(**rows)
    assert_holds(corpus, rows, other)


def test_a_shard_that_was_never_committed_is_not_read(corpus, make_rows):
    corpus.commit_source(**make_rows("e1"))
    folder = corpus.folder / "utterances"
    (folder / "part-00000-orphan.zstd.parquet").write_bytes((folder / corpus.shards()[0]).read_bytes())
    assert len(corpus.shards()) == 1
    assert corpus.utterances(columns=["utterance_id"]).num_rows == 3
