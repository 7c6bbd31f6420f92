"""Reload the search page when its index is rebuilt."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from anyio import to_thread
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from fsclap import Seconds

log = logging.getLogger(__name__)

CHECK_EVERY: Seconds = 10.0


def live_app(make: Callable[[], FastAPI], record: Path, *, every: Seconds = CHECK_EVERY) -> FastAPI:
    """Make an application that serves the one from `make`, and a new one when `record` changes.

    The old application answers until the new one is ready. If no new one can be made, the old one
    stays and the log says why.

    Args:
        make: Makes an application from the present index; called in a thread after the first time.
        record: File that a build of the index replaces last.
        every: Seconds between two looks at the file.

    Raises:
        Exception: Whatever the first call of `make` raises.
    """
    live = _Live(make, record)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with live.running(every):
            yield

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await live.current(scope, receive, send)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.mount("/", answer)
    return app


class _Live:
    """The present application, and the state of the record that it was made from."""

    def __init__(self, make: Callable[[], FastAPI], record: Path) -> None:
        self._make, self._record = make, record
        self._seen = _stamp(record)  # read before `make`: a change during it is noticed later
        self.current = make()

    @asynccontextmanager
    async def running(self, every: Seconds) -> AsyncIterator[None]:
        """Start the application, and follow the record until the end of the block."""
        self._started = await _start(self.current)
        follower = asyncio.create_task(self._follow(every))
        yield
        follower.cancel()
        with suppress(asyncio.CancelledError):
            await follower
        await self._started.aclose()

    async def _follow(self, every: Seconds) -> None:
        while True:
            await asyncio.sleep(every)
            if (stamp := _stamp(self._record)) != self._seen:
                self._seen = stamp
                await self._replace()

    async def _replace(self) -> None:
        folder = self._record.parent
        try:
            fresh = await to_thread.run_sync(self._make)
            started = await _start(fresh)
        except Exception as error:
            log.warning("%s has changed, but can't be used; the page still shows the old index: %s", folder, error)
            return
        self.current = fresh
        log.info("%s has changed; the page shows the new index", folder)
        await self._started.aclose()
        self._started = started


async def _start(app: FastAPI) -> AsyncExitStack:
    """Run the start-up of an application; closing the result shuts it down."""
    stack = AsyncExitStack()
    await stack.enter_async_context(app.router.lifespan_context(app))
    return stack


def _stamp(file: Path) -> tuple[int, int] | None:
    """Identify the content of a file that is always replaced as a whole; None if missing."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
