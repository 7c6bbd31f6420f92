import json
import os
import shutil
from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow.parquet as pq
import pytest

import storage.corpus
from storage import maintenance
from storage.corpus import Corpus
from storage.export import export
from storage.maintenance import forget, history, restore, vacuum
from storage.rows import CorpusError
from storage.validation import TIMINGS
from storage.verify import verify


def everything(corpus):
    return [
        corpus.utterances().to_pylist(),
        corpus.rejects().to_pylist(),
        corpus.sources().drop_columns(list(TIMINGS)).to_pylist(),
    ]


def identifier(rows):
    return rows["source"]["source_id"]


@pytest.fixture(scope="module")
def original(tmp_path_factory, make_rows):
    """A corpus, its rows at each version of the utterances, and the commits that made them."""
    corpus = Corpus.open(tmp_path_factory.mktemp("original") / "corpus", create=True)
    first, second = make_rows("e1", kept=3), make_rows("e2", kept=2)
    refused, again = make_rows("e3", kept=0, rejected=0, status="rejected"), make_rows("e1", kept=1, recipe="recipe-2")
    taken_back = make_rows("e2", kept=0, rejected=2, status="rejected", recipe="recipe-2")
    states = {0: everything(corpus)}
    for rows in (first, second, refused, again, taken_back):
        corpus.commit_source(**rows)
        states[corpus.version()] = everything(corpus)
    assert list(states) == [0, 1, 2, 3, 4]
    return corpus, states, [first, second, refused, again, taken_back]


@pytest.fixture
def story(corpus, original):
    """The rows and commits of the original, of which the corpus is a copy."""
    whole, states, commits = original
    shutil.rmtree(corpus.folder)
    shutil.copytree(whole.folder, corpus.folder)
    return states, commits


# Forgetting


def test_what_is_forgotten_is_built_again(corpus, make_rows):
    one, two = make_rows("e1"), make_rows("e2", kept=0, rejected=3, status="rejected")
    for rows in (one, two):
        corpus.commit_source(**rows)
    before = everything(corpus)
    assert forget(corpus, [identifier(one), identifier(two)]) == sorted([identifier(one), identifier(two)])
    assert everything(corpus) == [[], [], []]
    assert verify(corpus).problems == []
    assert [corpus.commit_source(**rows) for rows in (one, two)] == ["committed", "committed"]
    assert everything(corpus) == before
    assert verify(corpus).problems == []


def test_forgetting_leaves_the_others_and_may_be_repeated(corpus, make_rows):
    one, two = make_rows("e1"), make_rows("e2")
    corpus.commit_source(**two)
    before = everything(corpus)
    corpus.commit_source(**one)
    forget(corpus, [identifier(one)])
    assert everything(corpus) == before
    versions = [corpus.delta(name).version() for name in storage.corpus.SCHEMAS]
    assert forget(corpus, [identifier(one), "ab" * 8]) == []
    assert [corpus.delta(name).version() for name in storage.corpus.SCHEMAS] == versions


@pytest.mark.parametrize("tables", [1, 2])
def test_a_forgetting_that_was_interrupted_is_finished_by_the_next(corpus, make_rows, monkeypatch, tables):
    rows = make_rows("e1")
    corpus.commit_source(**rows)

    put, calls = maintenance._remove_rows, []

    def stop(*arguments, **options):
        if len(calls) == tables:
            raise KeyboardInterrupt
        calls.append(1)
        put(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(maintenance, "_remove_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            forget(corpus, [identifier(rows)])
    assert corpus.ledger() == {}, "who trusts the ledger sees no half source"
    assert forget(corpus, [identifier(rows)]) == [identifier(rows)]
    assert everything(corpus) == [[], [], []]


# History


def test_the_history_says_what_each_version_changed(corpus, story):
    _, (first, second, *_) = story
    one, two = identifier(first), identifier(second)
    changes = history(corpus)
    assert [(c.number, c.added, c.replaced, c.removed, c.rows) for c in changes] == [
        (0, (), (), (), 0),
        (1, (one,), (), (), 3),
        (2, (two,), (), (), 5),
        (3, (), (one,), (), 3),
        (4, (), (), (two,), 1),
    ]
    assert all(change.readable for change in changes)
    assert sorted(change.time for change in changes) == [change.time for change in changes]
    assert abs(changes[-1].time - datetime.now(UTC)) < timedelta(hours=1)


# Going back


@pytest.mark.parametrize("version", [0, 1, 2, 3, 4])
def test_the_three_tables_go_back_together(corpus, story, version):
    states, commits = story
    assert restore(corpus, version) == []
    assert everything(corpus) == states[version]
    assert verify(corpus).problems == []
    for rows in commits[-3:]:  # what a build of the last state asks for
        corpus.commit_source(**rows)
    assert everything(corpus) == states[4], "a build adds again what the version lacked"
    assert verify(corpus).problems == []


def test_a_build_of_what_was_there_then_changes_nothing(corpus, story):
    _, (first, second, *_) = story
    restore(corpus, 2)
    assert [corpus.commit_source(**rows) for rows in (first, second)] == ["unchanged", "unchanged"]


def test_nothing_is_lost_by_going_back(corpus, story):
    states, _ = story
    restore(corpus, 1)
    assert corpus.version() == 5
    assert history(corpus)[-1].operation == "RESTORE"
    restore(corpus, 4)
    assert everything(corpus) == states[4]
    restore(corpus, 4)
    assert corpus.version() == 6, "what is there already is not written again"


def test_what_was_forgotten_can_be_had_back(corpus, story):
    states, (first, *_) = story
    forget(corpus, [identifier(first)])
    forgotten = everything(corpus)
    restore(corpus, 4)
    assert everything(corpus) == states[4]
    restore(corpus, 5)
    assert everything(corpus) == forgotten
    assert verify(corpus).problems == []


def test_a_source_that_was_half_committed_then_is_taken_out(corpus, make_rows, monkeypatch):
    whole, half, later = make_rows("e1"), make_rows("e2"), make_rows("e3")
    corpus.commit_source(**whole)
    before = everything(corpus)

    def killed(table, *arguments, **options):
        if table.table_uri.rstrip("/").endswith("sources"):
            raise KeyboardInterrupt
        return write(table, *arguments, **options)

    write = storage.corpus.write_deltalake
    with monkeypatch.context() as patch:
        patch.setattr(storage.corpus, "write_deltalake", killed)
        with pytest.raises(KeyboardInterrupt):
            corpus.commit_source(**half)
    version = corpus.version()
    corpus.commit_source(**later)
    assert restore(corpus, version) == [identifier(half)]
    assert everything(corpus) == before
    assert corpus.commit_source(**half) == "committed"
    assert verify(corpus).problems == []


@pytest.mark.parametrize("version", [5, 99, -1])
def test_there_must_be_such_a_version(corpus, story, version):
    with pytest.raises(CorpusError, match=rf"has no version {version}: the utterances are at version 4; .*history"):
        restore(corpus, version)


# Room


def age(corpus, days):
    """Make everything but the current shards look as if it had been done some days ago."""
    moment = datetime.now(UTC) - timedelta(days=days)
    for log in corpus.folder.glob("*/_delta_log/*.json"):
        actions = [json.loads(line) for line in log.read_text().splitlines()]
        for action in actions:
            if "remove" in action:
                action["remove"]["deletionTimestamp"] = int(moment.timestamp() * 1000)
        log.write_text("".join(json.dumps(action) + "\n" for action in actions))
    for path in [*corpus.folder.glob("*/*.parquet*"), *corpus.folder.glob("*.tmp")]:
        os.utime(path, (moment.timestamp(), moment.timestamp()))


@pytest.fixture
def littered(corpus, story):
    """The same corpus with what killed writers left behind."""
    (corpus.folder / "utterances" / "part-9.parquet#1").write_bytes(bytes(1000))
    (corpus.folder / "rejects" / "part-8.parquet").write_bytes(bytes(100))
    (corpus.folder / ".speakers.parquet.77.tmp").write_bytes(bytes(10))
    return corpus


def test_what_no_version_of_the_last_days_needs_is_removed(littered, story):
    states, _ = story
    age(littered, days=20)
    before = {path for path in littered.folder.rglob("*") if path.is_file()}
    assert vacuum(littered, keep=timedelta(days=30)) == []
    told = vacuum(littered, keep=timedelta(days=10), dry_run=True)
    assert {path for path in littered.folder.rglob("*") if path.is_file()} == before
    sizes = {path: path.stat().st_size for path in before}
    removed = vacuum(littered, keep=timedelta(days=10))
    assert removed == told
    left = {path for path in littered.folder.rglob("*") if path.is_file()}
    gone = {littered.folder / file.name: file.size for file in removed}
    assert gone == {path: sizes[path] for path in before - left}
    assert {"part-9.parquet#1", "part-8.parquet", ".speakers.parquet.77.tmp"} <= {path.name for path in gone}
    assert everything(littered) == states[4]
    assert verify(littered) == verify(littered, audio=False)
    assert (verify(littered).problems, verify(littered).notes) == ([], [])
    assert vacuum(littered, keep=timedelta(0)) == []


def test_a_vacuum_makes_no_version(littered):
    """A new version of the utterances would be trained on."""
    version = littered.version()
    vacuum(littered, keep=timedelta(0))
    assert littered.version() == version


def test_after_a_vacuum_the_folder_is_the_corpus(littered, story, tmp_path, no_card):
    states, _ = story
    vacuum(littered, keep=timedelta(0))
    read = pd.read_parquet(littered.folder / "utterances", columns=["utterance_id"])["utterance_id"]
    assert sorted(read) == [row["utterance_id"] for row in states[4][0]]
    shards = sorted((littered.folder / "utterances").glob("*.parquet"))
    assert [path.name for path in shards] == littered.shards()
    files = export(littered, tmp_path / "clean", title="Test", settings={}, threshold=None)
    assert pq.read_table(files[0]).num_rows == len(states[4][0])


def test_versions_from_before_are_gone_after_a_vacuum(littered):
    vacuum(littered, keep=timedelta(0))
    assert [change.readable for change in history(littered)] == [True, False, False, False, True]
    before = everything(littered)
    with pytest.raises(CorpusError, match=r"version 2 cannot be restored: \d of its shards in .* are gone"):
        restore(littered, 2)
    assert everything(littered) == before
    with pytest.raises(CorpusError, match="cannot be read"):
        littered.utterances(version=2)


def test_a_restored_shard_is_kept(corpus, story):
    states, _ = story
    restore(corpus, 2)
    vacuum(corpus, keep=timedelta(0))
    assert everything(corpus) == states[2]
    assert verify(corpus).problems == []


def test_the_clocks_of_two_workers_may_differ(corpus, story):
    """Every other commit was made by a worker whose clock is ten minutes ahead."""
    states, _ = story
    for name in storage.corpus.SCHEMAS:
        for path in sorted((corpus.folder / name / "_delta_log").glob("*.json"))[1::2]:
            actions = [json.loads(line) for line in path.read_text().splitlines()]
            for action in actions:
                if "commitInfo" in action:
                    action["commitInfo"]["timestamp"] += 600_000
            path.write_text("\n".join(map(json.dumps, actions)) + "\n")
    for version in (3, 2, 1):
        restore(corpus, version)
        assert everything(corpus) == states[version]
