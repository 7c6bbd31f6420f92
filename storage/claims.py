"""Claims on recordings: which source of a corpus in an object store has a recording.

    claims/{SHA-256 of the recording}     {"source_id": ..., "date": ...}, made before the source is committed

Two addresses of one recording may be committed by two machines at the same moment. In a local corpus a lock
lets the second see the first. In an object store the one whose claim exists has the recording.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from storage.build_record import parse_record
from storage.corpus import Corpus

CLAIMS = "claims"
PATIENCE = timedelta(hours=2)
"""A claim of a source that doesn't have the recording counts no longer than this: its writer has died."""


def claim(corpus: Corpus, recording: str, source_id: str, *, has: Callable[[str], bool]) -> str | None:
    """Claim a recording for a source.

    Args:
        corpus: The corpus, in an object store.
        recording: SHA-256 of its bytes.
        source_id: The source.
        has: Whether the corpus keeps a source with this recording, by source id.

    Returns:
        The other source that has the recording; None if this one has it.
    """
    holder: str | None = None

    def to(content: bytes | None) -> bytes | None:
        nonlocal holder
        known = parse_record(content, where=f"{corpus.location}/{CLAIMS}/{recording}", remedy="Delete it") or {}
        holder = known.get("source_id")
        now = datetime.now(UTC)
        is_others = holder not in (None, source_id)
        if is_others and (now - datetime.fromisoformat(known["date"]) < PATIENCE or has(str(holder))):
            return None
        holder = None
        return json.dumps({"source_id": source_id, "date": now.isoformat(timespec="seconds")}).encode()

    corpus.place.change(f"{CLAIMS}/{recording}", to)
    return holder


def release(corpus: Corpus, recording: str, source_id: str) -> None:
    """Give up a claim, when a source has left the corpus."""
    name = f"{CLAIMS}/{recording}"
    known = parse_record(corpus.place.read(name), where=f"{corpus.location}/{name}", remedy="Delete it") or {}
    if known.get("source_id") == source_id:
        corpus.place.delete(name)
