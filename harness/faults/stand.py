"""A whole installation that can be broken: a copy of the project with a server, a worker and data.

The processes are those of a real installation: `prefect server start`, `prefect worker start`, and
the runs that the worker starts. Runs are started with `prefect deployment run`, as a user does, or
by automations. The server's database is SQLite; with
FSCLAP_FAULTS_POSTGRES=postgresql://user:password@host:port each stand creates one on that server.
"""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import yaml

from deployments.local import ENVIRONMENT
from deployments.processes import PREFECT, free_port, run_command, run_id, stop
from storage.corpus import Corpus

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("flows", "tasks", "fsclap", "storage", "deployments", "samples", "prefect.yaml", "pyproject.toml")
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
TRAINING = {
    "model": {"width": 16, "heads": 2, "embedding": 16},
    "epochs": 3,
    "batch": 16,
    "accumulate": 1,
    "texts": {"query_share": 0},
    "split": {"min_train_clips": 8, "min_eval_clips": 4},
}
"""Train in seconds a model that learns nothing: the tests check only that it is trained, once."""


class Stand:
    """An installation in a folder.

    Args:
        folder: The folder to create and copy the project to.
        data: Folder of corpus, work files and models; in the copy by default.
        count_calls: Whether to count the calls of the server's API, in `calls`.
        sleep: Seconds that engines sleep per recording, in place of their work; None for the real engines.
    """

    def __init__(
        self, folder: Path, data: Path | None = None, *, count_calls: bool = False, sleep: float | None = None
    ) -> None:
        self.project = folder / "project"
        self.faults = folder / "faults"
        self.faults.mkdir(parents=True)
        self.project.mkdir()
        for name in SOURCES:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.project / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, self.project / name)
        self._shorten_training()
        self.data = data or self.project / "data"
        self.data.mkdir(exist_ok=True)
        if data:
            (self.project / "data").symlink_to(data)
        self.home = folder / "prefect"
        self.port = free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.environment = {
            **os.environ,
            **ENVIRONMENT,
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.api,
            "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
            "PYTHONPATH": str(Path(__file__).parent / "inject"),
            "FSCLAP_FAULTS": str(self.faults),
        }
        self.postgres = _own_database()
        if self.postgres:
            url = self.postgres.replace("postgresql://", "postgresql+asyncpg://")
            self.environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = url
        self.calls = folder / "calls"
        if count_calls:
            self.calls.touch()
            self.environment["FSCLAP_CALLS"] = str(self.calls)
        if sleep is not None:
            self.environment["FSCLAP_SLEEP"] = str(sleep)
        self.log = (folder / "processes.log").open("ab")
        self.server: subprocess.Popen[bytes] | None = None
        self.worker: subprocess.Popen[bytes] | None = None

    def _shorten_training(self) -> None:
        path = self.project / "prefect.yaml"
        content = yaml.safe_load(path.read_text())
        for deployment in content["deployments"]:
            if deployment["name"] == "train-fsclap":
                deployment["parameters"]["settings"] = TRAINING
            for schedule in deployment.get("schedules", []):
                schedule["active"] = False
        path.write_text(yaml.safe_dump(content, sort_keys=False))

    # Processes ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start server and worker, and make the deployments, as docs/operations.md describes."""
        self.start_server()
        self.command([sys.executable, "-m", "deployments.bootstrap"])
        self.command([*PREFECT, "--no-prompt", "deploy", "--all"])
        self.start_worker()

    def stop(self) -> None:
        for process in (self.worker, self.server):
            if process is not None:
                stop(process)
        self.log.close()

    def start_server(self) -> None:
        self.server = self.spawn([*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(self.port)])
        until(lambda: self.get("health") is True, patience=180, what="the server answers")

    def start_worker(self) -> None:
        self.worker = self.spawn([*PREFECT, "worker", "start", "--pool", "fsclap-cpu", "--type", "process"])

    def kill_server(self) -> None:
        assert self.server is not None
        os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait()

    def kill_worker(self) -> None:
        """Kill the worker but not its runs, which have process groups of their own."""
        assert self.worker is not None
        self.worker.kill()
        self.worker.wait()

    def stop_worker(self) -> None:
        """Stop the worker as init systems do: SIGTERM, then SIGKILL if it ignores that."""
        assert self.worker is not None
        self.worker.terminate()
        try:
            self.worker.wait(15)
        except subprocess.TimeoutExpired:
            self.kill_worker()

    def command(self, command: list[str]) -> str:
        """Run a user's command in the project, and return its output.

        Raises:
            RuntimeError: The command failed; the message holds its output.
        """
        done = subprocess.run(command, cwd=self.project, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}\n{done.stderr}")
        return done.stdout

    def spawn(self, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        """Start a process of the installation, with variables of its own."""
        return subprocess.Popen(
            command,
            cwd=self.project,
            env={**self.environment, **environment},
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    # Runs -----------------------------------------------------------------------------------------

    def run(self, deployment: str, **parameters: Any) -> str:
        """Start a run with `prefect deployment run`, and return its id."""
        return str(run_id(self.command(run_command(deployment, **parameters))))

    def runs(self) -> list[dict[str, Any]]:
        """List all flow runs, oldest first; empty while the server does not answer."""
        runs = self.post("flow_runs/filter", {"sort": "START_TIME_ASC", "limit": 200}) or []
        return sorted((run for run in runs if run["parent_task_run_id"] is None), key=lambda run: run["created"])

    def get(self, path: str) -> Any:
        return self._ask("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        try:
            answer = httpx.request(method, f"{self.api}/{path}", json=body, timeout=30)
            return answer.json() if answer.status_code < 300 else None
        except (httpx.HTTPError, ValueError):
            return None

    def committed(self) -> int:
        """Count the sources in the corpus; 0 before it exists."""
        corpus = self.data / "corpus"
        return Corpus.open(corpus).sources().num_rows if (corpus / "sources" / "_delta_log").is_dir() else 0

    def run_processes(self, *having: str) -> list[int]:
        """List the process ids of the active runs, without the programs that they started.

        Args:
            having: Only those with these entries in their environment: "NAME=value".
        """
        marks = (b"PREFECT__FLOW_RUN_ID=", *map(os.fsencode, having))
        return [
            number
            for number, environment, command in self.processes()
            if all(mark in environment for mark in marks) and b"prefect" in command
        ]

    def processes(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield id, environment and command line of each process of this installation."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment, command = (folder / "environ").read_bytes(), (folder / "cmdline").read_bytes()
            except OSError:  # it has ended, or is another user's
                continue
            if os.fsencode(self.faults) in environment:
                yield int(folder.name), environment, command

    # Outages ----------------------------------------------------------------------------------

    @contextmanager
    def frozen_server(self) -> Iterator[None]:
        assert self.server is not None
        os.killpg(self.server.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.server.pid, signal.SIGCONT)

    @contextmanager
    def locked_database(self) -> Iterator[None]:
        """Lock the server's database, as another writer would, for longer than the server waits."""
        if self.postgres:
            with asyncio.Runner() as runner:
                connection = runner.run(asyncpg.connect(self.postgres))
                runner.run(connection.execute("BEGIN; LOCK TABLE flow_run, flow_run_state, events"))
                try:
                    yield
                finally:
                    runner.run(connection.close())
            return
        with sqlite3.connect(self.home / "prefect.db", timeout=60, isolation_level=None) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            try:
                yield
            finally:
                connection.execute("ROLLBACK")

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Fill the disk of the data to the last byte."""
        filler = self.data / "filler"
        try:
            with filler.open("wb", buffering=0) as file:
                for size in (1 << 20, 1 << 12, 1):
                    try:
                        while True:
                            file.write(bytes(size))
                    except OSError:
                        continue
            yield
        finally:
            filler.unlink()


@contextmanager
def stand(folder: Path, data: Path | None = None, **options: Any) -> Iterator[Stand]:
    made = Stand(folder, data, **options)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a small file system in memory; needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True)
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
        yield folder


def until(condition: Callable[[], bool], *, patience: float, what: str) -> None:
    """Poll until a condition holds.

    Raises:
        TimeoutError: It did not hold within `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {patience:g} s")
        time.sleep(0.3)


def _own_database() -> str | None:
    """Create a database on the PostgreSQL server, if there is one, and return its address."""
    server = os.environ.get("FSCLAP_FAULTS_POSTGRES")
    if not server:
        return None
    name = f"fsclap_{uuid.uuid4().hex}"

    async def create() -> None:
        connection = await asyncpg.connect(f"{server}/postgres")
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()

    asyncio.run(create())
    return f"{server}/{name}"
