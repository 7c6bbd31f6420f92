"""The search page and its API."""

import logging
import math
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args
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

from fsclap.retrieval import By, judging, playback
from fsclap.retrieval import map as corpus_map
from fsclap.retrieval.filters import Condition, columns
from fsclap.retrieval.guard import LOOPBACK, guard, refused
from fsclap.retrieval.index import SearchError
from fsclap.retrieval.judging import JudgementLog
from fsclap.retrieval.search import MAX_RECORDING_BYTES, Hit, Searcher, Sound

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
VIEWS = ("/", "/map", "/judge")
UPLOADS_AT_ONCE = 2
"""Uploaded recordings that are decoded at a time, so that other people can go on searching."""
MOST_VALUES = 500
"""Values that a filter suggests, the most frequent ones; any other can still be typed."""
EXAMPLES = 4
FACETS = ("emotion", "speaker", "series", "language")
SHOWN = (
    "utterance_id", "caption", "text", "series", "episode", "title", "speaker", "start", "end", "duration", "language",
    "emotion", "emotion_confidence", "events", "quality", "overlap", "attributes", "style",
)  # fmt: skip
"""Columns that the page gets; `source` is added: the address of the clip's video, if it has one."""

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
    _handle_errors(app)
    app.include_router(_routes(searcher, judges=judgements is not None))
    app.include_router(playback.routes(searcher, sound))
    app.include_router(corpus_map.routes(map_))
    if judgements is not None:
        app.include_router(judging.routes(judging.Judging(searcher, judgements)))
    for view in VIEWS:
        app.get(view)(_page)
    app.mount("/static", StaticFiles(directory=STATIC))
    return app


def serve(app: FastAPI, host: str, port: int) -> None:
    """Serve until stopped (Ctrl-C)."""
    uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False)


def _warm_up(searcher: Searcher) -> None:
    """Load the encoders now: not while somebody waits, and not in several threads at once."""
    rate = searcher.model.audio_encoder.sample_rate
    searcher.describe(searcher.embedded(np.zeros(rate, dtype=np.float32), rate))
    searcher.search("a voice")


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
        return JSONResponse({"error": message or str(error)}, status)

    return answer


async def _answer_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refused(error)


async def _answer_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return JSONResponse({"error": f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"}, 400)


def _routes(searcher: Searcher, *, judges: bool) -> APIRouter:
    router = APIRouter(prefix="/api")
    about = _about(searcher) | {"judging": judges}
    uploads = CapacityLimiter(UPLOADS_AT_ONCE)

    @router.get("/corpus")
    def corpus() -> dict[str, Any]:
        return about

    @router.get("/search")
    def search(
        where: Where, query: Annotated[str, Query(max_length=1000)] = "", by: By | None = None, top: Top = 10
    ) -> dict[str, Any]:
        hits = searcher.search(query, by=by, top=top, where=_conditions(where))
        return {
            "by": by or searcher.default,
            "notes": searcher.notes(query),
            "clips": [_shown_hit(hit) for hit in hits],
        }

    @router.get("/clips/{utterance_id}")
    def clip(utterance_id: str) -> dict[str, Any]:
        return shown(playback.row_of(searcher, utterance_id))

    @router.get("/clips/{utterance_id}/like")
    def like(utterance_id: str, where: Where, top: Top = 10) -> dict[str, Any]:
        row = playback.row_of(searcher, utterance_id)
        hits = searcher.like_clip(utterance_id, top=top, where=_conditions(where))
        return {"clip": shown(row), "clips": [_shown_hit(hit) for hit in hits]}

    @router.post("/sound")
    async def sound(request: Request, where: Where, top: Top = 10) -> dict[str, Any]:
        conditions = _conditions(where)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "The file"  # messages name it
            with file.open("wb") as received:
                async for chunk in request.stream():
                    received.write(chunk)
            return await to_thread.run_sync(partial(_like_upload, searcher, file, conditions, top), limiter=uploads)

    return router


def _like_upload(searcher: Searcher, file: Path, where: Sequence[Condition], top: int) -> dict[str, Any]:
    """Find the clips that sound like a recording, and the captions that fit it."""
    wave, rate = searcher.wave_of(file)
    vector = searcher.embedded(wave, rate)
    hits = searcher.like_vector(vector, top=top, where=where)
    captions = searcher.describe(vector, top=5)
    return {
        "duration": len(wave) / rate,
        "clips": [_shown_hit(hit) for hit in hits],
        "captions": [{"caption": found.caption, "score": found.score} for found in captions],
    }


def _conditions(where: Sequence[str]) -> list[Condition]:
    return [Condition.parse(text) for text in where]


def _shown_hit(hit: Hit) -> dict[str, Any]:
    return shown(hit.row) | {"rank": hit.rank, "score": hit.score, "why": list(hit.why)}


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


def _about(searcher: Searcher) -> dict[str, Any]:
    """Describe the index, for the page before the first search."""
    record, rows = searcher.index.record, searcher.index.rows
    duration = pc.min_max(rows["duration"]).as_py() if "duration" in rows.schema.names else {"min": None, "max": None}
    return {
        "corpus": Path(record.corpus).name,
        "version": record.version,
        "model": Path(record.model).name,
        "status": record.model_status.sentence() if record.model_status else "",
        "warning": record.model_status.warning() if record.model_status else "",
        "by": {"default": searcher.default, "ways": get_args(By)},
        "clips": record.clips,
        "captions": record.captions,
        "facets": [facet for name in FACETS if (facet := _facet(rows, name)) is not None],
        "duration": duration,
        "columns": columns(rows),
        "examples": _examples(searcher.index.captions.to_pylist()),
        "largest": MAX_RECORDING_BYTES,
    }


def _facet(rows: pa.Table, name: str) -> dict[str, Any] | None:
    """Count a column's values, the most frequent first; None if all clips have the same one."""
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
    """Choose some captions that are short enough for a button; the same ones at every start."""
    short = sorted({caption for caption in captions if 25 <= len(caption) <= 80 and "<" not in caption}, key=len)
    chosen = np.random.default_rng(0).permutation(len(short))[:EXAMPLES]
    return [short[at].rstrip(".") for at in sorted(chosen)]
