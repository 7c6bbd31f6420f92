"""The clips of a corpus as a split sees them, and what two parts must not share."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from fsclap.data.captions import caption_key
from fsclap.data.splits.base import PARTS, Part

MIN_WORDS = 4
"""Transcripts of fewer words, such as "Yes.", may be in several parts."""


@dataclass(frozen=True, slots=True)
class Clip:
    """What a split depends on; caption and text as `caption_key`."""

    id: str
    series: str
    speaker: str
    caption: str
    text: str
    audio: str | None
    defect: str | None


@dataclass(frozen=True, slots=True)
class Corpus:
    """What there is to split: clips, `mean_embeddings`, `chains_of` and `by_series`."""

    clips: "list[Clip]"
    usable: "list[Clip]"
    speakers: dict[str, np.ndarray | None]
    chains: dict[str, int]
    explicit: dict[str, Part | None]


def read_clips(table: pa.Table) -> list[Clip]:
    def column(name: str) -> list[Any]:
        return table[name].to_pylist() if name in table.column_names else [None] * table.num_rows

    names = ("utterance_id", "series", "speaker", "caption", "text", "audio_sha256", "defect")
    clips = []
    for id_, series, speaker, caption, text, audio, defect in zip(*map(column, names), strict=True):
        caption, text = caption_key(caption or ""), caption_key(text or "")
        defect = defect or (None if caption else "it has no caption")
        clips.append(Clip(id_, series, speaker, caption, text, audio, defect))
    return clips


def without(kept: dict[Part, list[Clip]], removed: dict[str, str]) -> dict[Part, list[Clip]]:
    return {part: [clip for clip in kept[part] if clip.id not in removed] for part in PARTS}


def shared_contents(kept: dict[Part, list[Clip]]) -> dict[str, str]:
    """Clips whose caption, transcript or recording is in a more protected part."""
    seen: dict[tuple[str, str], Part] = {}
    removed = {}
    for part in reversed(PARTS):
        staying = []
        for clip in kept[part]:
            shared = [(what, seen[what, key]) for what, key in _contents(clip) if (what, key) in seen]
            if shared:
                removed[clip.id] = f"{shared[0][1]} has its {shared[0][0]}"
            else:
                staying.append(clip)
        for clip in staying:
            seen.update(dict.fromkeys(_contents(clip), part))
    return removed


def _contents(clip: Clip) -> list[tuple[str, str]]:
    contents = [("caption", clip.caption)]
    if len(clip.text.split()) >= MIN_WORDS:
        contents.append(("transcript", clip.text))
    if clip.audio is not None:
        contents.append(("recording", clip.audio))
    return contents
