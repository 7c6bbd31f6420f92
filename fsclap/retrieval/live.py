"""The page goes with its index: built anew, as a refresh of the corpus does, it is what the page shows from then on."""

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

LOOK_EVERY: Seconds = 10.0


def live_app(make: Callable[[], FastAPI], record: Path, *, every: Seconds = LOOK_EVERY) -> FastAPI:
    """An application that answers as the one that `make` makes, and as a new one once `record` has been replaced.

    The old one answers until the new one is ready, and for good when there can't be a new one: the log says why.

    Args:
        make: Makes an application of what is there now; a new one is made in a thread.
        record: File that whoever builds an index replaces last.
        every: How often it is looked at.

    Raises:
        Exception: What `make` raises at its first call.
    """
    seen = _stamp(record)  # before the first is made: a change meanwhile is one that is seen
    current = make()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running = await _started(current)

        async def follow() -> None:
            nonlocal current, running, seen
            while True:
                await asyncio.sleep(every)
                if (found := _stamp(record)) == seen:
                    continue
                seen = found
                try:
                    fresh = await to_thread.run_sync(make)
                    started = await _started(fresh)
                except Exception as error:
                    log.warning("%s has changed, and the page goes on with what it has: %s", record.parent, error)
                    continue
                current = fresh
                log.info("%s has changed; the page shows what it holds now", record.parent)
                await running.aclose()
                running = started

        follower = asyncio.create_task(follow())
        yield
        follower.cancel()
        with suppress(asyncio.CancelledError):
            await follower
        await running.aclose()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await current(scope, receive, send)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.mount("/", answer)
    return app


async def _started(app: FastAPI) -> AsyncExitStack:
    """Do what an application does before its first answer; what is returned ends it."""
    stack = AsyncExitStack()
    await stack.enter_async_context(app.router.lifespan_context(app))
    return stack


def _stamp(file: Path) -> tuple[int, int] | None:
    """Tells a file from one that took its place."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
