"""Reads the shards of a table one by one, and checks each against the log and the schema."""

from collections.abc import Iterator
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from deltalake import DeltaTable

from storage.corpus import plain
from storage.deltalog import Shard
from storage.rows import CorpusError, build_table
from storage.schema import schema_problem

_BATCH_ROWS = 64


class DamagedShardError(Exception):
    """A shard that does not match the log or the schema.

    Args:
        code: "shard_missing", "shard_size", "shard_damaged", "shard_schema" or "shard_rows".
        detail: The fault, as the end of a sentence about the shard.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def live_shards(table: DeltaTable) -> list[Shard]:
    """Return the shards of a table's version, in the order of their smallest source id."""
    columns = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    shards = [
        Shard(
            name=unquote(row["path"]),
            size=row["size_bytes"],
            rows=row.get("num_records"),
            first=row.get("min.source_id") or "",
            last=row.get("max.source_id") or "",
        )
        for row in columns
    ]
    return sorted(shards, key=lambda shard: (shard.first, shard.last, shard.name))


def read_shard(shard: Shard, files: pyarrow.fs.FileSystem, *, schema: pa.Schema, name: str) -> Iterator[pa.Table]:
    """Yield the rows of a shard as small tables with exactly the schema's columns.

    Args:
        shard: Its entry in the log.
        files: The files of the table.
        schema: The schema of the table.
        name: The table's name in errors.

    Raises:
        DamagedShardError: There is no such file; its size, schema or number of rows is not the one
            in the log or the schema; it cannot be decoded; or it has nulls or numbers that the
            schema forbids.
    """
    _check_size(shard, files)
    count = 0
    try:
        with files.open_input_file(shard.name) as source, pq.ParquetFile(source) as parquet:
            problem = schema_problem(parquet.schema_arrow, schema)
            if problem:
                raise DamagedShardError("shard_schema", f"has another schema: {problem}")
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS):
                count += batch.num_rows
                yield build_table(pa.table(batch), schema=schema, name=name)
    except (OSError, pa.ArrowException) as error:
        raise DamagedShardError("shard_damaged", f"cannot be decoded: {plain(error)}") from error
    except CorpusError as error:
        raise DamagedShardError("shard_damaged", f"has values that the schema forbids: {error}") from error
    if shard.rows not in (None, count):
        raise DamagedShardError("shard_rows", f"has {count} rows, not {shard.rows} as in the log")


def _check_size(shard: Shard, files: pyarrow.fs.FileSystem) -> None:
    (info,) = files.get_file_info([shard.name])
    if info.type == pyarrow.fs.FileType.NotFound:
        raise DamagedShardError("shard_missing", "is missing")
    if info.size != shard.size:
        raise DamagedShardError("shard_size", f"has {info.size} bytes, not {shard.size} as in the log")
