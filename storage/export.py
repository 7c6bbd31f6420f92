"""Exports a corpus as a clean folder of Parquet files, without logs and replaced shards."""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.captions import copy_captions
from storage.card import write_card
from storage.corpus import Corpus
from storage.judgements import JUDGEMENTS, Judgements
from storage.rights import STATED, read_rights, with_rights
from storage.rows import CorpusError
from storage.schema import UTTERANCE

log = logging.getLogger(__name__)

EXPORTED = pa.schema([*UTTERANCE, *STATED])
"""Columns of the utterances in an export."""
_GROUP_ROWS = 256
_SHARD_BYTES = 500_000_000
_FEATURES = {"audio": {"_type": "Audio"}}


def export(
    corpus: Corpus,
    destination: Path,
    *,
    title: str,
    settings: Mapping[str, Any],
    threshold: float | None,
    shard_bytes: int = _SHARD_BYTES,
) -> list[Path]:
    """Write the current version to a new folder, each row with what is stated of its source (`storage.rights`).

    The folder has utterances/*.parquet, rejects/, sources/, speakers/ and the card.

    Judgements are included, with the names of the judges, and all captions of clips that have several.
    Utterances are in the order of their ids, with metadata that lets `datasets` recognize the audio
    without the card. The folder appears as a whole.

    Args:
        corpus: The corpus to export, without the sources that are to stay out (`storage.rights.selected`).
        destination: A folder that does not exist yet.
        title: For the card, see `write_card`.
        settings: For the card.
        threshold: For the card.
        shard_bytes: Size in memory at which a file is closed and the next one is started.

    Returns:
        The Parquet files.

    Raises:
        CorpusError: The destination exists, or the corpus has no utterances.
    """
    with new_folder(corpus, destination) as partial:
        files = [*_write_utterances(corpus, partial / "utterances", shard_bytes=shard_bytes)]
        files += [_write_table(corpus, name, partial / name) for name in ("rejects", "sources", "speakers")]
        files += _write_judgements(corpus, partial)
        files += copy_captions(corpus, partial)
        data_files = {name: [f"{name}/*.parquet"] for name in ("utterances", "rejects")}
        write_card(
            corpus, title=title, settings=settings, threshold=threshold, folder=partial, data_files=data_files,
            schema=EXPORTED,
        )  # fmt: skip
    return [destination / file.relative_to(partial) for file in files]


@contextmanager
def new_folder(corpus: Corpus, destination: Path) -> Iterator[Path]:
    """Yield a folder for an export, which becomes the destination when the block ends well.

    Raises:
        CorpusError: The destination exists, or the corpus has no utterances.
    """
    if destination.exists():
        raise CorpusError(f"{destination} exists: give a new folder, or remove it first")
    if not corpus.shards():
        raise CorpusError(f"the corpus at {corpus.location} has no utterances to export")
    partial = destination.with_name(f".{destination.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(destination)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    log.info("exported version %d of %s to %s", corpus.version(), corpus.location, destination)


def _write_utterances(corpus: Corpus, folder: Path, *, shard_bytes: int) -> Iterator[Path]:
    folder.mkdir(parents=True)
    tables = map(_with_audio_feature, ordered_tables(corpus))
    table = next(tables, None)
    while table is not None:
        path = folder / f"train-{len(list(folder.iterdir())):05d}.parquet"
        written = 0
        with pq.ParquetWriter(path, table.schema, compression="zstd", compression_level=1) as writer:
            while table is not None and written < shard_bytes:
                writer.write_table(table, row_group_size=_GROUP_ROWS)
                written += table.nbytes
                table = next(tables, None)
        yield path


def ordered_tables(corpus: Corpus) -> Iterator[pa.Table]:
    """Yield the utterances as they are exported, in the order of their ids, one stored shard in memory at a time."""
    rights = read_rights(corpus)
    fragments = list(Corpus(corpus.location).dataset().get_fragments())  # Arrow has none of a filtered dataset
    firsts = [pc.min(part.to_table(columns=["utterance_id"])["utterance_id"]).as_py() for part in fragments]
    for _, index in sorted(zip(firsts, range(len(fragments)), strict=True)):
        table = fragments[index].to_table(schema=UTTERANCE)
        stays = [source_id not in corpus.without for source_id in table["source_id"].to_pylist()]
        if any(stays):
            yield with_rights(table.filter(pa.array(stays, pa.bool_())).sort_by("utterance_id"), rights)


def _with_audio_feature(table: pa.Table) -> pa.Table:
    """Add the metadata by which `datasets` recognizes the audio, in a nullable field only."""
    audio = EXPORTED.get_field_index("audio")
    schema = EXPORTED.set(audio, EXPORTED.field(audio).with_nullable(True))
    return table.cast(schema.with_metadata({"huggingface": json.dumps({"info": {"features": _FEATURES}})}))


def _write_judgements(corpus: Corpus, folder: Path) -> Iterator[Path]:
    table = Judgements(corpus.location).table()
    stays = [clip.rsplit("-", 1)[0] not in corpus.without for clip in table["utterance_id"].to_pylist()]
    table = table.filter(pa.array(stays, pa.bool_()))
    if len(table):
        path = folder / JUDGEMENTS
        pq.write_table(table, path, compression="zstd")
        yield path


def _write_table(corpus: Corpus, name: str, folder: Path) -> Path:
    folder.mkdir(parents=True)
    path = folder / f"{name}.parquet"
    table = getattr(corpus, name)()
    if name == "sources":
        table = with_rights(table, read_rights(corpus))
    pq.write_table(table, path, compression="zstd")
    return path
