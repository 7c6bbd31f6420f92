"""Erase sources from a corpus without a trace: from every version, the logs and the files beside the tables.

`storage.maintenance.forget` makes a new version without the sources; the earlier ones still have them, and the
logs name them. Here the past is written again as if the sources had never been: versions keep their numbers,
and each has the rows that it had of all other sources.

An erasure that was interrupted is finished by the next one: `erasing.json` says what it was about.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.build_record import change_build, parse_record, read_build
from storage.captions import FOLDER as CAPTIONS
from storage.captions import drop_captions
from storage.card import PAGE, README
from storage.claims import CLAIMS
from storage.corpus import SCHEMAS, SPEAKERS, Corpus, parquet
from storage.judgements import JUDGEMENTS, Judgements
from storage.left_out import drop_sources, read_left_out
from storage.maintenance import forget
from storage.people import remaining_speakers
from storage.people_past import WithoutPeople
from storage.requests import clear_requests
from storage.rewriting import rewrite
from storage.rights import drop_rights
from storage.sought import Searched, Sought, search
from storage.sounds import SOUNDS, read_sounds

ERASING = "erasing.json"
ERASED = "erased.json"

Ids = frozenset[str]


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did.

    Attributes:
        sources: The sources that the corpus had, sorted.
        shards: Number of shards that were deleted or written again.
        search: The search for traces in the corpus afterwards; it has found none.
    """

    sources: tuple[str, ...]
    shards: int
    search: Searched


def erase(corpus: Corpus, source_ids: Iterable[str]) -> Erased:
    """Erase sources, so that no version has them, and no later build makes them again.

    Args:
        corpus: A corpus that nothing writes to or reads.
        source_ids: Ids of sources, also such as were only forgotten.

    Raises:
        CorpusError: A table can't be read or written to; repeat the call when that is mended.
    """
    return finish(corpus, begin(corpus, source_ids))


def begin(corpus: Corpus, source_ids: Iterable[str] = (), more: Sought = Sought()) -> Sought:  # noqa: B008 (frozen)
    """Note what is to be erased, together with what an interrupted erasure left; return all of it."""
    ids = frozenset(source_ids)
    ledger = corpus.ledger()
    addresses = frozenset(ledger[each]["url"] for each in ids if each in ledger)
    sought = more | Sought(sources=ids, addresses=addresses)

    def to(content: bytes | None) -> bytes:
        nonlocal sought
        record = parse_record(content, where=f"{corpus.location}/{ERASING}", remedy="Delete it") or {}
        sought |= Sought(**{each.name: frozenset(map(str, record.get(each.name) or ())) for each in fields(Sought)})
        return json.dumps({name: sorted(texts) for name, texts in asdict(sought).items()}).encode()

    corpus.place.change(ERASING, to)
    return sought


def finish(corpus: Corpus, sought: Sought) -> Erased:
    """Erase from the corpus what `begin` noted, and search for what is left of it.

    Raises:
        CorpusError: A table can't be read or written to; repeat the call when that is mended.
    """
    ids = sought.sources
    had = forget(corpus, ids)
    _exclude(corpus, ids)
    drop_sources(corpus, ids)
    drop_rights(corpus, ids)
    shards = sum(rewrite(corpus, name, _WithoutSources(ids)) for name in SCHEMAS) if ids else 0
    if sought.clips or sought.speakers:
        people = WithoutPeople(corpus, read_left_out(corpus))
        shards += sum(rewrite(corpus, name, people) for name in SCHEMAS)
    _erase_beside(corpus, sought)
    _drop_addresses(corpus, sought.addresses)
    corpus.place.delete(ERASING)
    return Erased(tuple(had), shards, search(corpus.place, sought))


def read_erased(corpus: Corpus) -> frozenset[str]:
    """Return digests of the erased sources, as of `erased_digest`."""
    record = parse_record(corpus.place.read(ERASED), where=f"{corpus.location}/{ERASED}", remedy=_RESTORE) or {}
    return frozenset(map(str, record.get("sources") or ()))


def erased_digest(source_id: str) -> str:
    """Digest of a source's id, by which a build knows it and nobody finds it."""
    return hashlib.sha256(f"erased {source_id}".encode()).hexdigest()


_RESTORE = "Restore it from a backup, or erase the sources again that must not come back"


def _exclude(corpus: Corpus, ids: Ids) -> None:
    known = read_erased(corpus)
    digests = sorted(known | {erased_digest(source_id) for source_id in ids})
    corpus.place.write(ERASED, json.dumps({"sources": digests}, indent=1).encode())


@dataclass(frozen=True, slots=True)
class _WithoutSources:
    """The past without sources (`storage.rewriting.Rule`)."""

    ids: Ids

    def concerns(self, first: str, last: str) -> bool:
        return not last or any(first <= source_id <= last for source_id in self.ids)

    def rows(self, table: str, shard: str, rows: pa.Table) -> pa.Table:
        left = rows.filter(pc.invert(pc.is_in(rows["source_id"], pa.array(sorted(self.ids), pa.string()))))
        return rows if len(left) == len(rows) else left

    def token(self, table: str, source_id: str, token: int) -> int | None:
        return None if source_id in self.ids else token

    def hides(self, text: str) -> bool:
        return any(source_id in text for source_id in self.ids)


# Files beside the tables


def _erase_beside(corpus: Corpus, sought: Sought) -> None:
    place, ids = corpus.place, sought.sources
    if place.exists(SPEAKERS):
        corpus.write_speakers(remaining_speakers(corpus))
    if place.exists(JUDGEMENTS):
        judged = Judgements(corpus.location).table()
        clips = judged["utterance_id"].to_pylist()
        stays = [clip.rsplit("-", 1)[0] not in ids and clip not in sought.clips for clip in clips]
        place.write(JUDGEMENTS, parquet(judged.filter(pa.array(stays, pa.bool_()))))
    _erase_sounds(corpus, ids)
    clear_requests(corpus, ids)
    for entry in list(place.list(f"{CLAIMS}/")):
        if any(source_id.encode() in (place.read(entry.name) or b"") for source_id in ids):
            place.delete(entry.name)
    place.delete(*(f"{CAPTIONS}/{source_id}.parquet" for source_id in ids))
    drop_captions(corpus, sought.clips)
    # Examples and plots are of the utterances; the next build draws them again.
    place.delete(README, PAGE, *(entry.name for entry in place.list("plots/")))


def _erase_sounds(corpus: Corpus, ids: Ids) -> None:
    records = read_sounds(corpus)
    if not (ids and len(records)):
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
        rights = {address: each for address, each in build.get("rights", {}).items() if address not in addresses}
        change_build(corpus, lambda known: {**(known or build), "sources": left, "rights": rights})
