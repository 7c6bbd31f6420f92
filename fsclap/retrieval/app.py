"""The search page and its API."""

import errno
import functools
import logging
import math
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import numpy as np
import torch
import uvicorn
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from fsclap.retrieval import By, judging, playback
from fsclap.retrieval import map as corpus_map
from fsclap.retrieval.about import about, voice, voices
from fsclap.retrieval.calibration import WEAK
from fsclap.retrieval.export import export_hits
from fsclap.retrieval.filters import Condition, FilterError
from fsclap.retrieval.guard import LOOPBACK, HeadAsGet, guard, refused
from fsclap.retrieval.hits import Hit, Sound
from fsclap.retrieval.index import SearchError
from fsclap.retrieval.judging import JudgementLog
from fsclap.retrieval.notes import Note
from fsclap.retrieval.search import Searcher

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
VIEWS = ("/", "/map", "/judge")
UPLOADS_AT_ONCE = 2
"""Uploaded recordings that are decoded at a time, so that other people can go on searching."""
MOST_CHOSEN = 50
"""Clips that can be exported together."""
SHOWN = (
    "utterance_id", "caption", "text", "text_confidence", "kind", "series", "episode", "title", "speaker", "start",
    "end", "duration", "language", "emotion", "emotion_confidence", "events", "quality", "overlap", "attributes",
    "style",
)  # fmt: skip
"""Columns that the page gets; `source` is added: the address of the clip's video, if it has one."""

Where = Annotated[list[str], Query(default_factory=list, description="Conditions, as `Condition.parse` reads them")]
Words = Annotated[str, Query(max_length=1000, description="In what clips should differ, such as: higher and faster")]
Top = Annotated[int, Query(ge=1, le=100)]


def make_app(
    searcher: Searcher,
    sound: Sound,
    judgements: JudgementLog | None,
    *,
    password: str | None = None,
    hosts: Sequence[str] = LOOPBACK,
) -> FastAPI:
    """Make the page and its API.

    Args:
        searcher: The index to search.
        sound: Reads the clips of the corpus.
        judgements: Keeps what people say about clips; None: nobody can judge.
        password: Required from everybody, with any user name (HTTP Basic).
        hosts: Host names that are answered. Any other is refused, so that a stranger's page can't
            read this one through a name that points here (DNS rebinding). "*": any.

    Raises:
        SearchError: The split of the index's model is damaged.
    """
    map_ = corpus_map.CorpusMap(searcher.index)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await to_thread.run_sync(_warm_up, searcher)
        yield
        map_.stop()

    app = FastAPI(title="FS-CLAP", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.middleware("http")(guard(password, hosts))
    app.add_middleware(HeadAsGet)
    _handle_errors(app)
    app.include_router(_routes(searcher, sound, judges=judgements is not None))
    app.include_router(playback.routes(searcher, sound))
    app.include_router(corpus_map.routes(map_))
    if judgements is not None:
        app.include_router(judging.routes(judging.Judging(searcher, judgements)))
    for view in VIEWS:
        app.get(view)(_page)
    app.mount("/static", StaticFiles(directory=STATIC))
    return app


def listening(host: str, port: int) -> socket.socket:
    """Open the socket of the page, before an address is told to anybody.

    Raises:
        SearchError: The port is taken, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(place)
    except OSError as error:
        advice = "stop what uses it, or name another with --port" if error.errno == errno.EADDRINUSE else "correct it"
        raise SearchError(f"{address(host, port)} can't be served ({error.strerror or error}): {advice}") from error
    return found


def address(host: str, port: int) -> str:
    """Write the address of the page; an IPv6 address needs brackets."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve(app: FastAPI, place: socket.socket) -> None:
    """Serve on an open socket until stopped (Ctrl-C)."""
    # Requests are answered side by side. With several threads for each they wait for one another: a hundred
    # people at once then wait six times as long (bench.users).
    torch.set_num_threads(1)
    config = uvicorn.Config(app, log_level="warning", server_header=False, proxy_headers=False)
    uvicorn.Server(config).run(sockets=[place])


def _warm_up(searcher: Searcher) -> None:
    """Load the encoders now: not while somebody waits, and not in several threads at once."""
    rate = searcher.model.audio_encoder.sample_rate
    searcher.describe(searcher.embedded(np.zeros(rate, dtype=np.float32), rate))
    searcher.search("a voice")
    searcher.search("a voice", by="model")
    searcher.calibration("sound")


async def _page() -> FileResponse:
    return FileResponse(STATIC / "page.html")


def _handle_errors(app: FastAPI) -> None:
    app.exception_handler(SearchError)(_answer_error(400))
    app.exception_handler(ValueError)(_answer_error(500))  # the corpus, or the file of judgements, is damaged
    app.exception_handler(Exception)(_answer_error(500, "the server failed; its log says why"))
    app.exception_handler(HTTPException)(_answer_refusal)
    app.exception_handler(RequestValidationError)(_answer_invalid)
    app.exception_handler(ClientDisconnect)(_answer_error(400))


def _answer_error(status: int, message: str | None = None) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        if status == 500:
            log.error("%s %s: %s", request.method, request.url.path, error, exc_info=error)
        if isinstance(error, FilterError):  # the page shows it beside that field, and the columns below
            return JSONResponse({"error": error.brief, "field": "where"}, status)
        return JSONResponse({"error": message or str(error)}, status)

    return answer


async def _answer_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refused(error)


async def _answer_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return JSONResponse({"error": f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"}, 400)


def _routes(searcher: Searcher, sound: Sound, *, judges: bool) -> APIRouter:
    router = APIRouter(prefix="/api")
    described = about(searcher) | {"judging": judges}
    uploads = CapacityLimiter(UPLOADS_AT_ONCE)

    @router.get("/corpus")
    def corpus() -> dict[str, Any]:
        return described

    @router.get("/search")
    def search(
        where: Where, query: Annotated[str, Query(max_length=1000)] = "", by: By | None = None, top: Top = 10
    ) -> dict[str, Any]:
        conditions, by = _conditions(where), by or searcher.default
        hits = searcher.search(query, by=by, top=top, where=conditions)
        guess = searcher.guesses(query)
        notes = [*searcher.notes(query), *searcher.unknown_values(conditions)]
        return {"by": by, "notes": _said(notes), "guess": guess} | _answer(
            searcher, hits, None if guess else by, conditions
        )

    @router.get("/clips")
    def clips(ids: Annotated[list[str], Query(alias="id", min_length=1, max_length=MOST_CHOSEN)]) -> dict[str, Any]:
        found = [id_ for id_ in ids if id_ in searcher]
        return {
            "clips": [shown(searcher.row(id_)) for id_ in found],
            "gone": [id_ for id_ in ids if id_ not in searcher],
        }

    @router.get("/clips/{utterance_id}")
    def clip(utterance_id: str) -> dict[str, Any]:
        return shown(playback.row_of(searcher, utterance_id))

    @router.get("/clips/{utterance_id}/like")
    def like(utterance_id: str, where: Where, query: Words = "", top: Top = 10) -> dict[str, Any]:
        row, conditions = playback.row_of(searcher, utterance_id), _conditions(where)
        hits = searcher.like_clip(utterance_id, words=query, top=top, where=conditions)
        notes = searcher.unknown_values(conditions)
        return {"clip": shown(row), "notes": _said(notes)} | _answer(searcher, hits, _of_sound(query), conditions)

    @router.post("/sound")
    async def like_sound(request: Request, where: Where, query: Words = "", top: Top = 10) -> dict[str, Any]:
        conditions = _conditions(where)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "The file"  # messages name it
            with file.open("wb") as received:
                async for chunk in request.stream():
                    received.write(chunk)
            work = functools.partial(_like_upload, searcher, file, query, conditions, top)
            return await to_thread.run_sync(work, limiter=uploads)

    @functools.cache
    def most_heard() -> list[dict[str, Any]]:
        return voices(searcher)

    @router.get("/voices")
    def frequent_voices() -> dict[str, Any]:
        return {"voices": most_heard()}

    @router.get("/voice")
    def one_voice(speaker: str) -> dict[str, Any]:
        return voice(searcher, speaker)

    @router.get("/export")
    def export(
        ids: Annotated[list[str], Query(alias="id", min_length=1, max_length=MOST_CHOSEN)],
        query: Annotated[str, Query(max_length=1000)] = "",
    ) -> Response:
        rows = [playback.row_of(searcher, id_) for id_ in ids]
        hits = [Hit(rank, math.nan, None, row) for rank, row in enumerate(rows, start=1)]
        with tempfile.TemporaryDirectory() as folder:
            content = export_hits(hits, sound, Path(folder) / "prompts.zip", query=query).read_bytes()
        headers = {"Content-Disposition": 'attachment; filename="prompts.zip"'}
        return Response(content, media_type="application/zip", headers=headers)

    return router


def _like_upload(searcher: Searcher, file: Path, words: str, where: Sequence[Condition], top: int) -> dict[str, Any]:
    """Find the clips that sound like a recording, and the captions that fit it."""
    wave, rate = searcher.wave_of(file)
    vector = searcher.embedded(wave, rate)
    place = searcher.place_of(wave, rate) if words.strip() else {}
    hits = searcher.like_vector(vector, words=words, place=place, top=top, where=where)
    captions = searcher.describe(vector, top=5)
    return {
        "duration": len(wave) / rate,
        "captions": [{"caption": found.caption, "score": found.score} for found in captions],
        "notes": _said(searcher.unknown_values(where)),
    } | _answer(searcher, hits, _of_sound(words), where)


def _said(notes: Sequence[Note]) -> list[dict[str, Any]]:
    return [note.as_json() for note in notes]


def _of_sound(words: str) -> Literal["sound"] | None:
    """Name the calibration of a search by a sound; with words, scores are sums that have none."""
    return None if words.strip() else "sound"


def _answer(
    searcher: Searcher, hits: Sequence[Hit], by: By | Literal["sound"] | None, where: Sequence[Condition]
) -> dict[str, Any]:
    """Word the hits of a search, with what scores of that kind mean (None: nothing beyond their order)."""
    known = None if by is None else searcher.calibration(by)
    clips = []
    for hit in hits:
        share = None if known is None else known.share(hit.score)
        clips.append(_shown_hit(hit) | {"share": share, "weak": share is not None and share < WEAK[by == "sound"]})
    return {"of": searcher.count(where), "chance": known.chance if known else None, "clips": clips}


def _conditions(where: Sequence[str]) -> list[Condition]:
    return [Condition.parse(text) for text in where]


def _shown_hit(hit: Hit) -> dict[str, Any]:
    told = hit.told
    return shown(hit.row) | {
        "rank": hit.rank,
        "score": hit.score,
        "why": list(told.has),
        "lacks": list(told.lacks),
        "marked": list(told.marked),
    }


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """Reduce a row of the corpus to what the page shows.

    JSON has no NaN, so such values become null. Only an http or https address becomes a `source`.
    """
    clip: dict[str, Any] = {name: _finite(row.get(name)) for name in SHOWN}
    url = row.get("url") or ""
    clip["source"] = url if urlsplit(url).scheme in ("http", "https") else None
    return clip


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
