"""Any rows that fit the schema come back as they were, through whatever reads Parquet."""

import json
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import assume, given
from hypothesis import strategies as st

from storage.corpus import Corpus
from storage.rows import CorpusError, build_table, content_token
from storage.schema import REJECT, SOURCE, UTTERANCE
from storage.work import Step
from tests.properties import attempt, fewer, usual

text = st.text(st.characters(codec="utf-8"), max_size=6)


def values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Whatever a field of an Arrow type can hold."""
    if pa.types.is_struct(kind):
        members = (kind.field(index) for index in range(kind.num_fields))
        return st.fixed_dictionaries({m.name: st.one_of(st.none(), values(m.type)) for m in members})
    if pa.types.is_list(kind):
        return st.lists(values(kind.value_type), max_size=3)
    if pa.types.is_map(kind):
        return st.dictionaries(text, values(kind.item_type), max_size=3)
    if pa.types.is_floating(kind):
        return st.floats(width=kind.bit_width, allow_nan=False, allow_infinity=False)
    if pa.types.is_integer(kind):
        return st.integers(-(2**31), 2**31 - 1)
    return {pa.string(): text, pa.binary(): st.binary(max_size=6)}[kind]


def rows(schema: pa.Schema, **fixed: Any) -> st.SearchStrategy[dict[str, Any]]:
    fields = [field for field in schema if field.name not in {"committed_at", *fixed}]
    drawn = {f.name: st.one_of(st.none(), values(f.type)) if f.nullable else values(f.type) for f in fields}
    return st.fixed_dictionaries(drawn).map(lambda row: row | fixed)


@st.composite
def commits(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of `commit_source` that add up, with anything at all in the fields."""
    source_id, recipe = draw(st.text("0123456789abcdef", min_size=8, max_size=12)), draw(text)
    own = {"source_id": source_id, "recipe": recipe}
    kept = draw(st.lists(rows(UTTERANCE, utterance_id="", **own), max_size=3))
    refused = draw(st.lists(rows(REJECT, **own), max_size=3))
    turns = sum(row["start"] is not None for row in refused)
    counts = {"turns_found": len(kept) + turns, "turns_kept": len(kept), "turns_rejected": turns}
    return {
        "source": draw(rows(SOURCE, status="kept", **own, **counts)),
        "utterances": [row | {"utterance_id": f"{source_id}-{n:05d}"} for n, row in enumerate(kept)],
        "rejects": refused,
    }


def plain(table: pa.Table, schema: pa.Schema) -> list[dict[str, Any]]:
    """Rows of Python objects, in the order of their content."""
    found = table.select([name for name in schema.names if name != "committed_at"]).to_pylist(maps_as_pydicts="strict")
    return sorted(found, key=lambda row: json.dumps(row, default=repr, sort_keys=True))


@fewer(4)
@given(commit=commits())
def test_what_is_committed_comes_back_through_every_reader(
    commit: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    corpus = Corpus.open(tmp_path_factory.mktemp("corpus"), create=True)
    assert corpus.commit_source(**commit) == "committed"
    assert corpus.commit_source(**commit) == "unchanged"
    source = commit["source"] | {"committed_at": datetime(2026, 1, 1, tzinfo=UTC)}
    given_rows = {"utterances": commit["utterances"], "rejects": commit["rejects"], "sources": [source]}
    for name, schema in {"utterances": UTTERANCE, "rejects": REJECT, "sources": SOURCE}.items():
        wanted = plain(build_table(given_rows[name], schema=schema, name=name), schema)
        delta = DeltaTable(corpus.uri(name))
        assert plain(corpus.dataset(name).to_table(), schema) == wanted
        assert plain(delta.to_pyarrow_table(), schema) == wanted
        shards = [pq.read_table(uri.removeprefix("file://"), schema=schema) for uri in delta.file_uris()]
        if shards:
            assert plain(pa.concat_tables(shards), schema) == wanted
            frame = pd.concat([pd.read_parquet(uri) for uri in delta.file_uris()])
            for column in ("source_id", "url", "recipe"):
                assert sorted(frame[column]) == sorted(row[column] for row in wanted)


@usual
@given(given_rows=st.lists(rows(UTTERANCE), min_size=1, max_size=4), data=st.data())
def test_a_token_stands_for_the_rows_in_any_order_and_for_nothing_else(
    given_rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    def token(some: list[dict[str, Any]], *upstream: int) -> int:
        return content_token(build_table(some, schema=UTTERANCE, name="utterances"), *upstream)

    known = token(given_rows)
    assert token(data.draw(st.permutations(given_rows))) == known
    at, field = data.draw(st.integers(0, len(given_rows) - 1)), data.draw(st.sampled_from(list(UTTERANCE)))
    changed = [dict(row) for row in given_rows]
    changed[at][field.name] = data.draw(values(field.type))
    before, after = (build_table(some, schema=UTTERANCE, name="u").to_pylist() for some in (given_rows, changed))
    if repr(before) != repr(after):  # -0.0 is another float than 0.0
        assert token(changed) != known
    assert token([*given_rows, given_rows[0]]) != known
    assert token(given_rows[1:]) != known
    assert token(given_rows, 1) != known


@usual
@given(row=rows(UTTERANCE), data=st.data())
def test_a_row_that_does_not_fit_is_refused_by_the_name_of_its_field(row: dict[str, Any], data: st.DataObject) -> None:
    field = data.draw(st.sampled_from([f for f in UTTERANCE if not pa.types.is_nested(f.type)]))
    # None of these is a value of any field that is not nested.
    wrong = data.draw(st.sampled_from([[], float("inf"), object(), 2**80, b"\xff", {"x": 1}]))
    assume(not (pa.types.is_floating(field.type) and wrong == 2**80))
    with pytest.raises(CorpusError, match=f"utterances: {field.name}"):
        build_table([row | {field.name: wrong}], schema=UTTERANCE, name="utterances")


@pytest.mark.parametrize("wrong", [[], {}, 5, "low"])
@pytest.mark.parametrize("name", ["attributes", "audio"])
def test_what_is_no_struct_is_refused(make_rows, name, wrong):
    row = make_rows("e1", kept=1)["utterances"][0]
    with pytest.raises(CorpusError, match=f"utterances: {name}"):
        build_table([row | {name: wrong}], schema=UTTERANCE, name="utterances")


parameters = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)


@usual
@given(one=st.dictionaries(st.text(), parameters, max_size=3), other=st.dictionaries(st.text(), parameters, max_size=3))
def test_keys_are_equal_when_all_that_they_stand_for_is(one: dict[str, Any], other: dict[str, Any]) -> None:
    def key(settings: dict[str, Any]) -> str:
        return Step("decode", 1, "", settings, ()).key

    assert key(dict(reversed(one.items()))) == key(one)
    assert key(json.loads(json.dumps(one))) == key(one)
    assert (key(one) == key(other)) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))
    assert key({"a": one}) != key({"a": one, "b": None})
    assert key({"a": [one]}) != key({"a": one})


@usual
@given(name=st.text(max_size=12))
def test_a_stage_names_a_folder_or_is_refused(name: str) -> None:
    step, told = attempt(lambda: Step(name, 1, "", {}, ()), ValueError)
    if told:
        assert "cannot name a folder" in told
    else:
        assert set(step.stage) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")
        assert len(step.key) == 64
