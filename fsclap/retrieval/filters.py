"""Which clips a search looks at: conditions on any column of the corpus."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from fsclap.retrieval.index import SearchError

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "~"]
"""As they read; ~: the column's text has this in it, in any case. For a list, one of its items."""
_FORM = re.compile(r"\s*(?P<column>[A-Za-z_][\w.]*)\s*(?P<operator>!=|<=|>=|=|<|>|~)\s*(?P<value>.*?)\s*", re.DOTALL)
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


class Condition(BaseModel):
    """One condition; a clip of which the column is null does not meet it, whatever it asks.

    Attributes:
        column: Name in the corpus, with a dot for a part of it: "attributes.pitch_hz".
        value: As text; it is read as what the column holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    operator: Operator
    value: str

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Read "emotion=sad", "duration >= 2.5", "text ~ never".

        Raises:
            SearchError: It has another form.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            operators = " ".join(get_args(Operator))
            raise SearchError(f"{text!r} is no condition: write COLUMN OPERATOR VALUE, with one of {operators}")
        return cls.model_validate(found.groupdict())


def columns(rows: pa.Table) -> list[str]:
    """The columns that a condition can name."""
    found: list[str] = []
    for field in rows.schema:
        if pa.types.is_struct(field.type):
            found += [f"{field.name}.{part.name}" for part in field.type]
        elif _is_plain(field.type) or (pa.types.is_list(field.type) and _is_plain(field.type.value_type)):
            found.append(field.name)
    return found


def mask(rows: pa.Table, conditions: Sequence[Condition]) -> np.ndarray | None:
    """Which rows meet all conditions, (rows,) of bool; None when there is no condition.

    Raises:
        SearchError: There is no such column, or it can't be compared with the value.
    """
    if not conditions:
        return None
    met = np.ones(len(rows), dtype=bool)
    for condition in conditions:
        met &= _met(rows, condition)
    return met


def _met(rows: pa.Table, condition: Condition) -> np.ndarray:
    if condition.column not in columns(rows):
        raise SearchError(f"there is no column {condition.column!r}; there are: {', '.join(columns(rows))}")
    name, _, part = condition.column.partition(".")
    values = rows[name].combine_chunks()
    if part:
        values = pc.struct_field(values, part)
    if not pa.types.is_list(values.type):
        return _compared(values, condition)
    # The clips of which an item of the list meets it; for != those of which none is equal.
    unequal = condition.operator == "!="
    asked = condition.model_copy(update={"operator": "="}) if unequal else condition
    parents = pc.list_parent_indices(values).to_numpy(zero_copy_only=False)
    found = np.zeros(len(values), dtype=bool)
    found[parents[_compared(pc.list_flatten(values), asked)]] = True
    return ~found if unequal else found


def _compared(values: pa.Array, condition: Condition) -> np.ndarray:
    if condition.operator == "~":
        text = values if pa.types.is_string(values.type) else values.cast(pa.string())
        met = pc.match_substring(text, condition.value, ignore_case=True)
    else:
        try:
            wanted = pa.scalar(condition.value).cast(values.type)
        except pa.ArrowException as error:
            raise SearchError(f"{condition.column} holds {values.type}: {condition.value!r} is none") from error
        met = _COMPARE[condition.operator](values, wanted)
    return np.asarray(pc.fill_null(met, False).to_numpy(zero_copy_only=False))


def _is_plain(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_primitive(kind))
