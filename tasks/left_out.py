"""Leave people out of a source whom someone took out of the corpus (`storage.left_out`)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fsclap.corpus.fingerprint import from_text, same_sound
from storage.left_out import LeftOut, Spans, mostly_within
from tasks.batches import Item, Refusal

STAGE, OTHER_RECORDING = "commit", "recording_changed"
_SLACK = 0.5
"""Seconds by which a recording of the same sound may be longer or shorter, for its seconds to be the same."""

Row = dict[str, Any]


def seconds_left_out(
    item: Item, recording: str | None, facts: Mapping[str, Any], left_out: LeftOut, sounds: np.ndarray
) -> Spans | None:
    """Return the seconds of an episode that are left out; None if they are not known of this recording.

    Args:
        item: The episode.
        recording: SHA-256 of its file.
        facts: What was noted when it was decoded: `duration`, `fingerprint`.
        left_out: What is left out of the corpus.
        sounds: Fingerprints of the corpus's recordings (`storage.sounds.RECORD`).
    """
    known = left_out.of_recording(recording)
    if known is not None:
        return known.seconds
    gaps = left_out.sources.get(item.episode.source_id)
    if gaps is None:
        return ()
    before = sounds[sounds["source_id"] == item.episode.source_id.encode()]
    if "fingerprint" not in facts or not len(before):
        return None
    alike = same_sound(from_text(facts["fingerprint"]), before["bits"])[0]
    return gaps.seconds if alike and abs(float(before["duration"][0]) - facts["duration"]) <= _SLACK else None


def of_another_recording(item: Item) -> Item:
    """Refuse an episode of which it is not known who must be left out."""
    detail = (
        f"{item.episode.locator}: a person was taken out of this recording, and it is another file now, so nobody "
        "knows which seconds are theirs. All of it is left out; `fsclap corpus forget --erase` with the source's id "
        "ends that for good"
    )
    return item.refused(Refusal(stage=STAGE, reason=OTHER_RECORDING, detail=detail))


def without_left_out(utterances: list[Row], rejects: list[Row], seconds: Spans) -> tuple[list[Row], list[Row]]:
    """Take the turns out of a source's rows that are left out."""
    turns = [*utterances, *rejects]
    if not (seconds and turns):
        return utterances, rejects
    starts, ends, speakers = ([row[name] for row in turns] for name in ("start", "end", "speaker"))
    within, theirs = mostly_within(starts, ends, speakers, seconds)
    stays = [not inside and name not in theirs for inside, name in zip(within.tolist(), speakers, strict=True)]
    kept = [row for row, stay in zip(turns, stays, strict=True) if stay]
    count = sum(stays[: len(utterances)])
    return kept[:count], kept[count:]
