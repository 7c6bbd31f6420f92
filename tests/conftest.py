"""What is built once per session (a Prefect server, a corpus, a trained model), and what fast tests do without."""

import asyncio
import base64
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.sockets import contacts

if TYPE_CHECKING:
    from tests.flows.built import Built
    from tests.flows.trained import Trained

pytest_plugins = ["tests.fsclap.retrieval.fixtures"]

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A PNG."""


class FirstAxes:
    """In the place of UMAP: the first two axes of the points."""

    def __init__(self, **_: Any) -> None:
        pass

    def fit_transform(self, points: np.ndarray) -> np.ndarray:
        return points[:, :2]


@pytest.fixture(autouse=True)
def umap_for_slow_tests_only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """UMAP compiles itself, for ten seconds or more, in each process that uses it."""
    if request.node.get_closest_marker("slow") is None:
        module = ModuleType("umap")
        module.UMAP = FirstAxes  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "umap", module)


@pytest.fixture(scope="module")
def quick_plots() -> Iterator[None]:
    """The plots of a corpus card are one pixel: drawing them takes longer than the rest of a card."""

    def save(figure: object, path: Path) -> Path:
        path.write_bytes(PIXEL)
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("storage.plots._save", save)
        yield


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real S3 server, which keeps the promise of conditional puts; the environment of its clients."""
    from storage.objects import Place
    from storage.race import race_problem
    from tests.object_store import BUCKET, seaweedfs

    with seaweedfs(tmp_path_factory.mktemp("s3") / "data") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        problem = race_problem(Place.at(f"s3://{BUCKET}/race"))
        if problem:
            pytest.fail(problem)
        yield environment


@pytest.fixture
def bucket(s3_server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An address of its own in the S3 server."""
    from tests.object_store import BUCKET

    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FSCLAP_CACHE", str(tmp_path / "cache"))
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Prefect server with the limits that the tasks need."""
    from prefect.settings import (
        PREFECT_API_REQUEST_TIMEOUT,
        PREFECT_LOCAL_STORAGE_PATH,
        PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL,
        PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    settings = {
        # No test here waits for an automation, and for each event they write to SQLite as well, which has one writer.
        PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED: False,
        # A request that hangs is sent again after this, not after a minute (docs/reliability.md).
        PREFECT_API_REQUEST_TIMEOUT: 20.0,
        # The harness isolates the database but not the results, so a task could be Cached from an
        # earlier session.
        PREFECT_LOCAL_STORAGE_PATH: tmp_path_factory.mktemp("results"),
        # Each flow waits until its event is stored, for up to five seconds by default.
        PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL: 0.1,
    }
    # A build that runs on this machine would hold the lock of its CPU, for which a flow waits.
    locks = SimpleNamespace(gettempdir=lambda: str(tmp_path_factory.getbasetemp()))
    with (
        pytest.MonkeyPatch.context() as patch,
        temporary_settings(settings),
        prefect_test_harness(server_startup_timeout=120),
    ):
        patch.setattr("tasks.limits.tempfile", locks)
        asyncio.run(_bootstrap())
        yield


async def _bootstrap() -> None:
    from prefect.client.orchestration import get_client

    from deployments.bootstrap import bootstrap

    async with get_client() as client:
        await bootstrap(client)


@pytest.fixture(scope="session")
def built_corpus(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Built"]:
    """A corpus that build-dataset built; no test may change it."""
    from tests.flows.built import build_once

    with ExitStack() as stack:
        with contacts() as asked:
            built = stack.enter_context(build_once(tmp_path_factory.mktemp("built")))
        yield replace(built, contacts=frozenset(asked))


@pytest.fixture(scope="session")
def trained(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> "Trained":
    """A model that train-fsclap trained; no test may change it."""
    from tests.flows.trained import train_once

    with contacts() as asked:
        trained = train_once(tmp_path_factory.mktemp("trained"))
    return replace(trained, contacts=frozenset(asked))
