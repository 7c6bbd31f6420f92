"""The web page: what it asks the server, and who may ask."""

import base64
import binascii
import hmac
import ipaddress
import logging
import math
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import uvicorn
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from fsclap import Seconds
from fsclap.audio import DecodeSettings, decode
from fsclap.data.clips import MIN_CLIP
from fsclap.refusal import Refused
from fsclap.retrieval import judging, playback
from fsclap.retrieval import map as corpus_map
from fsclap.retrieval.filters import Condition, columns
from fsclap.retrieval.index import Index, SearchError
from fsclap.retrieval.judging import JudgementLog
from fsclap.retrieval.search import Hit, Searcher, Sound

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
VIEWS = ("/", "/map", "/judge")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LARGEST = 20_000_000
"""Bytes of what is sent: a minute of sound, or a short video."""
LONGEST: Seconds = 60.0
"""Of an uploaded clip."""
UPLOADS_AT_ONCE = 2
"""Uploaded clips that are decoded and embedded at once, so that others can go on searching."""
MOST_VALUES = 500
"""Of a filter's values, the most frequent ones; any other can still be typed."""
EXAMPLES = 4
FACETS = ("emotion", "speaker", "series", "language")
SHOWN = (
    "utterance_id", "caption", "text", "series", "episode", "title", "speaker", "start", "end", "duration", "language",
    "emotion", "emotion_confidence", "events", "quality", "overlap", "attributes", "style",
)  # fmt: skip
"""What the page gets of a clip; `source` is added: the address of its video, if it has one."""
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain", "")
"""Content types that another site's page may send here without being asked whether it may."""
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-cache",  # may be kept, and is asked for again: with an ETag that costs nothing
}

Answer = Callable[[Request], Awaitable[Response]]
Where = Annotated[list[str], Query(default_factory=list, description="Conditions, as `Condition.parse` reads them")]
Top = Annotated[int, Query(ge=1, le=100)]


def make_app(
    searcher: Searcher,
    sound: Sound,
    judgements: JudgementLog | None,
    *,
    password: str | None = None,
    hosts: Sequence[str] = LOOPBACK,
) -> FastAPI:
    """The page and its API.

    Args:
        sound: Where clips are heard.
        judgements: Where what people say of clips is kept; None: the page has no such view.
        password: Asked of everybody, with any user name (HTTP Basic).
        hosts: Names by which browsers reach it; any other is refused, lest a stranger's page reads along under a name
            that it had pointed here (DNS rebinding). "*": any.

    Raises:
        SearchError: The split of the index's model is damaged.
    """
    places = corpus_map.CorpusMap(searcher.index)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await to_thread.run_sync(_warm_up, searcher)
        yield
        places.stop()

    app = FastAPI(title="FS-CLAP", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.middleware("http")(_guard(password, hosts))
    app.exception_handler(SearchError)(_tell(400))
    app.exception_handler(Refused)(_tell(400))
    app.exception_handler(ValueError)(_tell(500))  # the corpus, or the file of judgements, is damaged
    app.exception_handler(Exception)(_tell(500, "the server failed; its log says why"))
    app.exception_handler(HTTPException)(_refuse)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(ClientDisconnect)(_tell(400))
    app.include_router(_routes(searcher, judgements is not None))
    app.include_router(playback.routes(searcher, sound))
    app.include_router(corpus_map.routes(places))
    if judgements is not None:
        app.include_router(judging.routes(judging.Judging(searcher, judgements)))
    for view in VIEWS:
        app.get(view)(_page)
    app.mount("/static", StaticFiles(directory=STATIC))
    return app


def allowed_hosts(host: str, password: str | None) -> Sequence[str]:
    """The `hosts` of `make_app` for an address to listen on.

    Raises:
        SearchError: Others than this machine's users could reach it, without a password.
    """
    if password:
        return ("*",)
    if not _is_loopback(host):
        raise SearchError(
            f"everybody who reaches {host} could listen to the corpus: give a password in the environment variable "
            "FSCLAP_APP_PASSWORD, or listen on 127.0.0.1"
        )
    return (*LOOPBACK, host)


def serve(app: FastAPI, host: str, port: int) -> None:
    """Answer until stopped (Ctrl-C)."""
    uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _warm_up(searcher: Searcher) -> None:
    """Encoders load when they are first used: here, not while somebody waits, and not in several threads at once."""
    rate = searcher.model.audio_encoder.sample_rate
    searcher.describe(searcher.embedded(np.zeros(rate, dtype=np.float32), rate))
    searcher.search("a voice")


async def _page() -> FileResponse:
    return FileResponse(STATIC / "page.html")


def _guard(password: str | None, hosts: Sequence[str]) -> Callable[[Request, Answer], Awaitable[Response]]:
    async def guard(request: Request, answer: Answer) -> Response:
        refusal = _refusal(request, password, hosts)
        response = await answer(request) if refusal is None else await _refuse(request, refusal)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return guard


def _refusal(request: Request, password: str | None, hosts: Sequence[str]) -> HTTPException | None:
    """Why a request is not answered."""
    if "*" not in hosts and request.url.hostname not in hosts:
        return HTTPException(400, f"this page is at {hosts[0]}, not at {request.url.hostname}")
    if password is not None and not _knows(request.headers.get("authorization", ""), password):
        return HTTPException(
            401, "wrong password", headers={"WWW-Authenticate": 'Basic realm="FS-CLAP", charset="UTF-8"'}
        )
    if request.method != "POST":
        return None
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        return HTTPException(403, f"a page of {origin} may not send anything here")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in FORMS:
        return HTTPException(415, f"send JSON, or a recording with its type (audio/wav), not {kind or 'nothing'}")
    length = request.headers.get("content-length")
    if length is None or not length.isdecimal():
        return HTTPException(411, "the request must tell its length (Content-Length)")
    if int(length) > LARGEST:
        return HTTPException(413, f"the file has {int(length) / 1e6:.0f} MB; {LARGEST / 1e6:.0f} MB are the most")
    return None


def _knows(authorization: str, password: str) -> bool:
    scheme, _, credentials = authorization.partition(" ")
    try:
        given = base64.b64decode(credentials, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return False
    return scheme.lower() == "basic" and hmac.compare_digest(given, password.encode())


def _tell(status: int, message: str | None = None) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def tell(request: Request, error: Exception) -> Response:
        if status == 500:
            log.error("%s %s: %s", request.method, request.url.path, error, exc_info=error)
        said = error.detail if isinstance(error, Refused) else str(error)
        return JSONResponse({"error": message or said}, status)

    return tell


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = error.errors()[0]
    return JSONResponse({"error": f"{'.'.join(map(str, wrong['loc'][1:]))}: {wrong['msg']}"}, 400)


def _routes(searcher: Searcher, judges: bool) -> APIRouter:
    router = APIRouter(prefix="/api")
    about = _about(searcher.index) | {"judging": judges}
    uploads = CapacityLimiter(UPLOADS_AT_ONCE)

    @router.get("/corpus")
    def corpus() -> dict[str, Any]:
        return about

    @router.get("/search")
    def search(where: Where, query: Annotated[str, Query(max_length=1000)] = "", top: Top = 10) -> dict[str, Any]:
        return {"clips": [_found(hit) for hit in searcher.search(query, top=top, where=_conditions(where))]}

    @router.get("/clips/{utterance_id}")
    def clip(utterance_id: str) -> dict[str, Any]:
        return shown(playback.known(searcher, utterance_id))

    @router.get("/clips/{utterance_id}/like")
    def like(utterance_id: str, where: Where, top: Top = 10) -> dict[str, Any]:
        row = playback.known(searcher, utterance_id)
        hits = searcher.like_clip(utterance_id, top=top, where=_conditions(where))
        return {"clip": shown(row), "clips": [_found(hit) for hit in hits]}

    @router.post("/sound")
    async def sound(request: Request, where: Where, top: Top = 10) -> dict[str, Any]:
        conditions = _conditions(where)
        with tempfile.TemporaryDirectory() as folder:
            media = Path(folder) / "The file"  # so it is called where decoding fails
            with media.open("wb") as received:
                async for chunk in request.stream():
                    received.write(chunk)
            return await to_thread.run_sync(partial(_heard, searcher, media, conditions, top), limiter=uploads)

    return router


def _heard(searcher: Searcher, media: Path, where: Sequence[Condition], top: int) -> dict[str, Any]:
    """The clips that sound like a recording, and the captions that fit it."""
    rate = searcher.model.audio_encoder.sample_rate
    settings = DecodeSettings(min_duration=MIN_CLIP, max_duration=LONGEST, timeout=30)
    try:
        wave = decode(media, media.with_suffix(".wave"), sample_rate=rate, settings=settings).mean(axis=0)
    except Refused as refused:
        lengths = {"too_long": f"at most {LONGEST:g} s", "too_short": f"at least {MIN_CLIP:g} s"}
        if refused.reason in lengths:
            raise SearchError(f"The recording may last {lengths[refused.reason]}; send another stretch.") from refused
        raise
    vector = searcher.embedded(wave, rate)
    hits = searcher.like_vector(vector, top=top, where=where)
    captions = searcher.describe(vector, top=5)
    return {
        "duration": len(wave) / rate,
        "clips": [_found(hit) for hit in hits],
        "captions": [{"caption": found.caption, "score": found.score} for found in captions],
    }


def _conditions(where: Sequence[str]) -> list[Condition]:
    return [Condition.parse(text) for text in where]


def _found(hit: Hit) -> dict[str, Any]:
    return shown(hit.row) | {"rank": hit.rank, "score": hit.score}


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """What the page gets of a clip. JSON has no NaN; only an address that a browser may open is a source."""
    clip: dict[str, Any] = {name: _finite(row.get(name)) for name in SHOWN}
    url = row.get("url") or ""
    clip["source"] = url if urlsplit(url).scheme in ("http", "https") else None
    return clip


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _about(index: Index) -> dict[str, Any]:
    """What the page shows before anything is searched for."""
    record, rows = index.record, index.rows
    duration = pc.min_max(rows["duration"]).as_py() if "duration" in rows.schema.names else {"min": None, "max": None}
    return {
        "corpus": Path(record.corpus).name,
        "version": record.version,
        "model": Path(record.model).name,
        "clips": record.clips,
        "captions": record.captions,
        "facets": [facet for name in FACETS if (facet := _facet(rows, name)) is not None],
        "duration": duration,
        "columns": columns(rows),
        "examples": _examples(index.captions.to_pylist()),
        "largest": LARGEST,
        "longest": LONGEST,
    }


def _facet(rows: pa.Table, name: str) -> dict[str, Any] | None:
    """A column's values, the most frequent first; None when it can't tell clips apart."""
    if name not in rows.schema.names:
        return None
    counts = rows[name].drop_null().value_counts()
    if len(counts) == 0 or (len(counts) == 1 and rows[name].null_count == 0):
        return None
    values = sorted(counts.to_pylist(), key=lambda count: (-count["counts"], count["values"]))
    return {
        "column": name,
        "distinct": len(values),
        "values": [{"value": count["values"], "clips": count["counts"]} for count in values[:MOST_VALUES]],
    }


def _examples(captions: Sequence[str]) -> list[str]:
    """Some captions that are short enough for a button; the same ones at every start."""
    fitting = sorted({caption for caption in captions if 25 <= len(caption) <= 80 and "<" not in caption}, key=len)
    chosen = np.random.default_rng(0).permutation(len(fitting))[:EXAMPLES]
    return [fitting[at].rstrip(".") for at in sorted(chosen)]
