"""A Prefect server of a bench's own."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def prefect_server() -> Iterator[None]:
    """A server with an empty database, with the limits that the tasks need, as long as the block runs."""
    from prefect.client.orchestration import get_client
    from prefect.testing.utilities import prefect_test_harness

    from deployments.bootstrap import bootstrap

    async def prepare() -> None:
        async with get_client() as client:
            await bootstrap(client)

    with prefect_test_harness(server_startup_timeout=120):
        asyncio.run(prepare())
        yield
