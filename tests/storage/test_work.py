import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import storage.work
from storage.work import MANIFEST, Step, WorkStore, sha256_file
from tasks.room import NoRoomError, wait_for_room

ROOT = Path(__file__).parents[2]
STEP = Step(stage="separation", version=1, engine="spleeter@1", parameters={"batch": 4}, inputs=("ab" * 32,))


@pytest.fixture
def store(tmp_path):
    return WorkStore(tmp_path / "work")


def fill(store, step=STEP, content=b"vocals"):
    with store.write(step) as folder:
        (folder / "vocals").mkdir()
        (folder / "vocals" / "a.flac").write_bytes(content)
    return store.folder(step)


def everything(store):
    return sorted(path.relative_to(store.root).as_posix() for path in store.root.rglob("*") if path.is_file())


# Keys


def test_the_key_depends_on_everything_and_not_on_the_order_of_settings():
    base = replace(STEP, parameters={"a": 1, "b": [1, 2]})
    assert base.key == replace(base, parameters={"b": [1, 2], "a": 1}).key
    others = [
        replace(base, stage="diarization"),
        replace(base, version=2),
        replace(base, engine="spleeter@2"),
        replace(base, parameters={"a": 1, "b": [2, 1]}),
        replace(base, inputs=("cd" * 32,)),
        replace(base, inputs=("ab" * 32, "cd" * 32)),
    ]
    assert len({base.key, *(step.key for step in others)}) == 7


def test_the_key_stays_the_same_between_releases():
    assert STEP.key == "488f249459e209709d28efbdff746f5441a7b8378e890a418423c951cf8c411f"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage": "../x"}, "cannot name a folder"),
        ({"parameters": {"a": {1: 2}}}, r"parameters of stage separation\.a: key 1 is not a string"),
        ({"parameters": {"a": float("nan")}}, "cannot be digested"),
        ({"parameters": {"a": Path("x")}}, "cannot be digested: Object of type PosixPath"),
    ],
)
def test_what_has_no_digest_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(STEP, **change)


# Writing


def test_an_output_is_found_again_with_its_manifest(store):
    assert store.folder(STEP) is None
    assert store.manifest(STEP) is None
    folder = fill(store)
    assert (folder / "vocals" / "a.flac").read_bytes() == b"vocals"
    assert WorkStore(store.root).folder(STEP) == folder
    manifest = store.manifest(STEP)
    digest = sha256_file(folder / "vocals" / "a.flac")
    assert manifest["files"] == {"vocals/a.flac": {"size": 6, "sha256": digest}}
    assert Step(**manifest["step"]).key == STEP.key
    assert store.folder(replace(STEP, version=2)) is None


def test_nothing_stays_of_a_writer_that_failed(store):
    def fail():
        with store.write(STEP) as folder:
            (folder / "a.flac").write_bytes(b"half")
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert store.folder(STEP) is None
    assert everything(store) == []


def test_an_output_without_files_is_an_error(store):
    with pytest.raises(ValueError, match="separation wrote no file"), store.write(STEP):
        pass
    assert store.folder(STEP) is None


def test_an_output_is_not_seen_before_it_is_whole(store):
    with store.write(STEP) as folder:
        (folder / "a.flac").write_bytes(b"vocals")
        assert store.folder(STEP) is None
        assert WorkStore(store.root).folder(STEP) is None, "another worker that starts must leave it alone"
        assert (folder / "a.flac").exists()
    assert store.folder(STEP) is not None


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "vocals" / "a.flac").write_bytes(b"voc"),
        lambda folder: (folder / "vocals" / "a.flac").unlink(),
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / MANIFEST).write_text('{"step": '),
        lambda folder: (folder / MANIFEST).write_text("[]"),
    ],
    ids=["cut", "file-gone", "manifest-gone", "manifest-cut", "manifest-other"],
)
def test_a_damaged_output_is_removed_and_computed_again(store, caplog, damage):
    damage(fill(store))
    assert store.folder(STEP) is None
    assert "are damaged" in caplog.text
    assert everything(store) == []
    assert (fill(store) / "vocals" / "a.flac").read_bytes() == b"vocals"


def test_a_damaged_output_does_not_stop_a_writer(store):
    folder = fill(store)
    with store.write(STEP) as partial:
        (partial / "a.flac").write_bytes(b"again")
        (folder / MANIFEST).unlink()
    assert (store.folder(STEP) / "a.flac").read_bytes() == b"again"


def test_the_first_of_many_writers_stays(store):
    barrier = threading.Barrier(6)

    def write(index):
        with store.write(STEP) as folder:
            (folder / "a.flac").write_bytes(b"%d" % index)
            barrier.wait()
        return (store.folder(STEP) / "a.flac").read_bytes()

    with ThreadPoolExecutor(6) as pool:
        seen = set(pool.map(write, range(6)))
    assert len(seen) == 1
    assert len(everything(store)) == 2
    assert list((store.root / ".partial").iterdir()) == []


KILLED = """
    import os, signal
    from storage.work import Step, WorkStore
    import storage.work
    {before}
    step = Step(**{step})
    with WorkStore({root!r}).write(step) as folder:
        (folder / "a.flac").write_bytes(b"half")
        {inside}
"""


@pytest.mark.parametrize(
    ("before", "inside"),
    [
        ("", "os.kill(os.getpid(), signal.SIGKILL)"),
        ("storage.work.sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)", "pass"),
        ("storage.work.Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)", "pass"),
    ],
    ids=["while-writing", "while-syncing", "before-the-rename"],
)
def test_a_killed_writer_leaves_nothing_visible(store, before, inside):
    code = textwrap.dedent(KILLED).format(
        before=before, inside=inside, step=json.dumps(STEP.as_dict()), root=str(store.root)
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert store.folder(STEP) is None
    assert len(list((store.root / ".partial").iterdir())) == 1
    assert WorkStore(store.root).folder(STEP) is None
    assert everything(store) == [], "the next worker to start clears up"
    assert fill(store) is not None


def test_other_errors_of_the_rename_are_not_hidden(store, monkeypatch):
    def fail(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="No space left"), store.write(STEP) as folder:
        (folder / "a.flac").write_bytes(b"vocals")
    assert store.folder(STEP) is None


def test_room_is_made_of_what_was_not_used_for_longest(store, monkeypatch):
    steps = [Step("separation", 1, "", {}, [name]) for name in "abcd"]
    for step in steps:
        with store.write(step) as folder:
            (folder / "file").write_bytes(bytes(100))
    for step, hours in zip(steps, (9, 20, 8, 20), strict=True):
        manifest = store.folder(step) / MANIFEST
        os.utime(manifest, (time.time() - 3600 * hours, manifest.stat().st_mtime))
    assert store.folder(steps[3]) is not None, "it is used now"

    def disk_usage(_):
        return SimpleNamespace(free=1000 - 100 * len(list(store.root.glob(f"*/*/*/{MANIFEST}"))))

    monkeypatch.setattr(storage.work.shutil, "disk_usage", disk_usage)
    assert store.make_room(600) == 0
    assert store.make_room(700) == 1
    assert store.folder(steps[1]) is None
    assert store.make_room(1000) == 2, "what was used within hours stays"
    assert [store.folder(step) is None for step in steps] == [True, True, True, False]
    with pytest.raises(NoRoomError, match=r"GB needed before anything is downloaded \(disk.reserve_gb\)"):
        wait_for_room(store, 1.0, patience=0.0)
    wait_for_room(store, 0.0, patience=0.0)
