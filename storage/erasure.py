"""Erase sources from a corpus without a trace: from every version, the logs and the files beside the tables.

`storage.maintenance.forget` makes a new version without the sources; the earlier ones still have them, and the
logs name them. Here the past is written again as if the sources had never been: versions keep their numbers,
and each has the rows that it had of all other sources.

An erasure that was interrupted is finished by the next one: `erasing.json` says what it was about.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError

from storage.build_record import change_build, parse_record, read_build
from storage.card import PAGE, README
from storage.claims import CLAIMS
from storage.corpus import SCHEMAS, SHARD_GROUP_ROWS, SPEAKERS, SUPERSEDED, Corpus, parquet, plain
from storage.deltalog import FOLDER, entries, leftovers
from storage.judgements import JUDGEMENTS, Judgements
from storage.maintenance import forget
from storage.objects import Place
from storage.requests import clear_requests
from storage.rows import CorpusError
from storage.sounds import SOUNDS, read_sounds

ERASING = "erasing.json"
ERASED = "erased.json"
CAPTIONS = "captions"

Ids = frozenset[str]


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did.

    Attributes:
        sources: The sources that the corpus had, sorted.
        shards: Number of shards that were deleted or written again.
        searched: Number of files that were searched for a trace afterwards.
        traces: Those that still have one; empty.
    """

    sources: tuple[str, ...]
    shards: int
    searched: int
    traces: tuple[str, ...]


def erase(corpus: Corpus, source_ids: Iterable[str]) -> Erased:
    """Erase sources, so that no version has them, and no later build makes them again.

    Args:
        corpus: A corpus that nothing writes to or reads.
        source_ids: Ids of sources, also such as were only forgotten.

    Raises:
        CorpusError: A table can't be read or written to; repeat the call when that is mended.
    """
    ids, addresses = _begin(corpus, source_ids)
    had = forget(corpus, ids)
    _exclude(corpus, ids)
    shards = sum(_erase_from_table(corpus, name, ids) for name in SCHEMAS)
    _erase_beside(corpus, ids)
    _drop_addresses(corpus, addresses)
    corpus.place.delete(ERASING)
    searched, traces = _search(corpus, ids | addresses)
    return Erased(tuple(had), shards, searched, tuple(traces))


def read_erased(corpus: Corpus) -> frozenset[str]:
    """Return digests of the erased sources, as of `erased_digest`."""
    record = parse_record(corpus.place.read(ERASED), where=f"{corpus.location}/{ERASED}", remedy=_RESTORE) or {}
    return frozenset(map(str, record.get("sources") or ()))


def erased_digest(source_id: str) -> str:
    """Digest of a source's id, by which a build knows it and nobody finds it."""
    return hashlib.sha256(f"erased {source_id}".encode()).hexdigest()


_RESTORE = "Restore it from a backup, or erase the sources again that must not come back"


def _begin(corpus: Corpus, source_ids: Iterable[str]) -> tuple[Ids, Ids]:
    """Note what is to be erased, together with what an interrupted erasure left; return ids and addresses."""
    ids = frozenset(source_ids)
    ledger = corpus.ledger()
    found = {"sources": ids, "addresses": frozenset(ledger[each]["url"] for each in ids if each in ledger)}

    def to(content: bytes | None) -> bytes:
        record = parse_record(content, where=f"{corpus.location}/{ERASING}", remedy="Delete it") or {}
        for name in found:
            found[name] = found[name].union(map(str, record.get(name) or ()))
        return json.dumps({name: sorted(values) for name, values in found.items()}).encode()

    corpus.place.change(ERASING, to)
    return found["sources"], found["addresses"]


def _exclude(corpus: Corpus, ids: Ids) -> None:
    known = read_erased(corpus)
    digests = sorted(known | {erased_digest(source_id) for source_id in ids})
    corpus.place.write(ERASED, json.dumps({"sources": digests}, indent=1).encode())


# Tables: new shards, then the log, then the old shards go


def _erase_from_table(corpus: Corpus, name: str, ids: Ids) -> int:
    table, files = corpus.place / name, corpus.files(name)
    log = {number: _read(table, path) for number, path in entries(files).items()}
    present = {entry.name for entry in table.list()}
    replaced: dict[str, dict[str, Any] | None] = {}
    for add in [action["add"] for actions in log.values() for action in actions if "add" in action]:
        shard = unquote(add["path"])
        place = shard if shard in present else f"{SUPERSEDED}/{shard}"
        if shard not in replaced and place in present and _may_have(add, ids):
            found = _without(table, place, ids)
            if found is not None:
                replaced[shard] = found or None
    # Only the log counts from here on; a checkpoint would bring back what it had.
    table.delete(*(entry for entry in present if entry.startswith(f"{FOLDER}/") and "checkpoint" in entry))
    for number, actions in log.items():
        after = [action for action in (_erased(action, replaced, ids) for action in actions) if action]
        if after != actions:
            table.write(f"{FOLDER}/{number:020d}.json", "".join(f"{json.dumps(each)}\n" for each in after).encode())
    table.delete(*replaced, *(f"{SUPERSEDED}/{shard}" for shard in replaced))
    table.delete(*(info.path for info in leftovers(corpus, name)))
    try:
        corpus.delta(name).create_checkpoint()
    except DeltaError as error:
        raise CorpusError(f"cannot write a checkpoint of {corpus.uri(name)}: {plain(error)}") from error
    return len(replaced)


def _read(table: Place, path: str) -> list[dict[str, Any]]:
    content = table.read(path) or b""
    return [json.loads(line) for line in content.splitlines() if line.strip()]


def _may_have(add: dict[str, Any], ids: Ids) -> bool:
    statistics = json.loads(add.get("stats") or "{}")
    first = statistics.get("minValues", {}).get("source_id", "")
    last = statistics.get("maxValues", {}).get("source_id", "")
    return not last or any(first <= source_id <= last for source_id in ids)


def _without(table: Place, place: str, ids: Ids) -> dict[str, Any] | None:
    """Write a shard again without some sources.

    Returns:
        The changes of its entry in the log, none if nothing is left of it; None if it has no such source.
    """
    rows = pq.read_table(pa.BufferReader(table.read(place) or b""))
    stays = pc.invert(pc.is_in(rows["source_id"], pa.array(sorted(ids), pa.string())))
    left = rows.filter(stays)
    if len(left) == len(rows):
        return None
    if not len(left):
        return {}
    folder, _, shard = place.rpartition("/")
    name = f"part-{hashlib.sha256(shard.encode()).hexdigest()[:32]}.parquet"  # the same after an interruption
    content = parquet(left, row_group_size=SHARD_GROUP_ROWS)
    table.write(f"{folder}/{name}" if folder else name, content)
    sources = left["source_id"]
    statistics = {
        "numRecords": len(left),
        "minValues": {"source_id": pc.min(sources).as_py()},
        "maxValues": {"source_id": pc.max(sources).as_py()},
        "nullCount": {"source_id": 0},
    }
    return {"path": quote(name), "size": len(content), "stats": json.dumps(statistics)}


def _erased(action: dict[str, Any], replaced: dict[str, dict[str, Any] | None], ids: Ids) -> dict[str, Any] | None:
    """Return an action of the log without the sources; None if nothing is left of it."""
    ((kind, content),) = action.items()
    if kind == "txn" and content["appId"] in ids:
        return None
    if kind in ("add", "remove") and (shard := unquote(content["path"])) in replaced:
        changes = replaced[shard]
        return changes and {kind: {**content, **{key: changes[key] for key in changes if key in content}}}
    if kind == "commitInfo":
        return {kind: {key: value for key, value in content.items() if not _names(value, ids)}}
    return action


def _names(value: Any, ids: Ids) -> bool:
    text = json.dumps(value)
    return any(source_id in text for source_id in ids)


# Files beside the tables


def _erase_beside(corpus: Corpus, ids: Ids) -> None:
    place = corpus.place
    if place.exists(SPEAKERS):
        corpus.write_speakers(_remaining_speakers(corpus))
    if place.exists(JUDGEMENTS):
        judged = Judgements(corpus.location).table()
        stays = [clip.rsplit("-", 1)[0] not in ids for clip in judged["utterance_id"].to_pylist()]
        place.write(JUDGEMENTS, parquet(judged.filter(pa.array(stays, pa.bool_()))))
    _erase_sounds(corpus, ids)
    clear_requests(corpus, ids)
    for entry in list(place.list(f"{CLAIMS}/")):
        if any(source_id.encode() in (place.read(entry.name) or b"") for source_id in ids):
            place.delete(entry.name)
    place.delete(*(f"{CAPTIONS}/{source_id}.parquet" for source_id in ids))
    # Examples and plots are of the utterances; the next build draws them again.
    place.delete(README, PAGE, *(entry.name for entry in place.list("plots/")))


def _remaining_speakers(corpus: Corpus) -> list[dict[str, Any]]:
    """Return the rows of speakers who have utterances; a person whose name is gone gets that of another speaker."""
    there = set(corpus.utterances(columns=["speaker"])["speaker"].to_pylist())
    rows = [row for row in corpus.speakers().to_pylist() if row["speaker"] in there]
    names: dict[str, str] = {}
    for row in rows:
        person = row["linked_speaker"]
        names.setdefault(person, person if person in there else row["speaker"])
    return [{**row, "linked_speaker": names[row["linked_speaker"]]} for row in rows]


def _erase_sounds(corpus: Corpus, ids: Ids) -> None:
    records = read_sounds(corpus)
    if not len(records):
        return
    encoded = [source_id.encode() for source_id in ids]
    left = records[~np.isin(records["source_id"], encoded)].copy()
    left["twin"][np.isin(left["twin"], encoded)] = b""
    corpus.place.write(SOUNDS, left.tobytes())
    corpus.place.delete(*(entry.name for entry in corpus.place.list(f"{SOUNDS}.d/")))


def _drop_addresses(corpus: Corpus, addresses: Ids) -> None:
    """Take addresses out of the record of the last build, which a refresh repeats."""
    build = read_build(corpus)
    if build is not None and addresses.intersection(build["sources"]):
        left = [address for address in build["sources"] if address not in addresses]
        change_build(corpus, lambda known: {**(known or build), "sources": left})


# The proof


def _search(corpus: Corpus, texts: Ids) -> tuple[int, list[str]]:
    """Search every file of the corpus for ids and addresses; Parquet, which is compressed, column by column, too."""
    searched, traces = 0, []
    for entry in corpus.place.list():
        content = corpus.place.read(entry.name) or b""
        searched += 1
        if any(text.encode() in content for text in texts) or _rows_have(entry.name, content, texts):
            traces.append(entry.name)
    return searched, traces


def _rows_have(name: str, content: bytes, texts: Ids) -> bool:
    if not name.endswith(".parquet"):
        return False
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        columns = [each for each in _KEYS if each in file.schema_arrow.names]
        return any(text in value for value in _values(file, columns) for text in texts)
    except (OSError, pa.ArrowException):
        return True  # what can't be read can't be said to have no trace


_KEYS = ("source_id", "utterance_id", "speaker", "url")


def _values(file: pq.ParquetFile, columns: list[str]) -> Iterator[str]:
    for batch in file.iter_batches(columns=columns):
        for column in batch.columns:
            yield from (value for value in column.unique().to_pylist() if value is not None)
