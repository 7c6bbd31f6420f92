"""Converts rows to Arrow tables of an exact schema, and computes digests of rows."""

import hashlib
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


class CorpusError(ValueError):
    """Invalid rows or corpus; the message gives the fault, the place and usually the remedy."""


def build_table(rows: Iterable[Mapping[str, Any]] | pa.Table, *, schema: pa.Schema, name: str) -> pa.Table:
    """Convert rows to a table of a schema.

    Args:
        rows: Mappings with exactly the schema's fields, None for null, or a table of that schema. A
            list of pairs may be given as a mapping.
        schema: The schema of the result.
        name: The table's name in errors.

    Raises:
        CorpusError: A field is missing, unknown, null, of another type, or not a finite number.
    """
    if isinstance(rows, pa.Table):
        return _checked(_cast(rows, schema=schema, name=name), name=name)
    listed = list(rows)
    for row in listed:
        _check_fields(row.keys(), schema.names, where=f"{name}: a row")
    columns = [_column([row[field.name] for row in listed], field, name=name) for field in schema]
    return _checked(pa.Table.from_arrays(columns, schema=schema), name=name)


def content_token(table: pa.Table, *upstream: int) -> int:
    """Compute a 60-bit digest of a table's rows, in any order, and of the tokens they build on."""
    return token_of(row_digests(table), *upstream)


def token_of(digests: Iterable[str], *upstream: int) -> int:
    """Compute the `content_token` of rows with these digests."""
    digest = hashlib.sha256("\n".join([*map(str, upstream), *sorted(digests)]).encode()).hexdigest()
    return int(digest[:15], 16)


def row_digests(table: pa.Table) -> list[str]:
    """Compute the SHA-256 of each row's content, independent of the order of the columns."""
    return [_row_digest(row) for row in table.to_pylist()]


def _row_digest(row: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    raise TypeError(f"no digest is defined for a {type(value).__name__}")


def _cast(table: pa.Table, *, schema: pa.Schema, name: str) -> pa.Table:
    _check_fields(table.column_names, schema.names, where=f"{name}: the table")
    columns = []
    for field in schema:
        try:
            columns.append(table[field.name].cast(field.type))
        except pa.ArrowException as error:
            found = table[field.name].type
            raise CorpusError(f"{name}: {field.name} is {found}, not {field.type}: {error}") from error
    return pa.Table.from_arrays(columns, schema=schema)


def _check_fields(found: Iterable[str], expected: Sequence[str], *, where: str) -> None:
    keys = set(found)
    missing, unknown = sorted(set(expected) - keys), sorted(keys - set(expected))
    if missing or unknown:
        lacks = f"lacks {', '.join(missing)}" if missing else ""
        extra = f"has the unknown {', '.join(unknown)}" if unknown else ""
        raise CorpusError(f"{where} {' and '.join(filter(None, [lacks, extra]))}")


def _column(values: list[Any], field: pa.Field, *, name: str) -> pa.Array:
    where = f"{name}: {field.name}"
    if pa.types.is_struct(field.type):
        members = [field.type.field(index).name for index in range(field.type.num_fields)]
        for value in values:
            if value is not None and not isinstance(value, Mapping):
                raise CorpusError(f"{where} is a {type(value).__name__}, not a mapping of {', '.join(members)}")
            _check_fields(members if value is None else value.keys(), members, where=where)
    if _is_list_of_pairs(field.type):
        values = [_pairs(value, field.type) for value in values]
    try:
        if pa.types.is_integer(field.type):  # Arrow would truncate 1.5 to 1
            values = [None if value is None else operator.index(value) for value in values]
        return pa.array(values, type=field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise CorpusError(f"{where} does not fit {field.type}: {error}") from error


def _is_list_of_pairs(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) and pa.types.is_struct(kind.value_type) and kind.value_type.num_fields == 2


def _pairs(value: Any, kind: pa.DataType) -> Any:
    if not isinstance(value, Mapping):
        return value
    first, second = (kind.value_type.field(index).name for index in range(2))
    return [{first: key, second: item} for key, item in value.items()]


def _checked(table: pa.Table, *, name: str) -> pa.Table:
    for field in table.schema:
        column = table[field.name]
        if not field.nullable and column.null_count:
            raise CorpusError(f"{name}: {field.name} is null in {column.null_count} of {len(column)} rows")
        _check_finite(column.combine_chunks(), f"{name}: {field.name}")
    return table


def _check_finite(values: pa.Array, where: str) -> None:
    kind = values.type
    if pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            _check_finite(values.field(index), f"{where}.{kind.field(index).name}")
    elif pa.types.is_list(kind):
        _check_finite(values.flatten(), where)
    elif pa.types.is_floating(kind) and not pc.all(pc.is_finite(values.drop_null()), min_count=0).as_py():
        raise CorpusError(f"{where} has NaN or infinity; use null for a value that cannot be measured")
