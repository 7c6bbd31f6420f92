"""Export search results: clips with their words and descriptions, as style prompts for a TTS."""

import json
import math
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

from fsclap.retrieval.hits import Hit, Sound
from fsclap.retrieval.index import SearchError

PROMPTS = "prompts.jsonl"
PLAYLIST = "found.m3u8"
_CLIPS_AT_A_TIME = 64
_LONGEST_NAME = 120
# By this metadata `datasets` recognizes the audio.
_MARK = {"huggingface": json.dumps({"info": {"features": {"audio": {"_type": "Audio"}}}})}


def export_hits(hits: Sequence[Hit], sound: Sound, destination: Path, *, query: str) -> Path:
    """Write search results, best first, in the format that the destination's suffix names.

        found            a folder: 01-<utterance id>.flac ..., prompts.jsonl, found.m3u8
        found.zip        the same, in one file
        found.m3u[8]     a playlist; the clips and prompts.jsonl are in the folder found/
        found.parquet    one row per clip: its corpus row, rank, score and sound

    A line of prompts.jsonl has what zero-shot TTS needs of a prompt, its sound and words, and
    how the search ranked it.

    Args:
        hits: Results of a search.
        sound: Reads the clips of the corpus.
        destination: A path that does not exist yet. It appears complete or not at all.
        query: The query, for the record.

    Returns:
        The destination.

    Raises:
        SearchError: The destination exists, has another suffix, or its folder does not exist;
            there are no results; or the corpus lacks a clip.
    """
    writers: dict[str, Callable[[Sequence[Hit], Sound, Path, str], None]] = {
        "": _folder, ".zip": _zip, ".m3u": _playlist, ".m3u8": _playlist, ".parquet": _parquet,
    }  # fmt: skip
    write = writers.get(destination.suffix.lower())
    if write is None:
        raise SearchError(
            f"{destination}: clips can be exported to a folder (no suffix), .zip, .m3u, .m3u8 or .parquet, "
            f"not to {destination.suffix}"
        )
    if not hits:
        raise SearchError(f"there are no clips to export to {destination}")
    if not destination.parent.is_dir():
        raise SearchError(f"{destination.parent} does not exist: create it, or name another folder")
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
        # With "./", because a line that begins with # would be a comment.
        aside.write_text(_m3u(hits, query, prefix=f"./{clips.name}/"), encoding="utf-8")


def _parquet(hits: Sequence[Hit], sound: Sound, destination: Path, query: str) -> None:
    rows = [hit.row | {"rank": hit.rank, "score": hit.score, "match": hit.match, "query": query} for hit in hits]
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.Table.from_pylist(rows).schema.append(pa.field("audio", audio)).with_metadata(_MARK)
    clips = ({"audio": {"path": name, "bytes": flac}} for name, flac in _clips(hits, sound))
    with _aside(destination) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        for start in range(0, len(rows), _CLIPS_AT_A_TIME):
            part = [row | next(clips) for row in rows[start : start + _CLIPS_AT_A_TIME]]
            writer.write_table(pa.Table.from_pylist(part, schema=schema))


def _files(hits: Sequence[Hit], sound: Sound, query: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each clip's file, then of prompts.jsonl."""
    prompts = []
    for hit, (name, flac) in zip(hits, _clips(hits, sound), strict=True):
        yield name, flac
        prompts.append(json.dumps(_prompt(hit, name, query), ensure_ascii=False) + "\n")
    yield PROMPTS, "".join(prompts).encode()


def _prompt(hit: Hit, name: str, query: str) -> dict[str, Any]:
    described_by = ("text", "caption", "emotion", "speaker", "language", "duration")
    origin = ("utterance_id", "url", "start", "end")
    return {
        "audio": name,
        **{column: hit.row.get(column) for column in described_by},
        "query": query,
        "rank": hit.rank,
        "score": hit.score if math.isfinite(hit.score) else None,
        "match": hit.match,
        **{column: hit.row.get(column) for column in origin},
    }


def _m3u(hits: Sequence[Hit], query: str, *, prefix: str) -> str:
    lines = ["#EXTM3U", "#EXTENC:UTF-8", f"#PLAYLIST:{_one_line(query)}"]
    for number, hit in enumerate(hits, start=1):
        lines.append(f"#EXTINF:{hit.row['duration']:.3f},{_one_line(hit.caption)}")
        lines.append(prefix + _name(number, len(hits), hit))
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _clips(hits: Sequence[Hit], sound: Sound) -> Iterator[tuple[str, bytes]]:
    """Yield file name and FLAC file of each clip, in the order of the hits."""
    for start in range(0, len(hits), _CLIPS_AT_A_TIME):
        batch = hits[start : start + _CLIPS_AT_A_TIME]
        flacs = dict(sound([hit.utterance_id for hit in batch]))
        for number, hit in enumerate(batch, start=start + 1):
            if hit.utterance_id not in flacs:
                raise SearchError(
                    f"the corpus has no sound for {hit.utterance_id}; build the index again: fsclap index build"
                )
            yield _name(number, len(hits), hit), flacs[hit.utterance_id]


def _name(number: int, count: int, hit: Hit) -> str:
    """Numbered, so unique; the id is reduced to portable file-name characters."""
    portable = re.sub(r"[^A-Za-z0-9._-]", "_", hit.utterance_id)[:_LONGEST_NAME]
    return f"{number:0{max(2, len(str(count)))}d}-{portable}.flac"


@contextmanager
def _aside(destination: Path) -> Iterator[Path]:
    """Yield a path for a new file or folder, renamed to the destination if the block succeeds.

    Unlike `fsclap.files.written_aside`, it also serves folders, and never replaces anything.
    """
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
