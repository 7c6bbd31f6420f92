"""Files of a table as pyarrow reads them through Python."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from storage.table_files import TableFiles

HOLDER = """
    import atexit, sys, threading
    atexit.register(print, "the interpreter ends")
    from storage.table_files import TableFiles

    held = [TableFiles(sys.argv[1])]
    if sys.argv[2] == "file":
        held = [held[0].open_input_file("rows.parquet")]
    ending = threading.Event()

    def release():
        ending.wait()
        sum(range(3_000_000))
        print("released")
        held.clear()

    threading.Thread(target=release, daemon=True).start()
    atexit.register(ending.set)
"""
"""A thread that lets go late, as those of pyarrow do: they run after the program's last line."""


@pytest.mark.parametrize("what", ["file system", "file"])
def test_the_process_ends_after_the_last_release(tmp_path: Path, what: str) -> None:
    pq.write_table(pa.table({"x": [1, 2, 3]}), tmp_path / "rows.parquet")
    script = [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path), what]
    ended = subprocess.run(script, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["released", "the interpreter ends"]


def test_rows_are_read(tmp_path: Path) -> None:
    table = pa.table({"x": list(range(10_000)), "text": ["word"] * 10_000})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=1_000)
    files = pyarrow.fs.PyFileSystem(TableFiles(str(tmp_path)))
    assert pq.read_table("rows.parquet", filesystem=files) == table
    with files.open_input_stream("rows.parquet") as stream:
        assert stream.read() == (tmp_path / "rows.parquet").read_bytes()
