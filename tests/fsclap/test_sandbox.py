import subprocess
import sys
from pathlib import Path

import pytest

from fsclap import sandbox

MEGABYTE = 10**6


def run(
    code: str, *, memory: int = 500 * MEGABYTE, file_size: int = 50 * MEGABYTE
) -> subprocess.CompletedProcess[bytes]:
    """Runs a piece of Python within limits, which are set before it starts."""
    command = [sys.executable, "-I", "-c", f"import sys; sys.stdin.readline()\n{code}"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=sandbox.environment(NEW="1")
    ) as child:
        sandbox.limit(child, memory=memory, file_size=file_size)
        out, errors = child.communicate(b"\n")
    return subprocess.CompletedProcess(command, child.returncode, out, errors)


def test_memory_ends_at_the_limit() -> None:
    assert run("print(len(bytearray(200_000_000)))").stdout == b"200000000\n"
    assert b"MemoryError" in run("bytearray(600_000_000)").stderr


def test_a_file_ends_at_the_limit(tmp_path: Path) -> None:
    ended = run(f"open({str(tmp_path / 'a')!r}, 'wb').write(bytes(60_000_000))")
    assert b"File too large" in ended.stderr
    assert (tmp_path / "a").stat().st_size <= 50 * MEGABYTE


def test_limits_are_inherited() -> None:
    inner = "import subprocess, sys; print(subprocess.run([sys.executable, '-c', 'bytearray(600_000_000)']).returncode)"
    assert run(inner).stdout == b"1\n"


def test_the_environment_holds_no_key_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "hunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    seen = run("import os; print(dict(os.environ))").stdout
    assert b"hunter2" not in seen
    assert b"http://proxy:3128" in seen
    assert b"NEW" in seen


def test_a_child_that_has_ended_is_left_alone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    sandbox.limit(child, memory=MEGABYTE, file_size=MEGABYTE)
