"""Filters: conditions on any column of the corpus that a clip must meet."""

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from fsclap.retrieval.index import SearchError
from fsclap.retrieval.notes import NONE_CONTAINS, NONE_CONTAINS_BUT, NONE_IS, NONE_IS_BUT, Note

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "~"]
"""~: contains the value, ignoring case. A list meets a condition if one of its items does."""
STYLE = "style"
"""Column of the words of a clip's style: `style = low` is any of them, `style.pitch = low` one of
one attribute."""
ALIKE = 3
"""Names that are suggested in place of one that does not exist."""
_FORM = re.compile(r"\s*(?P<column>[A-Za-z_][\w.]*)\s*(?P<operator>!=|<=|>=|==|=|<|>|~)\s*(?P<value>.*?)\s*", re.DOTALL)
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’"}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


class FilterError(SearchError):
    """A condition that can't be read or applied.

    Attributes:
        brief: The message without the names of all columns, for who sees them beside it.
    """

    def __init__(self, brief: str, names: Sequence[str] = ()) -> None:
        super().__init__(f"{brief}; the columns are: {', '.join(names)}" if names else brief)
        self.brief = brief


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
        """Parse 'emotion=sad', 'duration >= 2.5', 'series == "Crossed Lines"' or "text ~ never".

        Raises:
            FilterError: The text has another form.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise FilterError(
                f"{text!r} is not a condition: write a column, an operator (= != < <= > >= or ~ for contains) and a "
                "value, such as: emotion = sad"
            )
        parts = match.groupdict()
        operator = "=" if parts["operator"] == "==" else parts["operator"]
        return cls.model_validate(parts | {"operator": operator, "value": _unquoted(parts["value"])})

    def __str__(self) -> str:
        return f"{self.column} {self.operator} {self.value}"


def _unquoted(value: str) -> str:
    closing = _QUOTES.get(value[:1])
    return value[1:-1] if closing and len(value) >= 2 and value.endswith(closing) else value


def columns(rows: pa.Table) -> list[str]:
    """List the columns that a condition can name."""
    names: list[str] = []
    for field in rows.schema:
        if field.name == STYLE and "style_key" in rows.column_names:
            names += [STYLE, *(f"{STYLE}.{attribute}" for attribute in _style_attributes(rows))]
        elif pa.types.is_struct(field.type):
            names += [f"{field.name}.{part.name}" for part in field.type]
        elif _is_plain(field.type) or (pa.types.is_list(field.type) and _is_plain(field.type.value_type)):
            names.append(field.name)
    return names


def mask(rows: pa.Table, conditions: Sequence[Condition]) -> np.ndarray | None:
    """Select the rows that meet all conditions, (rows,) bool; None when there is no condition.

    Raises:
        FilterError: A column does not exist, or can't be compared with the value.
    """
    if not conditions:
        return None
    met = np.ones(len(rows), dtype=bool)
    for condition in conditions:
        met &= _met(rows, condition)
    return met


def unknown_values(rows: pa.Table, conditions: Sequence[Condition]) -> list[Note]:
    """Say of each condition that asks for a text whether no clip has it.

    Raises:
        FilterError: See `mask`.
    """
    notes = []
    for condition in conditions:
        if condition.operator not in ("=", "~") or _met(rows, condition).any():
            continue
        known = _texts(rows, condition.column)
        if known is not None:
            alike = difflib.get_close_matches(condition.value, known, ALIKE, cutoff=0.5) or sorted(known)[:ALIKE]
            contains = condition.operator == "~"
            text = (NONE_CONTAINS_BUT if contains else NONE_IS_BUT) if alike else NONE_CONTAINS if contains else NONE_IS
            values = {"column": condition.column, "value": repr(condition.value), "others": ", ".join(alike)}
            notes.append(Note(text, values))
    return notes


def words_of(key: str) -> dict[str, list[str]]:
    """Read the key of a style, "pitch=low;events=cough+sigh": attribute -> words."""
    return {name: words.split("+") for name, _, words in (part.partition("=") for part in key.split(";") if part)}


def _met(rows: pa.Table, condition: Condition) -> np.ndarray:
    known = columns(rows)
    if condition.column not in known:
        alike = difflib.get_close_matches(condition.column, known, ALIKE)
        alike += [name for name in known if condition.column in name.split(".") and name not in alike]
        brief = f"there is no column {condition.column!r}"
        raise FilterError(f"{brief}; did you mean {' or '.join(alike)}?") if alike else FilterError(brief, known)
    name, _, part = condition.column.partition(".")
    if name == STYLE:
        return _style_met(rows, part, condition)
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


def _style_met(rows: pa.Table, attribute: str, condition: Condition) -> np.ndarray:
    """Apply a condition to the words of each style: once per distinct style, of which there are few."""
    if condition.operator not in ("=", "!=", "~"):
        raise FilterError(f"{condition.column} has words, which {condition.operator} can't compare: use = != or ~")
    keys = _style_keys(rows)
    wanted = condition.value.lower()
    found = []
    for key in keys.dictionary.to_pylist():
        words = words_of(key or "")
        said = words.get(attribute, []) if attribute else [word for some in words.values() for word in some]
        has = any(wanted in word if condition.operator == "~" else wanted == word for word in said)
        found.append(bool(said) and not has if condition.operator == "!=" else has)
    met = pa.array(found, pa.bool_()).take(keys.indices)
    return np.asarray(pc.fill_null(met, False).to_numpy(zero_copy_only=False))


def _style_keys(rows: pa.Table) -> pa.DictionaryArray:
    return rows["style_key"].combine_chunks().dictionary_encode()


def _style_attributes(rows: pa.Table) -> list[str]:
    keys = _style_keys(rows).dictionary.to_pylist()
    return list(dict.fromkeys(name for key in keys for name in words_of(key or "")))


def _compared(values: pa.Array, condition: Condition) -> np.ndarray:
    if condition.operator == "~":
        text = values if pa.types.is_string(values.type) else values.cast(pa.string())
        met = pc.match_substring(text, condition.value, ignore_case=True)
    else:
        try:
            value = pa.scalar(condition.value).cast(values.type)
        except pa.ArrowException as error:
            raise FilterError(
                f"{condition.column} can't be compared with {condition.value!r}: its type is {values.type}"
            ) from error
        met = _COMPARE[condition.operator](values, value)
    return np.asarray(pc.fill_null(met, False).to_numpy(zero_copy_only=False))


def _texts(rows: pa.Table, column: str) -> list[str] | None:
    """List the distinct texts of a column; None if it has other values."""
    name, _, part = column.partition(".")
    if name == STYLE:
        words = [words_of(key or "") for key in _style_keys(rows).dictionary.to_pylist()]
        return list(dict.fromkeys(w for row in words for n, some in row.items() if part in ("", n) for w in some))
    values = rows[name].combine_chunks()
    if pa.types.is_struct(values.type):
        values = pc.struct_field(values, part)
    if pa.types.is_list(values.type):
        values = pc.list_flatten(values)
    if not pa.types.is_string(values.type):
        return None
    found: list[str] = values.drop_null().unique().to_pylist()
    return found


def _is_plain(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_primitive(kind))
