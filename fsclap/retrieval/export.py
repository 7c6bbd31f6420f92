"""What was found, to be handed on: clips with their words and descriptions, as style prompts for a TTS."""

import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fsclap.retrieval.index import SearchError
from fsclap.retrieval.search import Hit, Sound

PROMPTS = "prompts.jsonl"
PLAYLIST = "found.m3u8"
_CLIPS_AT_A_TIME = 64
_LONGEST_NAME = 120
_MARK = {"huggingface": json.dumps({"info": {"features": {"audio": {"_type": "Audio"}}}})}
"""By which `datasets` knows the audio."""


def export_hits(hits: Sequence[Hit], sound: Sound, destination: Path, *, query: str) -> Path:
    """Write clips that were found, best first, in the form that the destination's suffix names.

        found            a folder: 01-<utterance id>.flac ..., prompts.jsonl, found.m3u8
        found.zip        the same, in one file
        found.m3u[8]     a playlist, with the clips and prompts.jsonl in the folder found/ beside it
        found.parquet    a row a clip: all that the corpus says of it, rank, score and sound

    A line of prompts.jsonl has what zero-shot TTS wants of a prompt, the sound and its words, and how it was found.

    Args:
        sound: Where the clips are heard.
        destination: A path that does not exist yet. It appears whole or not at all.
        query: What was asked, for the record.

    Returns:
        The destination.

    Raises:
        SearchError: The destination exists, has another suffix, or its folder does not exist; there is no clip; or a
            clip cannot be had.
    """
    writers: dict[str, Callable[[Sequence[Hit], Sound, Path, str], None]] = {
        "": _folder, ".zip": _zip, ".m3u": _playlist, ".m3u8": _playlist, ".parquet": _parquet,
    }  # fmt: skip
    write = writers.get(destination.suffix.lower())
    if write is None:
        raise SearchError(
            f"{destination}: what is found can be written to a folder (no suffix), .zip, .m3u, .m3u8 or .parquet, "
            f"not to {destination.suffix}"
        )
    if not hits:
        raise SearchError(f"nothing was found, so there is nothing to write to {destination}")
    if not destination.parent.is_dir():
        raise SearchError(f"{destination.parent} does not exist: make it, or name another folder")
    _require_new(destination)
    write(hits, sound, destination, query)
    return destination


def _require_new(path: Path) -> None:
    if path.exists():
        raise SearchError(f"{path} exists: name another destination, or remove it first")


def _folder(hits: Sequence[Hit], sound: Sound, destination: Path, query: str) -> None:
    with _aside(destination) as aside:
        aside.mkdir()
        for name, content in _files(hits, sound, query):
            (aside / name).write_bytes(content)
        (aside / PLAYLIST).write_text(_m3u(hits, query, prefix=""), encoding="utf-8")


def _zip(hits: Sequence[Hit], sound: Sound, destination: Path, query: str) -> None:
    with _aside(destination) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        for name, content in _files(hits, sound, query):  # FLAC does not compress further
            archive.writestr(f"{destination.stem}/{name}", content)
        archive.writestr(f"{destination.stem}/{PLAYLIST}", _m3u(hits, query, prefix=""))


def _playlist(hits: Sequence[Hit], sound: Sound, destination: Path, query: str) -> None:
    clips = destination.with_suffix("")
    _require_new(clips)
    with _aside(destination) as aside, _aside(clips) as folder:
        folder.mkdir()
        for name, content in _files(hits, sound, query):
            (folder / name).write_bytes(content)
        # "./", for a folder whose name begins with # would be a comment.
        aside.write_text(_m3u(hits, query, prefix=f"./{clips.name}/"), encoding="utf-8")


def _parquet(hits: Sequence[Hit], sound: Sound, destination: Path, query: str) -> None:
    rows = [hit.row | {"rank": hit.rank, "score": hit.score, "match": hit.match, "query": query} for hit in hits]
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.Table.from_pylist(rows).schema.append(pa.field("audio", audio)).with_metadata(_MARK)
    heard = ({"audio": {"path": name, "bytes": flac}} for name, flac in _heard(hits, sound))
    with _aside(destination) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        for start in range(0, len(rows), _CLIPS_AT_A_TIME):
            part = [row | next(heard) for row in rows[start : start + _CLIPS_AT_A_TIME]]
            writer.write_table(pa.Table.from_pylist(part, schema=schema))


def _files(hits: Sequence[Hit], sound: Sound, query: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each clip's file, and of the one that says what they are."""
    prompts = []
    for hit, (name, flac) in zip(hits, _heard(hits, sound), strict=True):
        yield name, flac
        prompts.append(json.dumps(_prompt(hit, name, query), ensure_ascii=False) + "\n")
    yield PROMPTS, "".join(prompts).encode()


def _prompt(hit: Hit, name: str, query: str) -> dict[str, Any]:
    described = ("text", "caption", "emotion", "speaker", "language", "duration")
    placed = ("utterance_id", "url", "start", "end")
    return {
        "audio": name,
        **{column: hit.row.get(column) for column in described},
        "query": query,
        "rank": hit.rank,
        "score": hit.score,
        "match": hit.match,
        **{column: hit.row.get(column) for column in placed},
    }


def _m3u(hits: Sequence[Hit], query: str, *, prefix: str) -> str:
    lines = ["#EXTM3U", "#EXTENC:UTF-8", f"#PLAYLIST:{_one_line(query)}"]
    for number, hit in enumerate(hits, start=1):
        lines.append(f"#EXTINF:{hit.row['duration']:.3f},{_one_line(hit.caption)}")
        lines.append(prefix + _name(number, len(hits), hit))
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _heard(hits: Sequence[Hit], sound: Sound) -> Iterator[tuple[str, bytes]]:
    """File name and FLAC file of each clip, in the order of the hits."""
    for start in range(0, len(hits), _CLIPS_AT_A_TIME):
        some = hits[start : start + _CLIPS_AT_A_TIME]
        flacs = dict(sound([hit.utterance_id for hit in some]))
        for number, hit in enumerate(some, start=start + 1):
            if hit.utterance_id not in flacs:
                raise SearchError(f"the corpus has no sound of {hit.utterance_id}; build the index again")
            yield _name(number, len(hits), hit), flacs[hit.utterance_id]


def _name(number: int, count: int, hit: Hit) -> str:
    """Unique by its number; of the id, what every file system takes."""
    kept = re.sub(r"[^A-Za-z0-9._-]", "_", hit.utterance_id)[:_LONGEST_NAME]
    return f"{number:0{max(2, len(str(count)))}d}-{kept}.flac"


@contextmanager
def _aside(destination: Path) -> Iterator[Path]:
    """A path beside a destination, for a file or a folder, which takes its place when all went well."""
    path = destination.with_name(f".{destination.name}.{os.getpid()}.part")
    try:
        yield path
        _require_new(destination)
        path.rename(destination)
    finally:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
