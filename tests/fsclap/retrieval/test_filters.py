import numpy as np
import pyarrow as pa
import pytest

from fsclap.retrieval.filters import Condition, columns, mask, unknown_values
from fsclap.retrieval.index import SearchError

ROWS = pa.table(
    {
        "emotion": ["sad", "happy", None, "sad"],
        "duration": [0.5, 1.5, 2.5, 3.5],
        "sample_rate": pa.array([1, 2, 3, 4], pa.int32()),
        "events": [["laughter", "applause"], [], ["cough"], ["laughter"]],
        "attributes": pa.array([{"pitch_hz": 100.0}, {"pitch_hz": None}, {"pitch_hz": 200.0}, {"pitch_hz": 300.0}]),
        "style": pa.array([[{"attribute": "pitch", "word": "low"}], [], [], []]),
        "style_key": ["pitch=low;rate=slow", "pitch=high", None, "pitch=high;events=cough+sigh"],
        "text": ["Never again.", "50% (off)", "NEVER", "Žluťoučký"],
    }
)


def met(*conditions: str) -> list[int]:
    found = mask(ROWS, [Condition.parse(text) for text in conditions])
    assert found is not None
    return np.flatnonzero(found).tolist()


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("emotion=sad", [0, 3]),
        ("emotion != sad", [1]),
        ("duration>=1.5", [1, 2, 3]),
        ("duration > 1.5", [2, 3]),
        ("duration<=1.5", [0, 1]),
        ("duration < 1.5", [0]),
        ("sample_rate=3", [2]),
        ("attributes.pitch_hz>150", [2, 3]),
        ("attributes.pitch_hz!=100", [2, 3]),
        ("text~never", [0, 2]),
        ("text ~ ŽLUŤ", [3]),
        ("text=50% (off)", [1]),
        ("text~%", [1]),
        ("events=laughter", [0, 3]),
        ("events!=laughter", [1, 2]),
        ("events~laugh", [0, 3]),
        ("emotion=", []),
        ('emotion == "sad"', [0, 3]),
        ("emotion = 'sad'", [0, 3]),
        ("emotion = “sad”", [0, 3]),
        ('emotion = "sad', []),
        ("duration == 1.5", [1]),
        ("style=low", [0]),
        ("style = SLOW", [0]),
        ("style.pitch=high", [1, 3]),
        ("style.pitch!=high", [0]),
        ("style.rate = high", []),
        ("style~h", [1, 3]),
        ("style.events=sigh", [3]),
    ],
)
def test_a_condition(condition: str, rows: list[int]) -> None:
    assert met(condition) == rows


def test_all_conditions_must_hold() -> None:
    assert met("emotion=sad", "duration>1") == [3]
    assert mask(ROWS, []) is None


@pytest.mark.parametrize(
    ("condition", "said"),
    [("emotion", "not a condition"), ("= sad", "not a condition"), ("", "not a condition"),
     ("mood=sad", "attributes.pitch_hz"),
     ("attributes=1", "no column"), ("style < low", "words"), ("style.tempo=low", "no column"),
     ("emotoin=sad", "mean emotion"), ("pitch_hz>1", "mean attributes.pitch_hz"),
     ("duration>long", "double"),
     ("sample_rate=1.5", "int32")],
)  # fmt: skip
def test_an_invalid_condition_is_refused(condition: str, said: str) -> None:
    with pytest.raises(SearchError, match=said):
        met(condition)


def test_columns_are_those_that_a_condition_can_name() -> None:
    assert columns(ROWS) == [
        "emotion",
        "duration",
        "sample_rate",
        "events",
        "attributes.pitch_hz",
        "style",
        "style.pitch",
        "style.rate",
        "style.events",
        "style_key",
        "text",
    ]


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("emotion = sadd", "No clip's emotion is 'sadd'. It has, for instance: sad."),
        ("style.pitch = deep", "No clip's style.pitch is 'deep'. It has, for instance: high, low."),
        ("text ~ goodbye", "No clip's text contains 'goodbye'."),
        ("events = sneeze", "No clip's events is 'sneeze'. It has"),
        ("emotion = sad", None),
        ("emotion != sadd", None),
        ("duration > 99", None),
    ],
)
def test_a_text_that_no_clip_has_is_told(condition: str, said: str | None) -> None:
    found = unknown_values(ROWS, [Condition.parse(condition)])
    assert len(found) == (said is not None)
    assert said is None or str(found[0]).startswith(said)
