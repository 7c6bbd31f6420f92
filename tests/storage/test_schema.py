"""A corpus with another schema is refused; the message names the columns."""

import pyarrow as pa
import pytest
from deltalake import Field, write_deltalake
from deltalake.schema import PrimitiveType

import storage.corpus
from storage.corpus import SCHEMAS, Corpus
from storage.rows import CorpusError
from storage.schema import UTTERANCE
from storage.verify import verify


@pytest.mark.parametrize("column", ["caption", "quality"])
def test_a_missing_column_is_named(tmp_path, monkeypatch, column):
    with monkeypatch.context() as patch:
        patch.setitem(storage.corpus.SCHEMAS, "utterances", UTTERANCE.remove(UTTERANCE.get_field_index(column)))
        Corpus.open(tmp_path, create=True)
    for create in (False, True):
        with pytest.raises(CorpusError, match=f"another schema: missing {column}; build into a new location"):
            Corpus.open(tmp_path, create=create)


def test_an_unknown_column_is_named(corpus):
    corpus.delta("utterances").alter.add_columns([Field("valence", PrimitiveType("float"))])
    with pytest.raises(CorpusError, match="another schema: unknown valence; build into a new location"):
        Corpus.open(corpus.location)
    (problem,) = verify(corpus).problems
    assert problem.code == "schema"
    assert "valence" in problem.message


@pytest.mark.parametrize("table", SCHEMAS)
def test_a_column_of_another_type_is_named(corpus, table, make_rows):
    corpus.commit_source(**make_rows("e1", kept=1, rejected=1))
    rows = corpus.dataset(table).to_table()
    at = rows.column_names.index("url")
    wrong = rows.set_column(at, "url", pa.array([1] * len(rows), pa.int64()))
    write_deltalake(corpus.uri(table), wrong, mode="overwrite", schema_mode="overwrite")
    with pytest.raises(CorpusError, match=rf"{table} at .*: url is int64 that may be null, not string; build"):
        Corpus.open(corpus.location)
    (problem,) = verify(corpus).problems
    assert problem.code == "schema"
