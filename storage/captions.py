"""All captions of clips that have several, next to the utterances, which have the first of each.

    {corpus}/captions/{source_id}.parquet    utterance_id, caption: one row per caption, in their order

Imports write them.
"""

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage.corpus import Corpus, parquet

FOLDER = "captions"
_SCHEMA = pa.schema([("utterance_id", pa.string()), ("caption", pa.string())])


def write_captions(corpus: Corpus, source_id: str, captions: Mapping[str, Sequence[str]]) -> None:
    """Keep the captions of a source's clips, by utterance id; nothing is kept if each has one."""
    name = f"{FOLDER}/{source_id}.parquet"
    if any(len(several) > 1 for several in captions.values()):
        corpus.place.write(name, parquet(_table(captions)))
    elif corpus.place.exists(name):
        corpus.place.delete(name)  # of an earlier import


def read_captions(corpus: Corpus) -> dict[str, list[str]]:
    """Read the captions of the clips that have several, by utterance id; empty if none has."""
    found: dict[str, list[str]] = {}
    for entry in corpus.place.list(f"{FOLDER}/"):
        content = corpus.place.read(entry.name)
        table = pq.read_table(io.BytesIO(content or b""), schema=_SCHEMA)
        for id_, caption in zip(table["utterance_id"].to_pylist(), table["caption"].to_pylist(), strict=True):
            found.setdefault(id_, []).append(caption)
    return found


def drop_captions(corpus: Corpus, utterance_ids: Set[str]) -> None:
    """Take the captions of clips out."""
    for source_id in {utterance_id.rsplit("-", 1)[0] for utterance_id in utterance_ids}:
        name = f"{FOLDER}/{source_id}.parquet"
        if (content := corpus.place.read(name)) is not None:
            table = pq.read_table(io.BytesIO(content), schema=_SCHEMA)
            stays = [id_ not in utterance_ids for id_ in table["utterance_id"].to_pylist()]
            corpus.place.write(name, parquet(table.filter(pa.array(stays, pa.bool_()))))


def captions_digest(corpus: Corpus) -> str | None:
    """Identify the captions by their files; None if there are none."""
    files = sorted([entry.name, entry.version] for entry in corpus.place.list(f"{FOLDER}/"))
    return hashlib.sha256(repr(files).encode()).hexdigest()[:16] if files else None


def with_captions(batches: Iterable[pa.RecordBatch], captions: Mapping[str, Sequence[str]]) -> Iterable[pa.RecordBatch]:
    """Add the column `captions`, a list per clip, null for a clip that has one caption."""
    for batch in batches:
        several = [captions.get(id_) for id_ in batch["utterance_id"].to_pylist()]
        yield batch.append_column("captions", pa.array(several, type=pa.list_(pa.string())))


def copy_captions(corpus: Corpus, folder: Path) -> list[Path]:
    """Copy the captions into a folder as one file; return it, or nothing if there are none."""
    captions = {
        id_: several for id_, several in read_captions(corpus).items() if id_.rsplit("-", 1)[0] not in corpus.without
    }
    if not captions:
        return []
    path = folder / FOLDER / f"{FOLDER}.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(parquet(_table(captions)))
    return [path]


def _table(captions: Mapping[str, Sequence[str]]) -> pa.Table:
    rows = [{"utterance_id": id_, "caption": caption} for id_, several in captions.items() for caption in several]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)
