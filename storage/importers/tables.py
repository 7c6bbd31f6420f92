"""Read tables of any published kind row by row: CSV, TSV, JSON, JSON lines, Parquet, `datasets` folders."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".arrow")
KEY = "key"
"""Column that the key of an entry in a JSON object gets."""
_ROWS = 256

Line = tuple[int, dict[str, Any]]
"""Number of the line or row, from 1, and its values by column."""


class TableError(ValueError):
    """A table that can't be read. The message names file and line."""


def read_table(path: Path, *, header: tuple[str, ...] | None = None) -> Iterator[Line]:
    """Read a table.

    Args:
        path: File; its suffix says what it is.
        header: Names of the columns of a CSV or TSV file that has no header.

    Raises:
        TableError: It is damaged, in another encoding than UTF-8, or of an unknown kind.
    """
    readers = {
        ".csv": _csv,
        ".tsv": _csv,
        ".jsonl": _json_lines,
        ".json": _json,
        ".parquet": _parquet,
        ".arrow": _arrow,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise TableError(f"{path}: tables are {', '.join(SUFFIXES)}")
    try:
        yield from (_csv(path, header) if reader is _csv else reader(path))
    except UnicodeDecodeError as error:
        raise TableError(
            f"{path}, line {_line_of(path, error)}: not UTF-8 ({error.reason}); convert it, for instance with "
            f"`iconv -f latin1 -t utf-8`"
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{path} can't be read: {str(error).splitlines()[0]}; download it again") from error


def _csv(path: Path, header: tuple[str, ...] | None = None) -> Iterator[Line]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        names = header
        try:
            for row in reader:
                if names is None:
                    names = tuple(row)
                elif len(row) != len(names):
                    raise TableError(
                        f"{path}, line {reader.line_num}: {len(row)} fields, and the header has {len(names)}: a comma "
                        "without quotes, or a file that was cut off"
                    )
                else:
                    yield reader.line_num, dict(zip(names, row, strict=True))
        except csv.Error as error:
            raise TableError(f"{path}, line {reader.line_num}: {error}") from error


def _json_lines(path: Path) -> Iterator[Line]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _object(line, path, number)


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise TableError(f"{path}, line {number}: not JSON ({error.msg}); the file may be cut off") from error
    if not isinstance(value, dict):
        raise TableError(f"{path}, line {number}: expected an object, got {type(value).__name__}")
    return value


def _json(path: Path) -> Iterator[Line]:
    """Read a list of objects, or an object of objects or of captions by key."""
    text = path.read_text(encoding="utf-8-sig")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise TableError(f"{path}, line {error.lineno}: not JSON ({error.msg}); the file may be cut off") from error
    if isinstance(content, dict):
        values = [
            {KEY: key, **(value if isinstance(value, dict) else {"caption": value})} for key, value in content.items()
        ]
    elif isinstance(content, list) and all(isinstance(value, dict) for value in content):
        values = content
    else:
        raise TableError(f"{path}: expected a list of objects, or an object by key")
    yield from enumerate(values, start=1)


def _parquet(path: Path) -> Iterator[Line]:
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield number, row


def _arrow(path: Path) -> Iterator[Line]:
    """Read a file of a folder that `datasets` saved to disk."""
    number = 0
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
        for batch in stream:
            for row in batch.to_pylist():
                number += 1
                yield number, row


def _line_of(path: Path, error: UnicodeDecodeError) -> int:
    """Find the first line that is not UTF-8: the position in the error is that of a block."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 0
