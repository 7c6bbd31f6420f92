"""Exports a corpus for other tools: WebDataset tar shards, and lhotse's Shar."""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.corpus import Corpus
from storage.export import new_folder, ordered_tables
from storage.rows import CorpusError

if TYPE_CHECKING:
    from lhotse import MonoCut

_SHARD_BYTES = 500_000_000
_SHARD_CLIPS = 1000
# Columns with a field in lhotse's supervision; the others go into `custom`.
_SUPERVISION = ("utterance_id", "audio", "text", "language", "speaker", "duration")


def export_webdataset(corpus: Corpus, destination: Path, *, shard_bytes: int = _SHARD_BYTES) -> list[Path]:
    """Write the current version as utterances-000000.tar and so on.

    Each utterance is {id}.flac and {id}.json, its row with what is stated of its source.

    Equal versions give equal bytes. The folder appears as a whole.

    Args:
        corpus: The corpus to export.
        destination: A folder that does not exist yet.
        shard_bytes: Size at which a shard is closed and the next one is started.

    Returns:
        The shards.

    Raises:
        CorpusError: The destination exists, or the corpus has no utterances.
    """
    with new_folder(corpus, destination) as folder:
        rows = _rows(corpus)
        row = next(rows, None)
        while row is not None:
            path = folder / f"utterances-{len(list(folder.iterdir())):06d}.tar"
            with tarfile.open(path, "w") as shard:
                while row is not None and shard.offset < shard_bytes:
                    fields = {name: value for name, value in row.items() if name != "audio"}
                    _add(shard, f"{row['utterance_id']}.flac", row["audio"]["bytes"])
                    text = json.dumps(fields, ensure_ascii=False, default=str)  # a date, as ISO 8601
                    _add(shard, f"{row['utterance_id']}.json", text.encode())
                    row = next(rows, None)
    return sorted(destination.iterdir())


def export_shar(corpus: Corpus, destination: Path, *, shard_clips: int = _SHARD_CLIPS) -> list[Path]:
    """Write the current version for `lhotse.CutSet.from_shar(in_dir=destination)`.

    Each utterance is a cut with its recording (FLAC, the same samples) and one supervision: text,
    speaker, language, and the other columns of the row in `custom`. The folder appears as a whole.

    Args:
        corpus: The corpus to export.
        destination: A folder that does not exist yet.
        shard_clips: Number of utterances per shard.

    Returns:
        The files: cuts.000000.jsonl.gz, recording.000000.tar and so on.

    Raises:
        CorpusError: lhotse is not installed, the destination exists, or the corpus has no
            utterances.
    """
    try:
        from lhotse.shar import SharWriter
    except ImportError as error:
        raise CorpusError(
            f"the Shar format needs lhotse, which cannot be imported ({error}); install it in the checkout: "
            "pip install --constraint requirements/constraints.txt -e '.[interop]'"
        ) from error
    with (
        new_folder(corpus, destination) as folder,
        SharWriter(folder, fields={"recording": "flac"}, shard_size=shard_clips) as writer,
    ):
        for row in _rows(corpus):
            writer.write(_cut(row))
    return sorted(destination.iterdir())


def _rows(corpus: Corpus) -> Iterator[dict[str, Any]]:
    for table in ordered_tables(corpus):
        for batch in table.to_batches(max_chunksize=256):
            yield from batch.to_pylist()


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # without user and time, so that equal rows give equal bytes
    info.size = len(content)
    shard.addfile(info, io.BytesIO(content))


def _cut(row: Mapping[str, Any]) -> "MonoCut":
    from lhotse import MonoCut, Recording, SupervisionSegment

    name = row["utterance_id"]
    recording = Recording.from_bytes(row["audio"]["bytes"], name)
    supervision = SupervisionSegment(
        id=name,
        recording_id=name,
        start=0,
        duration=recording.duration,
        text=row["text"],
        language=row["language"],
        speaker=row["speaker"],
        custom={
            column: str(value) if isinstance(value, date) else value
            for column, value in row.items()
            if column not in _SUPERVISION
        },
    )
    return MonoCut(
        id=name, start=0, duration=recording.duration, channel=0, recording=recording, supervisions=[supervision]
    )
