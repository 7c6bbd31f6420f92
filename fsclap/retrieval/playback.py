"""The sound of clips for a browser: whole or in ranges, and the outline of its waveform."""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from fsclap.audio import decode_flac
from fsclap.retrieval.index import SearchError
from fsclap.retrieval.search import Searcher, Sound

PEAKS = 96
"""Bars of a waveform."""
KEPT = 64
"""Clips whose FLAC files stay in memory, some 10 MB: a browser asks for one clip several times in a row."""
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def routes(searcher: Searcher, sound: Sound) -> APIRouter:
    router = APIRouter(prefix="/api/clips/{utterance_id}")
    build = searcher.index.record.build

    @lru_cache(KEPT)
    def flac(utterance_id: str) -> bytes:
        known(searcher, utterance_id)
        return dict(sound([utterance_id]))[utterance_id]

    def etag(utterance_id: str) -> str:
        return f'"{hashlib.sha256(f"{build}/{utterance_id}".encode()).hexdigest()[:16]}"'

    @router.get("/audio")
    def audio(utterance_id: str, request: Request) -> Response:
        data, tag = flac(utterance_id), etag(utterance_id)
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={"ETag": tag})
        asked = request.headers.get("range")
        if request.headers.get("if-range", tag) != tag:
            asked = None
        return ranged(data, asked, media_type="audio/flac", headers={"ETag": tag})

    @router.get("/peaks")
    def outline(utterance_id: str, request: Request) -> Response:
        tag = etag(utterance_id)
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={"ETag": tag})
        try:
            wave, rate = decode_flac(flac(utterance_id))
        except ValueError as error:
            raise SearchError(f"clip {utterance_id} can't be heard: {error}") from error
        return JSONResponse({"duration": len(wave) / rate, "peaks": peaks(wave, PEAKS)}, headers={"ETag": tag})

    return router


def known(searcher: Searcher, utterance_id: str) -> dict[str, Any]:
    """What the corpus says of a clip.

    Raises:
        HTTPException: 404; the index has no such clip.
    """
    try:
        return searcher.row(utterance_id)
    except SearchError as error:
        raise HTTPException(404, str(error)) from error


def peaks(wave: np.ndarray, count: int) -> list[float]:
    """The highest absolute sample of each of `count` equal stretches of (samples,), 0 to 1, the loudest being 1."""
    stretches: Sequence[np.ndarray] = np.array_split(np.abs(wave), count)
    heights = np.array([stretch.max() if len(stretch) else 0.0 for stretch in stretches])
    return [round(float(height), 3) for height in heights / (heights.max() or 1.0)]


def ranged(data: bytes, asked: str | None, *, media_type: str, headers: dict[str, str]) -> Response:
    """Bytes, or the part that a Range header asks for; several parts are answered with the whole, as HTTP allows."""
    headers = {"Accept-Ranges": "bytes", **headers}
    found = _RANGE.fullmatch(asked.strip()) if asked is not None else None
    if found is None or found.groups() == ("", ""):
        return Response(data, media_type=media_type, headers=headers)
    first, last = found.groups()
    if first:
        start, end = int(first), min(int(last or len(data)), len(data) - 1)
    else:
        start, end = max(0, len(data) - int(last)), len(data) - 1  # the last so many bytes
    if not 0 <= start <= end:
        headers["Content-Range"] = f"bytes */{len(data)}"
        raise HTTPException(416, f"the clip has {len(data)} bytes, not {asked}", headers=headers)
    headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
    return Response(data[start : end + 1], 206, media_type=media_type, headers=headers)
