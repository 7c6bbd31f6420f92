"""A real Prefect server for the flow tests, with the limits that the tasks need, and short real recordings."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from deployments.bootstrap import bootstrap
from fsclap.audio import ffmpeg_binary

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # The harness isolates the database but not the results, so a task could be Cached from an earlier session.
    results = tmp_path_factory.mktemp("results")
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: results}), prefect_test_harness(server_startup_timeout=120):
        asyncio.run(_bootstrap())
        yield


async def _bootstrap() -> None:
    async with get_client() as client:
        await bootstrap(client)


def cut(episode: str, destination: Path, *, start: float, seconds: float) -> Path:
    """A stretch of a sample episode as an mp4 file of its own."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    command = [ffmpeg_binary(), "-nostdin", "-v", "error", "-y", "-ss", str(start), "-i", str(SAMPLES / episode)]
    subprocess.run([*command, "-t", str(seconds), str(destination)], check=True)
    return destination
