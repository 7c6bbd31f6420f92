"""docs/tutorial.md as it stands: every command in it is run, in order, in a copy of the checkout."""

import os
import shlex
import shutil
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from deployments.processes import free_port, process
from storage.corpus import Corpus

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
SOURCES = (
    "flows", "tasks", "fsclap", "storage", "deployments", "cli", "samples", "requirements", "pyproject.toml",
    "prefect.yaml", "Makefile",
)  # fmt: skip
SHELL, PYTHON, SERVER, PAGE = KINDS = ("sh", "python", "sh server", "sh page")
"""What a fence can be: run to its end, or, for the last two, until the tutorial is over."""
PATIENCE = 3600.0


@dataclass(frozen=True)
class Step:
    """A fence of the tutorial: its kind, its content, and the heading and line where it is."""

    kind: str
    content: str
    heading: str
    line: int


def steps() -> list[Step]:
    heading, found = "", []
    tokens = MarkdownIt().parse(TUTORIAL.read_text())
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type == "inline" and before is not None and before.type == "heading_open":
            heading = token.content
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            found.append(Step(token.info.strip(), token.content, heading, token.map[0] + 1))
    return found


def test_every_command_is_in_a_fence_that_is_run() -> None:
    unknown = [f"line {step.line}: {step.kind!r}" for step in steps() if step.kind not in KINDS]
    assert unknown == []
    assert [step.kind for step in steps()].count(SERVER) == 1
    assert steps()[0].kind == SERVER, "what follows needs a server"


class Machine:
    """A fresh copy of the checkout, with the shell and the background processes of a reader."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.checkout, self.stack = folder / "checkout", stack
        self.checkout.mkdir()
        for name in SOURCES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, self.checkout / name)
        (self.checkout / ".venv").symlink_to(sys.prefix)
        self.ports = {"4200": str(free_port()), "8420": str(free_port())}
        self.state = folder / "state.sh"
        self.state.touch()
        (folder / "tmp").mkdir()
        self.log = folder / "background.log"
        own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.environment = own | {
            "PATH": f"{_make_that_installs_nothing(folder / 'bin')}{os.pathsep}{own['PATH']}",
            "PYTHONPATH": str(self.checkout),
            "PYTHONUNBUFFERED": "1",
            "PREFECT_HOME": str(folder / "prefect"),
            "FSCLAP_SERVER_PORT": self.ports["4200"],
            "FSCLAP_SAMPLES_PORT": str(free_port()),
            "TMPDIR": str(folder / "tmp"),  # the lock on the cores of this machine
        }

    def run(self, step: Step) -> str:
        """Run a fence to its end; its output."""
        content = self._local(step.content)
        if step.kind == PYTHON:
            script = self.checkout / "step.py"
            script.write_text(content)
            content = f"python {script}"
        # What a block exports is there in the next one, as in one terminal.
        lines = ["set -eo pipefail", f". {self.state}", content, f"export -p > {self.state}"]
        done = subprocess.run(
            ["bash", "-c", "\n".join(lines)], cwd=self.checkout, env=self.environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, f"line {step.line} of {TUTORIAL.name}:\n{step.content}\n{done.stdout}"
        return done.stdout

    def start(self, step: Step, ready: str) -> None:
        """Start a fence in the background, and wait until its address answers."""
        log = self.stack.enter_context(self.log.open("ab"))
        exports = [f"export {name}={shlex.quote(value)}" for name, value in self.environment.items()]
        lines = [*exports, f". {self.state}"]
        command = ["bash", "-c", "\n".join([*lines, self._local(step.content)])]
        child = self.stack.enter_context(process(command, cwd=self.checkout, stdout=log))
        deadline = time.monotonic() + PATIENCE
        while not self.answers(ready):
            assert child.poll() is None, f"line {step.line}: {step.content}\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"line {step.line}: {ready} does not answer"
            time.sleep(0.5)

    def answers(self, address: str) -> bool:
        try:
            with urllib.request.urlopen(self._local(address), timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _local(self, text: str) -> str:
        for known, own in self.ports.items():
            text = text.replace(known, own)
        return text


def _make_that_installs_nothing(folder: Path) -> Path:
    """Write a `make` that takes the environment of the tests for the one it would install."""
    folder.mkdir()
    make = folder / "make"
    make.write_text(f'#!/bin/sh\nexec {shutil.which("make")} -o .venv/.run "$@"\n')
    make.chmod(make.stat().st_mode | stat.S_IXUSR)
    return folder


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with ExitStack() as stack:
        yield Machine(tmp_path_factory.mktemp("tutorial"), stack)


READY = {SERVER: "http://127.0.0.1:4200/api/health", PAGE: "http://127.0.0.1:8420/"}


@pytest.mark.slow
def test_the_tutorial_works(machine: Machine) -> None:
    said: dict[str, str] = {}
    for step in steps():
        if step.kind in READY:
            machine.start(step, READY[step.kind])
        else:
            said[step.heading] = said.get(step.heading, "") + machine.run(step)
        if step.kind == SERVER:
            _until_the_worker_is_there(machine)
    assert "MEND" not in said["Start the server and a worker"]
    assert "intact" in said["Look at the corpus"]
    assert "my-corpus version" in said["Wait for the model"]
    assert "chance" in said["Read the evaluation"]
    # Whether 19 or 20 clips are left to test on depends on the split.
    assert any(part in said["Read the evaluation"] for part in ("the best possible", "too few to search"))
    hits = [line for line in said["Search"].splitlines() if line.lstrip()[:1] in ("1", "2", "3", "+", "-")]
    assert len(hits) >= 3 * 10, "ten queries, three hits each"
    assert "dve-ryby" in said["Take a source out again"]
    assert "0 3 * * *" in said["Keep it up to date"]
    sources = Corpus.open(machine.checkout / "data" / "my-corpus").sources().to_pylist()
    kept = {(row["series"], row["episode"]) for row in sources if row["status"] == "kept"}
    assert ("dve-ryby", "e01") not in kept, "taken out"
    assert ("dve-ryby", "e04") in kept, "added by the refresh"


def _until_the_worker_is_there(machine: Machine) -> None:
    deadline = time.monotonic() + PATIENCE
    while " started!" not in machine.log.read_text():  # what a worker says once it is registered
        assert time.monotonic() < deadline, machine.log.read_text()
        time.sleep(0.5)
