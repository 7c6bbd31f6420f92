"""What an erasure leaves no trace of, and the search for traces: of every byte, and every value of a key column."""

import json
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq

from storage.objects import Entry, Place

_CLIP = re.compile(rb"[0-9a-f]{8,64}-[0-9]{5,}")
_KEYS = ("source_id", "utterance_id", "speaker", "linked_speaker", "url")

Texts = frozenset[str]


@dataclass(frozen=True)
class Sought:
    """Texts that must not occur.

    Attributes:
        sources: Ids of sources.
        addresses: Their addresses.
        clips: Ids of utterances.
        speakers: Names of speakers.
    """

    sources: Texts = frozenset()
    addresses: Texts = frozenset()
    clips: Texts = frozenset()
    speakers: Texts = frozenset()

    def __or__(self, other: "Sought") -> "Sought":
        return Sought(*(getattr(self, each.name) | getattr(other, each.name) for each in fields(self)))

    def in_text(self, text: str) -> bool:
        return self.in_bytes(text.encode(errors="replace"))

    def in_bytes(self, content: bytes | mmap.mmap) -> bool:
        """Whether one of the texts occurs: as UTF-8, or as JSON has it."""
        if self.clips and not self._clips.isdisjoint(_CLIP.findall(content)):
            return True
        return self._others is not None and self._others.search(content) is not None

    def in_file(self, name: str, content: bytes | mmap.mmap) -> bool:
        """Whether one of the texts occurs in a file; Parquet, which is compressed, is searched by value as well."""
        return self.in_bytes(content) or (name.endswith(".parquet") and self._in_rows(content))

    @cached_property
    def _clips(self) -> frozenset[bytes]:
        return frozenset(clip.encode() for clip in self.clips)

    @cached_property
    def _others(self) -> re.Pattern[bytes] | None:
        # "S1" is not a trace of "S10", and a data set's "ann" none of its "anna"; ids may stand in longer words.
        patterns = [form for text in self.sources | self.addresses for form in _forms(text)]
        patterns += [form + rb"(?![\w-])" for text in self.speakers for form in _forms(text)]
        return re.compile(b"|".join(sorted(patterns))) if patterns else None

    def _in_rows(self, content: bytes | mmap.mmap) -> bool:
        try:
            file = pq.ParquetFile(pa.BufferReader(content))
            columns = [each for each in _KEYS if each in file.schema_arrow.names]
            return any(map(self.in_text, _values(file, columns)))
        except (OSError, pa.ArrowException):
            return True  # what can't be read can't be said to have no trace


def _forms(text: str) -> set[bytes]:
    return {re.escape(text.encode(errors="replace")), re.escape(json.dumps(text)[1:-1].encode())}


def _values(file: pq.ParquetFile, columns: list[str]) -> Iterator[str]:
    for batch in file.iter_batches(columns=columns):
        for column in batch.columns:
            # The turns of a work folder number their speakers.
            yield from (value for value in column.unique().to_pylist() if isinstance(value, str))


@dataclass(frozen=True, slots=True)
class Searched:
    """A search for traces.

    Attributes:
        files: Number of files that were searched.
        traces: Those that have one.
    """

    files: int
    traces: tuple[str, ...]


def search(place: Place, sought: Sought) -> Searched:
    """Search every file of a place, of models or a corpus for instance, for traces."""
    files, traces = 0, []
    for entry in list(place.list()):
        files += 1
        if sought.in_file(entry.name, _content(place, entry)):
            traces.append(entry.name)
    return Searched(files, tuple(traces))


def _content(place: Place, entry: Entry) -> bytes | mmap.mmap:
    """Read a file, or map it: a work folder has files of gigabytes."""
    if not place.is_local or not entry.size:
        return place.read(entry.name) or b""
    with (place.folder / entry.name).open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
