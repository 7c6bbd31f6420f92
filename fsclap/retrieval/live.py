"""Reload the search page when its index is rebuilt."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from anyio import to_thread
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from fsclap import Seconds

log = logging.getLogger(__name__)

CHECK_EVERY: Seconds = 10.0


def live_app(make: Callable[[], FastAPI], seen: Callable[[], str | None], *, every: Seconds = CHECK_EVERY) -> FastAPI:
    """Make an application that serves the one from `make`, and a new one when the index was built again.

    The old application answers until the new one is ready. If no new one can be made, the old one
    stays and the log says why.

    Args:
        make: Makes an application from the present index; called in a thread after the first time.
        seen: Tells the version of the file that a build of the index replaces last; called in a thread.
        every: Seconds between two looks at it.

    Raises:
        Exception: Whatever the first call of `make` raises.
    """
    live = _Live(make, seen)

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
    """The present application, and the version of the index that it was made from."""

    def __init__(self, make: Callable[[], FastAPI], look: Callable[[], str | None]) -> None:
        self._make, self._look = make, look
        self._seen = look()  # before `make`: a change during it is noticed later
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
            try:
                seen = await to_thread.run_sync(self._look)
            except OSError as error:
                log.warning("The index can't be looked at; the page shows what it has: %s", error)
                continue
            if seen != self._seen:
                self._seen = seen
                await self._replace()

    async def _replace(self) -> None:
        try:
            fresh = await to_thread.run_sync(self._make)
            started = await _start(fresh)
        except Exception as error:
            log.warning("The index has changed, but can't be used; the page still shows the old index: %s", error)
            return
        self.current = fresh
        log.info("The index has changed; the page shows the new one")
        await self._started.aclose()
        self._started = started


async def _start(app: FastAPI) -> AsyncExitStack:
    """Run the start-up of an application; closing the result shuts it down."""
    stack = AsyncExitStack()
    await stack.enter_async_context(app.router.lifespan_context(app))
    return stack
