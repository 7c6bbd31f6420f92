"""Filters: conditions on any column of the corpus that a clip must meet."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from fsclap.retrieval.index import SearchError

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "~"]
"""~: contains the value, ignoring case. A list meets a condition if one of its items does."""
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
    """One condition. A clip whose column is null never meets it.

    Attributes:
        column: Column of the corpus, or part of one after a dot: "attributes.pitch_hz".
        value: Value as text; converted to the type of the column.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    operator: Operator
    value: str

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Parse "emotion=sad", "duration >= 2.5" or "text ~ never".

        Raises:
            SearchError: The text has another form.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            operators = " ".join(get_args(Operator))
            raise SearchError(
                f"{text!r} is not a condition: write COLUMN OPERATOR VALUE, with one of the operators {operators}"
            )
        return cls.model_validate(match.groupdict())


def columns(rows: pa.Table) -> list[str]:
    """List the columns that a condition can name."""
    names: list[str] = []
    for field in rows.schema:
        if pa.types.is_struct(field.type):
            names += [f"{field.name}.{part.name}" for part in field.type]
        elif _is_plain(field.type) or (pa.types.is_list(field.type) and _is_plain(field.type.value_type)):
            names.append(field.name)
    return names


def mask(rows: pa.Table, conditions: Sequence[Condition]) -> np.ndarray | None:
    """Select the rows that meet all conditions, (rows,) bool; None when there is no condition.

    Raises:
        SearchError: A column does not exist, or can't be compared with the value.
    """
    if not conditions:
        return None
    met = np.ones(len(rows), dtype=bool)
    for condition in conditions:
        met &= _met(rows, condition)
    return met


def _met(rows: pa.Table, condition: Condition) -> np.ndarray:
    if condition.column not in columns(rows):
        raise SearchError(f"there is no column {condition.column!r}; the columns are: {', '.join(columns(rows))}")
    name, _, part = condition.column.partition(".")
    values = rows[name].combine_chunks()
    if part:
        values = pc.struct_field(values, part)
    if not pa.types.is_list(values.type):
        return _compared(values, condition)
    # A list meets a condition if one of its items does, but != only if no item is equal.
    unequal = condition.operator == "!="
    per_item = condition.model_copy(update={"operator": "="}) if unequal else condition
    parents = pc.list_parent_indices(values).to_numpy(zero_copy_only=False)
    met = np.zeros(len(values), dtype=bool)
    met[parents[_compared(pc.list_flatten(values), per_item)]] = True
    return ~met if unequal else met


def _compared(values: pa.Array, condition: Condition) -> np.ndarray:
    if condition.operator == "~":
        text = values if pa.types.is_string(values.type) else values.cast(pa.string())
        met = pc.match_substring(text, condition.value, ignore_case=True)
    else:
        try:
            value = pa.scalar(condition.value).cast(values.type)
        except pa.ArrowException as error:
            raise SearchError(
                f"{condition.column} can't be compared with {condition.value!r}: its type is {values.type}"
            ) from error
        met = _COMPARE[condition.operator](values, value)
    return np.asarray(pc.fill_null(met, False).to_numpy(zero_copy_only=False))


def _is_plain(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_primitive(kind))
