"""The work store against a dictionary: whatever writers, damage and kills come in whatever order."""

import json
import os
import shutil
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from storage.work import MANIFEST, Step, WorkStore
from tests.properties import fewer

STEPS = [Step("decode", number, "", {"n": number}, ()) for number in range(3)]
steps = st.sampled_from(STEPS)
contents = st.dictionaries(st.sampled_from(["a", "b/c", "b/d"]), st.binary(max_size=3), min_size=1)
Files = dict[str, bytes]


def put(folder: Path, files: Files) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def files_of(folder: Path) -> Files:
    held = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in held}


class Store(RuleBasedStateMachine):
    """`known` is what must be found: by step, the files of the first writer since it was last damaged."""

    writers = Bundle("writers")

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.store = WorkStore(self.root / "work")
        self.known: dict[str, Files] = {}
        self.open: dict[int, tuple[Step, AbstractContextManager[Path], Path, Files]] = {}
        self.opened = 0

    def teardown(self) -> None:
        for _, writer, _, _ in self.open.values():
            writer.__exit__(RuntimeError, RuntimeError("the test is over"), None)
        assert list((WorkStore(self.store.root).root / ".partial").iterdir()) == []
        shutil.rmtree(self.root)

    @rule(target=writers, step=steps, files=contents)
    def begin(self, step: Step, files: Files) -> int:
        writer = self.store.write(step)
        folder = writer.__enter__()
        put(folder, files)
        self.opened += 1
        self.open[self.opened] = step, writer, folder, files
        return self.opened

    @rule(number=writers)
    def end(self, number: int) -> None:
        if number in self.open:
            step, writer, _, files = self.open.pop(number)
            writer.__exit__(None, None, None)
            self.known.setdefault(step.key, files)

    @rule(number=writers)
    def fail(self, number: int) -> None:
        if number in self.open:
            _, writer, folder, _ = self.open.pop(number)
            writer.__exit__(RuntimeError, RuntimeError("out of memory"), None)
            assert not folder.exists()

    @rule(step=steps, files=contents)
    def killed_before_the_rename(self, step: Step, files: Files) -> None:
        """The kernel drops the lock of a writer that is killed; what it wrote stays until the next store is made."""
        folder = self.store.root / ".partial" / f"killed-{os.urandom(4).hex()}"
        folder.mkdir()
        put(folder, files)
        (folder / MANIFEST).write_text(json.dumps({"step": step.as_dict(), "files": {}}))

    @rule()
    def another_worker_starts(self) -> None:
        self.store = WorkStore(self.store.root)
        living = {folder.name for _, _, folder, _ in self.open.values()}
        assert {folder.name for folder in (self.store.root / ".partial").iterdir()} == living

    @precondition(lambda self: self.known)
    @rule(
        data=st.data(), how=st.sampled_from(["cut", "grown", "gone", "no manifest", "cut manifest", "other manifest"])
    )
    def damage(self, data: st.DataObject, how: str) -> None:
        step = data.draw(st.sampled_from([step for step in STEPS if step.key in self.known]))
        files, folder = self.known.pop(step.key), self.store.folder(step)
        name = min(files)
        if how == "gone" or (how == "cut" and not files[name]):
            (folder / name).unlink()
        elif how in ("cut", "grown"):
            (folder / name).write_bytes(files[name][:-1] if how == "cut" else files[name] + b"x")
        elif how == "no manifest":
            (folder / MANIFEST).unlink()
        else:
            (folder / MANIFEST).write_text("{" if how == "cut manifest" else "[1]")

    @rule(step=steps)
    def removed_by_hand(self, step: Step) -> None:
        self.known.pop(step.key, None)
        shutil.rmtree(self.store.root / step.stage / step.key[:2] / step.key, ignore_errors=True)

    @rule(step=steps, files=contents)
    def write(self, step: Step, files: Files) -> None:
        with self.store.write(step) as folder:
            put(folder, files)
        self.known.setdefault(step.key, files)

    @rule(step=steps)
    def scratch_leaves_nothing(self, step: Step) -> None:
        with self.store.scratch() as folder:
            put(folder, {"b/c": b"x"})
        assert not folder.exists()

    @invariant()
    def what_was_published_is_there_and_nothing_else(self) -> None:
        for step in STEPS:
            folder, known = self.store.folder(step), self.known.get(step.key)
            assert (folder is None) == (known is None)
            if folder is not None and known is not None:
                assert files_of(folder) == known
                manifest = self.store.manifest(step)
                assert Step(**manifest["step"]).key == step.key
                assert {name: entry["size"] for name, entry in manifest["files"].items()} == {
                    name: len(content) for name, content in known.items()
                }


TestStore = Store.TestCase
TestStore.settings = fewer(3, stateful_step_count=20)
