"""A map of the clips: clips that sound alike to the model lie close together.

    python -m fsclap.retrieval.map data/corpus-index

makes it ahead of time. Otherwise the page makes it, in a process of its own, when somebody first
opens it. It is kept for each build: `{folder}/{build}/map.npy`, (clips, 2) float32 in [0, 1].
"""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from fsclap.files import locked, written_aside
from fsclap.retrieval.filters import columns
from fsclap.retrieval.index import Index, SearchError

MOST = 100_000
"""Clips on a map; a larger corpus gets a random sample."""
LAID_OUT = 20_000
"""Clips that UMAP lays out; each other clip lies among the ones that it sounds most like."""
NEIGHBOURS = 3
_AT_A_TIME = 2048
NAMED = 6
"""Values of a column that get a colour of their own: everybody can tell this many colours apart."""
CATEGORIES = ("emotion", "series", "speaker", "language")


def make_map(index: Index) -> None:
    """Compute the map of an index, unless it exists. Of several processes, one works."""
    file = _file(index)
    with locked(file.parent):
        if file.is_file():
            return
        from fsclap.evaluation.plots import umap_2d  # here, because the page needs no plots

        places = _placed(np.asarray(index.vectors[sample(index)]), lambda vectors: umap_2d(vectors, seed=0)[0])
        places -= places.min(axis=0)
        places /= places.max() or 1.0
        with written_aside(file) as aside, aside.open("wb") as sink:
            np.save(sink, places.astype(np.float32))


def _placed(vectors: np.ndarray, lay_out: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Lay out (clips, embedding) unit rows: (clips, 2), a random LAID_OUT of them by `lay_out`."""
    rng = np.random.default_rng(0)
    first = np.sort(rng.permutation(len(vectors))[:LAID_OUT])
    known = np.asarray(lay_out(vectors[first]))
    places = np.zeros((len(vectors), 2))
    places[first] = known
    others = np.setdiff1d(np.arange(len(vectors)), first)
    for rows in np.array_split(others, max(1, len(others) // _AT_A_TIME)):
        near = np.argpartition(-(vectors[rows] @ vectors[first].T), NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        shares = rng.dirichlet(np.ones(NEIGHBOURS), size=len(rows))  # apart, so that no two lie on each other
        places[rows] = np.einsum("rn,rnd->rd", shares, known[near])
    return places


def sample(index: Index) -> np.ndarray:
    """Choose the rows on the map, (places,), ascending; the same ones each time."""
    count = len(index.rows)
    return np.sort(np.random.default_rng(0).permutation(count)[:MOST])


class CorpusMap:
    """The map of an index, made on first use."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: IO[bytes] | None = None

    def places(self) -> np.ndarray | None:
        """Read the map, (places, 2) float32 in [0, 1], for the rows of `sample`; None if not yet made.

        Raises:
            SearchError: There are too few clips, or making the map failed; the next call retries.
        """
        if len(self.index.rows) < 2:
            raise SearchError("a map needs at least two clips: build an index of a larger corpus")
        with self._lock:
            if _file(self.index).is_file():
                return np.asarray(np.load(_file(self.index)))
            if self._process is None:
                self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process runs)
                command = [sys.executable, "-m", "fsclap.retrieval.map", str(self.index.folder)]
                self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self._messages)
            elif self._process.poll() is not None:
                raise SearchError(
                    f"the map could not be made: {self._ended()}. Build the index again: fsclap index build"
                )
            return None

    def stop(self) -> None:
        """Stop a computation that is running."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def _ended(self) -> str:
        assert self._messages is not None
        self._process = None
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "the process was killed"


def routes(map_: CorpusMap) -> APIRouter:
    router = APIRouter(prefix="/api/map")
    rows = map_.index.rows
    colours = _colours(rows)

    @router.get("")
    def places() -> Response:
        try:
            points = map_.places()
        except SearchError as error:
            raise HTTPException(503, str(error)) from error
        if points is None:
            return JSONResponse({"state": "making"}, 202)
        return JSONResponse(
            {
                "of": len(rows),
                "ids": rows["utterance_id"].take(pa.array(sample(map_.index))).to_pylist(),
                "x": points[:, 0].astype(float).round(4).tolist(),
                "y": points[:, 1].astype(float).round(4).tolist(),
                "columns": colours,
            }
        )

    @router.get("/values")
    def values(column: str) -> dict[str, Any]:
        if column not in colours:
            raise SearchError(f"the map can't be coloured by {column!r}, only by: {', '.join(colours)}")
        on_map = _column(rows, column).take(pa.array(sample(map_.index)))
        return _named(on_map) if column in CATEGORIES else _measured(on_map)

    return router


def _file(index: Index) -> Path:
    return index.folder / index.record.build / "map.npy"


def _colours(rows: pa.Table) -> list[str]:
    """List the columns that the map can be coloured by."""
    measures = [name for name in columns(rows) if name == "duration" or name.startswith("attributes.")]
    named = [name for name in CATEGORIES if name in rows.schema.names]
    return [name for name in named + measures if _column(rows, name).null_count < len(rows)]


def _column(rows: pa.Table, name: str) -> pa.Array:
    whole, _, part = name.partition(".")
    values = rows[whole].combine_chunks()
    return pc.struct_field(values, part) if part else values


def _named(values: pa.Array) -> dict[str, Any]:
    """Rank the names by frequency, and give each clip the number of its name; -1: it has none."""
    counts = values.drop_null().value_counts().to_pylist()
    names = [count["values"] for count in sorted(counts, key=lambda count: (-count["counts"], count["values"]))]
    numbers = {name: min(number, NAMED) for number, name in enumerate(names)}
    others = max(0, len(names) - NAMED)
    codes = [-1 if value is None else numbers[value] for value in values.to_pylist()]
    return {"names": names[:NAMED] + ["others"] * bool(others), "others": others, "codes": codes}


def _measured(values: pa.Array) -> dict[str, Any]:
    """Return each clip's number, or null, and the range of colours, without a few extremes."""
    numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    finite = numbers[np.isfinite(numbers)]
    low, high = np.percentile(finite, [2, 98]).tolist() if len(finite) else (0.0, 0.0)
    return {"values": [round(n, 4) if np.isfinite(n) else None for n in numbers.tolist()], "low": low, "high": high}


if __name__ == "__main__":
    os.nice(10)  # so that the page keeps answering meanwhile
    make_map(Index.open(sys.argv[1]))
