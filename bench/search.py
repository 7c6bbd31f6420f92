"""How fast the search is, what it finds of what an exact search finds, and what an index costs.

    python -m bench.search [--sizes 10000 100000 500000 1000000] [--queries 200] [--json FILE]

Vectors of the model's width: without structure (random), and in clusters as those of a corpus are.
Each way to search runs in a process of its own, one query at a time, k = 10:

    numpy       argpartition of vectors @ query, the plain way
    exact       `fsclap.retrieval.nearest.nearest`, for small indexes
    half        `fsclap.retrieval.nearest.Halved`, then exact, for up to a million clips
    faiss       `fsclap.retrieval.approximate`, for larger ones: IVF over 8-bit codes, then exact
    usearch     HNSW over 8-bit codes, then exact        (pip install usearch, to compare)
    lancedb     IVF over product-quantised vectors, then exact        (pip install lancedb, to compare)

Then, for the size that --whole names, a whole search with the embedded model: text encoder, vectors,
rows. It has one thread, as each request to the page has.
"""

import importlib
import importlib.util
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench import report
from fsclap.model.settings import ModelSettings

WIDTH = ModelSettings().embedding
TOP = 10
KINDS = ("random", "clusters")
RANK, A_CLUSTER = 32, 100
"""Dimensions that clusters lie in, as a trained model's vectors do, and vectors in one."""
STYLES = [
    f"pitch={pitch};speaking_rate={pace};energy={energy}"
    for pitch in ("very low", "low", "medium", "high", "very high")
    for pace in ("very slow", "slow", "fast", "very fast")
    for energy in ("hushed", "soft", "loud")
]
"""Styles of the clips of a whole search."""
WITHIN, MISSED = 0.5, 0.7
"""Distance of a vector from the centre of its cluster, and of a query from that of its target."""

Search = Callable[[np.ndarray], np.ndarray]


def make_vectors(kind: str, count: int, queries: int, folder: Path, seed: int = 0) -> None:
    """Write vectors.npy (count, WIDTH) and queries.npy (queries, WIDTH), rows of unit norm."""
    rng = np.random.default_rng(seed)
    centres = np.zeros((1, WIDTH), np.float32)
    if kind == "clusters":
        basis = rng.standard_normal((RANK, WIDTH))
        centres = unit(rng.standard_normal((max(1, count // A_CLUSTER), RANK)) @ basis)
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", mode="w+", dtype=np.float32, shape=(count, WIDTH))
    for start in range(0, count, 50_000):
        rows = min(50_000, count - start)
        noise = WITHIN * rng.standard_normal((rows, WIDTH), dtype=np.float32) / np.sqrt(WIDTH)
        vectors[start : start + rows] = unit(centres[rng.integers(len(centres), size=rows)] + noise)
    vectors.flush()
    noise = MISSED * rng.standard_normal((queries, WIDTH)) / np.sqrt(WIDTH)
    np.save(folder / "queries.npy", unit(centres[rng.integers(len(centres), size=queries)] + noise))


def unit(rows: np.ndarray) -> np.ndarray:
    found: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return found


def plain(vectors: np.ndarray, folder: Path) -> Search:
    def search(query: np.ndarray) -> np.ndarray:
        scores = vectors @ query
        rows = np.argpartition(-scores, TOP)[:TOP]
        found: np.ndarray = rows[np.argsort(-scores[rows])]
        return found

    return search


def exact(vectors: np.ndarray, folder: Path) -> Search:
    from fsclap.retrieval.nearest import nearest

    return lambda query: nearest(vectors, query, TOP)[0]


def halved(vectors: np.ndarray, folder: Path) -> Search:
    from fsclap.retrieval.nearest import Halved, nearest

    np.save(folder / "index.npy", vectors.astype(np.float16))
    half = Halved(np.load(folder / "index.npy", mmap_mode="r"))

    def search(query: np.ndarray) -> np.ndarray:
        likely = half.candidates(query, TOP)
        found: np.ndarray = likely[nearest(vectors[likely], query, TOP)[0]]
        return found

    return search


def with_faiss(vectors: np.ndarray, folder: Path) -> Search:
    from fsclap.retrieval import approximate
    from fsclap.retrieval.nearest import nearest

    approximate.build(vectors, folder / "index")
    index = approximate.load(folder / "index")

    def search(query: np.ndarray) -> np.ndarray:
        likely = approximate.candidates(index, query, 100)
        found: np.ndarray = likely[nearest(vectors[likely], query, TOP)[0]]
        return found

    return search


def with_usearch(vectors: np.ndarray, folder: Path) -> Search:
    import usearch.index

    index = usearch.index.Index(ndim=WIDTH, metric="ip", dtype="i8")
    index.add(np.arange(len(vectors)), vectors)
    index.save(str(folder / "index"))
    index = usearch.index.Index.restore(str(folder / "index"), view=True)
    index.expansion_search = 256

    def search(query: np.ndarray) -> np.ndarray:
        likely = index.search(query, 100).keys.astype(np.int64)
        found: np.ndarray = likely[np.argsort(-(vectors[likely] @ query))[:TOP]]
        return found

    return search


def with_lancedb(vectors: np.ndarray, folder: Path) -> Search:
    import lancedb

    values = pa.array(np.asarray(vectors).reshape(-1))
    rows = pa.table({"id": np.arange(len(vectors)), "vector": pa.FixedSizeListArray.from_arrays(values, WIDTH)})
    table = lancedb.connect(folder / "index").create_table("clips", rows)
    table.create_index(metric="dot", vector_column_name="vector", index_type="IVF_PQ")

    def search(query: np.ndarray) -> np.ndarray:
        asked = table.search(query, vector_column_name="vector").metric("dot").nprobes(64).refine_factor(10)
        return np.array(asked.limit(TOP).select(["id"]).to_arrow()["id"])

    return search


WAYS = {
    "numpy": plain,
    "exact": exact,
    "half": halved,
    "faiss": with_faiss,
    "usearch": with_usearch,
    "lancedb": with_lancedb,
}

IMPORTS = {
    "numpy": [],
    "exact": ["fsclap.retrieval.search"],
    "half": ["fsclap.retrieval.search"],
    "faiss": ["fsclap.retrieval.search"],
    "usearch": ["usearch.index"],
    "lancedb": ["lancedb"],
}
"""What takes time to load and is no part of building."""


def timed(way: str, folder: Path) -> dict[str, Any]:
    """Build and ask, in this process alone."""
    for module in IMPORTS[way]:
        importlib.import_module(module)
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    queries = np.load(folder / "queries.npy")
    before = usage()
    started = time.perf_counter()
    search = WAYS[way](vectors, folder)
    build = time.perf_counter() - started
    seconds, found = [], []
    for query in [queries[0], *queries]:  # the first reads the files
        started = time.perf_counter()
        rows = search(query)
        seconds.append(time.perf_counter() - started)
        found.append(rows.tolist())
    return {
        "build_s": round(build, 1),
        "p50_ms": 1e3 * float(np.percentile(seconds[1:], 50)),
        "p99_ms": 1e3 * float(np.percentile(seconds[1:], 99)),
        "memory_mib": usage() - before,
        "disk_mib": size(folder / "index") / 2**20,
        "found": found[1:],
    }


def usage() -> float:
    """Highest resident memory of this process so far, in MiB, with parts of mapped files."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def size(path: Path) -> int:
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path] * path.exists()
    return sum(file.stat().st_size for file in files)


def whole(count: int, queries: int, folder: Path) -> dict[str, Any]:
    """Time whole searches of `count` clips, from text to rows, with the embedded encoders, by model and by words."""
    import torch

    from fsclap.model.systems.fs_clap import FSCLAP
    from fsclap.retrieval.index import Index, Record
    from fsclap.retrieval.search import Searcher

    torch.set_num_threads(1)  # as the page does
    make_vectors("clusters", count, 1, folder)
    rows = pa.table(
        {
            "utterance_id": [f"{number:016x}-00000" for number in range(count)],
            "caption": pa.array(["A low voice, speaking slowly, with long pauses."] * count).dictionary_encode(),
            "duration": np.random.default_rng(0).uniform(1, 10, count),
            "style_key": pa.array(STYLES).take(pa.array(np.random.default_rng(1).integers(len(STYLES), size=count))),
        }
    )
    record = Record(
        corpus="", table="", version=0, model="", weights="", build="", embedding=WIDTH, clips=count, captions=0,
        left_out={}, date="",
    )  # fmt: skip
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    none = pa.chunked_array([pa.array([], pa.string())])
    np.save(folder / "half.npy", vectors.astype(np.float16))
    half = np.load(folder / "half.npy", mmap_mode="r")
    index = Index(folder, record, vectors, rows, vectors[:0], none, None, half)
    searcher = Searcher(index, FSCLAP(ModelSettings()).eval())
    paces, pitches = ("slowly", "fast", "haltingly", "evenly"), ("low", "high", "hoarse", "bright", "breathy")
    asked = [
        f"a {pitch} voice, speaking {pace}, sentence {n}" for n in range(999) for pitch in pitches for pace in paces
    ]
    searcher.search(asked[0], top=TOP, by="both")  # reads the files
    found: dict[str, Any] = {"clips": count}
    for by in ("model", "words"):
        seconds = []
        for query in asked[:queries]:
            started = time.perf_counter()
            searcher.search(query, top=TOP, by=by)  # type: ignore[arg-type]
            seconds.append(time.perf_counter() - started)
        found[by] = {f"p{share}_ms": 1e3 * float(np.percentile(seconds, share)) for share in (50, 99)}
        asked = asked[queries:]
    return found


def apart(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Call a function in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def measure(sizes: Sequence[int], queries: int, ways: Sequence[str], kinds: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    for kind in kinds:
        for count in sizes:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                make_vectors(kind, count, queries, folder)
                rows = []
                for way in ways:
                    rows.append({"kind": kind, "clips": count, "way": way} | apart(timed, way, folder))
                    for path in folder.glob("index*"):
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                truth = [set(ids) for ids in rows[0].pop("found")]
                rows[0]["recall"] = 1.0
                for row in rows[1:]:
                    hits = zip(truth, row.pop("found"), strict=True)
                    row["recall"] = sum(len(true & set(ids)) for true, ids in hits) / (TOP * queries)
                for row in rows:
                    row["to_numpy"] = row["p50_ms"] / rows[0]["p50_ms"]
                    print(line(row), flush=True)
                found += rows
    return found


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['kind']:9} {row['clips']:9,d} {row['way']:8} build {row['build_s']:7.1f} s  "
        f"p50 {row['p50_ms']:7.2f} ms  p99 {row['p99_ms']:7.2f} ms  of numpy {row['to_numpy']:5.2f}  "
        f"recall {row['recall']:.3f}  memory {row['memory_mib']:6.0f} MiB  disk {row['disk_mib']:6.0f} MiB"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.search", __doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 500_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="the first is the truth")
    parser.add_argument("--whole", type=int, default=500_000, help="clips of the whole search (default: %(default)s)")
    options = parser.parse_args(arguments)
    installed = [way for way in options.ways if way in ("numpy", "exact", "half") or importlib.util.find_spec(way)]
    for way in sorted(set(options.ways) - set(installed)):
        print(f"{way} is not installed, so it is not compared")
    rows = measure(options.sizes, options.queries, installed, options.kinds)
    with tempfile.TemporaryDirectory() as folder:
        end_to_end = apart(whole, options.whole, options.queries, Path(folder))
    for by in ("model", "words"):
        print(
            f"a whole search of {end_to_end['clips']:,} clips by {by}: "
            f"p50 {end_to_end[by]['p50_ms']:.1f} ms, p99 {end_to_end[by]['p99_ms']:.1f} ms"
        )
    report.write(options.json, {"search": rows, "whole": end_to_end})


if __name__ == "__main__":
    main()
