"""Serve the sound of clips to a browser, whole or in ranges, and the outline of its waveform."""

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
from fsclap.retrieval.hits import Sound
from fsclap.retrieval.index import SearchError
from fsclap.retrieval.search import Searcher

PEAKS = 96
"""Bars of a waveform."""
KEPT = 64
"""FLAC files that stay in memory, about 10 MB: a browser requests one several times in a row."""
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def routes(searcher: Searcher, sound: Sound) -> APIRouter:
    router = APIRouter(prefix="/api/clips/{utterance_id}")
    build = searcher.index.record.build

    @lru_cache(KEPT)
    def flac(utterance_id: str) -> bytes:
        row_of(searcher, utterance_id)
        return dict(sound([utterance_id]))[utterance_id]

    def etag(utterance_id: str) -> str:
        return f'"{hashlib.sha256(f"{build}/{utterance_id}".encode()).hexdigest()[:16]}"'

    @router.get("/audio")
    def audio(utterance_id: str, request: Request) -> Response:
        data, tag = flac(utterance_id), etag(utterance_id)
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={"ETag": tag})
        range_header = request.headers.get("range")
        if request.headers.get("if-range", tag) != tag:
            range_header = None
        return ranged(data, range_header, media_type="audio/flac", headers={"ETag": tag})

    @router.get("/peaks")
    def outline(utterance_id: str, request: Request) -> Response:
        tag = etag(utterance_id)
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={"ETag": tag})
        try:
            wave, rate = decode_flac(flac(utterance_id))
        except ValueError as error:
            raise SearchError(f"clip {utterance_id} can't be decoded: {error}") from error
        return JSONResponse({"duration": len(wave) / rate, "peaks": peaks(wave, PEAKS)}, headers={"ETag": tag})

    return router


def row_of(searcher: Searcher, utterance_id: str) -> dict[str, Any]:
    """Look up the corpus row of a clip.

    Raises:
        HTTPException: 404; the index has no such clip.
    """
    try:
        return searcher.row(utterance_id)
    except SearchError as error:
        raise HTTPException(404, str(error)) from error


def peaks(wave: np.ndarray, count: int) -> list[float]:
    """Reduce a wave, (samples,), to the peaks of `count` stretches, the highest scaled to 1."""
    stretches: Sequence[np.ndarray] = np.array_split(np.abs(wave), count)
    heights = np.array([stretch.max() if len(stretch) else 0.0 for stretch in stretches])
    return [round(float(height), 3) for height in heights / (heights.max() or 1.0)]


def ranged(data: bytes, range_header: str | None, *, media_type: str, headers: dict[str, str]) -> Response:
    """Answer with the part of `data` that a Range header names, with all of it for several parts.

    Args:
        data: The whole file.
        range_header: Value of the Range header; None or unreadable: all of `data`.
        media_type: Content type of the answer.
        headers: Further headers of the answer.

    Raises:
        HTTPException: 416; the range lies outside `data`.
    """
    headers = {"Accept-Ranges": "bytes", **headers}
    match = _RANGE.fullmatch(range_header.strip()) if range_header is not None else None
    if match is None or match.groups() == ("", ""):
        return Response(data, media_type=media_type, headers=headers)
    first, last = match.groups()
    if first:
        start, end = int(first), min(int(last or len(data)), len(data) - 1)
    else:
        start, end = max(0, len(data) - int(last)), len(data) - 1  # a suffix: so many bytes from the end
    if not 0 <= start <= end:
        headers["Content-Range"] = f"bytes */{len(data)}"
        raise HTTPException(416, f"the clip has {len(data)} bytes; {range_header} lies outside", headers=headers)
    headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
    return Response(data[start : end + 1], 206, media_type=media_type, headers=headers)
