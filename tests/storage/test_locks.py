"""A lock of the machine goes with its holder, and is waited for."""

import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from storage.locks import file_lock

HOLD = """
import sys, time
from pathlib import Path
from storage.locks import file_lock
with file_lock(Path(sys.argv[1]), what="it"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def holder(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_who_waits_says_for_whom_and_goes_on_when_the_holder_is_killed(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = holder(path)
    said = threading.Event()
    caplog.set_level(logging.INFO, "storage.locks")
    logging.getLogger("storage.locks").addFilter(lambda record: said.set() or True)
    killer = threading.Thread(target=lambda: said.wait(60) and process.kill())
    killer.start()
    with file_lock(path, what="the CPU"):
        assert process.wait(60) < 0
        assert path.read_text().strip() != str(process.pid)
    killer.join()
    assert f"Waiting for the CPU: process {process.pid} has it" in caplog.text


def test_a_lock_is_held_against_other_threads_too(path: Path) -> None:
    inside, entered = threading.Event(), []

    def enter() -> None:
        inside.set()
        with file_lock(path, what="it"):
            entered.append("second")

    with file_lock(path, what="it"):
        second = threading.Thread(target=enter)
        second.start()
        inside.wait(60)
        entered.append("first")
    second.join(60)
    assert entered == ["first", "second"]


def test_a_link_in_the_place_of_the_lock_is_not_followed(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"), file_lock(path, what="it"):
        pass
    assert victim.read_text() == "precious"
