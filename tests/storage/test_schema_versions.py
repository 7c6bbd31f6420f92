"""Corpora of other releases: an earlier one lacks columns, a newer one has more."""

from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import Field, write_deltalake
from deltalake.schema import PrimitiveType

import storage.corpus
from storage.care import forget, history, restore, vacuum
from storage.corpus import SCHEMAS, Corpus
from storage.export import export
from storage.rows import CorpusError
from storage.schema import ADDED, UTTERANCE
from storage.verify import verify

LATER = [name for release in ADDED for name in release]


def without(row):
    return {name: value for name, value in row.items() if name not in LATER}


def everything(corpus):
    return [corpus.utterances().to_pylist(), corpus.rejects().to_pylist(), sorted(corpus.ledger())]


@pytest.fixture
def episodes(make_rows):
    return {name: make_rows(name, kept=2, emotion="joy") for name in ("one", "two", "three")}


@pytest.fixture
def earlier(tmp_path, episodes):
    """A corpus of two episodes as the release before the last wrote it."""
    with pytest.MonkeyPatch.context() as release:
        narrow = pa.schema([field for field in UTTERANCE if field.name not in LATER])
        release.setitem(storage.corpus.SCHEMAS, "utterances", narrow)
        release.setattr(storage.corpus, "UTTERANCE", narrow)
        corpus = Corpus.open(tmp_path / "corpus", create=True)
        for name in ("one", "two"):
            rows = episodes[name]
            corpus.commit_source(**rows | {"utterances": [without(row) for row in rows["utterances"]]})
    (held,) = {tuple(pq.read_schema(corpus.folder / "utterances" / shard).names) for shard in corpus.shards()}
    assert set(held) == set(UTTERANCE.names) - set(LATER)
    return corpus


def test_it_is_read_as_null(earlier, episodes):
    corpus = Corpus.open(earlier.location)
    read = corpus.utterances().to_pylist()
    assert all(row[name] is None for row in read for name in LATER)
    given = [row["text"] for name in ("one", "two") for row in episodes[name]["utterances"]]
    assert sorted(row["text"] for row in read) == sorted(given)


def test_it_is_verified_by_the_tokens_of_its_time(earlier):
    assert verify(earlier).problems == []
    earlier.delta("utterances").update(predicate="start = 2.0", updates={"text": "'another'"})
    assert [problem.code for problem in verify(earlier).problems] == ["altered", "altered"]


def test_it_grows_and_is_replaced(earlier, episodes):
    corpus = Corpus.open(earlier.location, create=True)
    assert verify(corpus).problems == [], "the columns are there now, the rows are as old as they were"
    assert corpus.commit_source(**episodes["three"]) == "committed"
    assert corpus.commit_source(**episodes["one"]) == "committed", "its rows say more than before"
    assert verify(corpus).problems == []
    qualities = {row["source_id"]: row["quality"] for row in corpus.utterances().to_pylist()}
    sources = {name: rows["source"]["source_id"] for name, rows in episodes.items()}
    assert qualities[sources["two"]] is None
    assert qualities[sources["one"]] == qualities[sources["three"]] == pytest.approx(3.2)


def test_it_goes_back_to_before_the_columns(earlier, episodes):
    before = everything(earlier)
    version = earlier.version()
    corpus = Corpus.open(earlier.location, create=True)
    assert [change.operation for change in history(corpus)][-1] == "ADD COLUMN"
    corpus.commit_source(**episodes["one"])
    assert restore(corpus, version) == []
    assert everything(corpus) == before
    assert verify(corpus).problems == []
    assert "quality" not in pa.schema(corpus.delta("utterances").schema().to_arrow()).names
    again = Corpus.open(corpus.location, create=True)
    for rows in episodes.values():
        again.commit_source(**rows)
    assert verify(again).problems == []
    assert again.utterances(columns=["quality"])["quality"].null_count == 0


def test_it_is_looked_after(earlier, episodes, tmp_path):
    one = episodes["one"]["source"]["source_id"]
    assert forget(Corpus.open(earlier.location), [one]) == [one]
    assert verify(earlier).problems == []
    assert vacuum(earlier, keep=timedelta(0))
    files = export(earlier, tmp_path / "clean", title="Test", settings={}, threshold=None)
    exported = pq.read_table(files[0])
    assert exported.column_names == UTTERANCE.names
    assert exported.num_rows == 2


def test_a_newer_release_is_refused(corpus):
    corpus.delta("utterances").alter.add_columns([Field("valence", PrimitiveType("float"))])
    with pytest.raises(CorpusError, match=r"columns valence, which this release does not know: a newer one wrote them"):
        Corpus.open(corpus.location)
    (problem,) = verify(corpus).problems
    assert problem.code == "schema"
    assert "valence" in problem.message


@pytest.mark.parametrize("table", SCHEMAS)
def test_other_types_are_refused_by_name(tmp_path, table, make_rows):
    corpus = Corpus.open(tmp_path, create=True)
    corpus.commit_source(**make_rows("e1"))
    held = corpus.dataset(table).to_table()
    at = held.column_names.index("url")
    wrong = held.set_column(at, "url", pa.array([1] * len(held), pa.int64()))
    write_deltalake(corpus.uri(table), wrong, mode="overwrite", schema_mode="overwrite")
    with pytest.raises(CorpusError, match=rf"{table} at .*: url is int64 that may be null, not string; build"):
        Corpus.open(tmp_path)
    (problem,) = verify(corpus).problems
    assert problem.code == "schema"


def test_what_was_added_may_be_null():
    assert all(UTTERANCE.field(name).nullable for name in LATER)
