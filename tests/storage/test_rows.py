import math

import pyarrow as pa
import pytest

from storage.rows import CorpusError, build_table, content_token
from storage.schema import REJECT, UTTERANCE


def test_table_has_exactly_the_schema(make_rows):
    table = build_table(make_rows("e1")["utterances"], schema=UTTERANCE, name="utterances")
    assert table.schema.equals(UTTERANCE)
    assert table.num_rows == 3


def test_a_table_is_taken_as_well_as_rows(make_rows):
    rows = make_rows("e1")["utterances"]
    built = build_table(rows, schema=UTTERANCE, name="utterances")
    assert build_table(built, schema=UTTERANCE, name="utterances").equals(built)
    with pytest.raises(CorpusError, match="lacks caption"):
        build_table(built.drop_columns(["caption"]), schema=UTTERANCE, name="utterances")
    wrong = built.set_column(built.column_names.index("start"), "start", pa.array(["a", "b", "c"]))
    with pytest.raises(CorpusError, match="start is string, not double"):
        build_table(wrong, schema=UTTERANCE, name="utterances")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("duration", "long", "duration does not fit double"),
        ("duration", math.nan, "duration has NaN"),
        ("duration", None, "duration is null in 1 of 1 rows"),
        ("sample_rate", 24_000.5, "sample_rate does not fit int32"),
        ("caption", 3, "caption does not fit string"),
        ("speaker_embedding", [1.0, math.inf], "speaker_embedding has NaN or infinity"),
        ("audio", {"bytes": b"fLaC"}, "audio lacks path"),
        ("audio", {"bytes": b"", "path": "", "rate": 1}, "audio has the unknown rate"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(make_rows, field, value, message):
    row = make_rows("e1")["utterances"][0] | {field: value}
    with pytest.raises(CorpusError, match=f"utterances: {message}"):
        build_table([row], schema=UTTERANCE, name="utterances")


def test_nan_inside_the_attributes_is_refused(make_rows):
    row = make_rows("e1")["utterances"][0]
    row = row | {"attributes": row["attributes"] | {"pitch_hz": math.nan}}
    with pytest.raises(CorpusError, match=r"attributes\.pitch_hz has NaN"):
        build_table([row], schema=UTTERANCE, name="utterances")


def test_a_missing_and_an_unknown_field_are_named(make_rows):
    row = make_rows("e1")["rejects"][0]
    row["because"] = row.pop("reason")
    with pytest.raises(CorpusError, match="rejects: a row lacks reason and has the unknown because"):
        build_table([row], schema=REJECT, name="rejects")


def test_style_is_given_as_a_mapping(make_rows):
    (row, *_) = make_rows("e1")["utterances"]
    style = build_table([row], schema=UTTERANCE, name="utterances")["style"].to_pylist()[0]
    pairs = [tuple(pair.values()) if isinstance(pair, dict) else pair for pair in style]
    assert dict(pairs) == row["style"]


def test_the_token_stands_for_the_content_whatever_its_order(make_rows):
    rows = make_rows("e1")["utterances"]
    tables = [
        build_table(version, schema=UTTERANCE, name="utterances")
        for version in (rows, rows[::-1], [*rows[:-1], rows[-1] | {"caption": "Another."}])
    ]
    same, reversed_, other = map(content_token, tables)
    assert same == reversed_
    assert same != other
    assert same != content_token(tables[0], 1)
    assert all(0 <= token < 2**60 for token in (same, other))


def test_the_token_covers_the_audio(make_rows):
    (row, *_) = make_rows("e1")["utterances"]
    louder = row | {"audio": row["audio"] | {"bytes": row["audio"]["bytes"] + b"\0"}}
    tables = [build_table([one], schema=UTTERANCE, name="utterances") for one in (row, louder)]
    assert content_token(tables[0]) != content_token(tables[1])
