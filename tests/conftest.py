"""What is built once per session: a Prefect server, a corpus, a model trained by the real flows."""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.flows.built import Built
    from tests.flows.trained import Trained

pytest_plugins = ["tests.fsclap.retrieval.fixtures"]


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Prefect server with the limits that the tasks need."""
    from prefect.settings import (
        PREFECT_LOCAL_STORAGE_PATH,
        PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    # The harness isolates the database but not the results, so a task could be Cached from an
    # earlier session.
    settings = {
        PREFECT_LOCAL_STORAGE_PATH: tmp_path_factory.mktemp("results"),
        # Each flow waits until its event is stored, for up to five seconds by default.
        PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL: 1.0,
    }
    with temporary_settings(settings), prefect_test_harness(server_startup_timeout=120):
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

    with build_once(tmp_path_factory.mktemp("built")) as built:
        yield built


@pytest.fixture(scope="session")
def trained(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> "Trained":
    """A model that train-fsclap trained; no test may change it."""
    from tests.flows.trained import train_once

    return train_once(tmp_path_factory.mktemp("trained"))
