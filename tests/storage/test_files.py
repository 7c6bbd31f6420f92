"""Locks are waited for and end with their holder; files appear whole or not at all."""

import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from storage.files import locked, try_lock, written_aside

HOLD = """
import sys, time
from pathlib import Path
from storage.files import locked
with locked(Path(sys.argv[1]), what="it"):
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
    caplog.set_level(logging.INFO, "storage.files")
    logging.getLogger("storage.files").addFilter(lambda record: said.set() or True)
    killer = threading.Thread(target=lambda: said.wait(60) and process.kill())
    killer.start()
    with locked(path, what="the CPU"):
        assert process.wait(60) < 0
        assert path.read_text().strip() != str(process.pid)
    killer.join()
    assert f"Waiting for the CPU: process {process.pid} has it" in caplog.text


def test_a_lock_is_held_against_other_threads_too(path: Path) -> None:
    inside, entered = threading.Event(), []

    def enter() -> None:
        inside.set()
        with locked(path, what="it"):
            entered.append("second")

    with locked(path, what="it"):
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
    with pytest.raises(OSError, match="symbolic"), locked(path, what="it"):
        pass
    assert victim.read_text() == "precious"


def test_a_folder_can_be_locked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    process = holder(tmp_path)
    assert try_lock(tmp_path) is None
    waited = threading.Event()
    caplog.set_level(logging.INFO, "storage.files")
    killer = threading.Thread(target=lambda: waited.wait(1) or process.kill())
    killer.start()
    with locked(tmp_path, what="the models"):
        assert process.wait(60) < 0
    killer.join()
    assert "Waiting for the models: another process has it" in caplog.text
    assert list(tmp_path.iterdir()) == []
    assert try_lock(tmp_path / "nowhere") is None


def test_a_file_is_replaced_as_a_whole(path: Path) -> None:
    path.write_text("before")
    with written_aside(path) as part:
        part.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_file_as_it_was(path: Path) -> None:
    path.write_text("before")

    def fail() -> None:
        with written_aside(path) as part:
            part.write_text("aft")
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert path.read_text() == "before"
    assert list(path.parent.iterdir()) == [path]
