"""The stages of the corpus by name, the files each leaves in its work folder, and how later stages read them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from fsclap import Hertz, Seconds
from fsclap.audio import map_wave
from fsclap.corpus.captioning.attributes import Attributes
from fsclap.corpus.captioning.base import Tags
from fsclap.corpus.captioning.describe import Description
from fsclap.corpus.filtering.consistency import Verdict
from fsclap.corpus.filtering.quality import Quality
from fsclap.corpus.turns import Dropped, Turn, read_turns
from fsclap.timeline import Timeline
from storage.work import WorkStore
from tasks.batches import Item
from tasks.stages import folder, outcome

DOWNLOAD = "download"
DUPLICATE = "duplicate"
"""Reason of a refusal: the same bytes as another source of the corpus."""
DECODE = "decode"
SEPARATION = "separation"
DIARIZATION = "diarization"
ATTRIBUTES, TAGGING, QUALITY = "attributes", "tagging", "quality"
CONSISTENCY = "consistency"
CAPTIONING = "captioning"

VOCALS = "vocals.flac"
TURNS = "turns.parquet"
DROPPED = "dropped.json"
VERDICTS = "verdicts.json"
DESCRIPTIONS = "descriptions.json"


def seconds_of(item: Item, store: WorkStore) -> Seconds:
    """Read how much sound of an episode was decoded."""
    return float(outcome(store, item.steps[SEPARATION]).facts["duration"])


def timeline_of(item: Item, store: WorkStore) -> Timeline:
    """Read where an episode's vocals lie on the player's clock."""
    return Timeline.of(outcome(store, item.steps[SEPARATION]).facts["sections"])


def map_vocals(item: Item, store: WorkStore, sample_rate: Hertz, destination: Path) -> np.ndarray:
    """Map an episode's vocals to memory at the rate that a model needs.

    Args:
        item: The episode, after separation.
        store: Where its vocals lie.
        sample_rate: The rate to resample to.
        destination: File of the memory map.

    Returns:
        (samples,) float32.
    """
    return map_wave(folder(store, item.steps[SEPARATION]) / VOCALS, destination, sample_rate=sample_rate)


def turns_of(item: Item, store: WorkStore) -> list[Turn]:
    """Read all turns of an episode, by start time; their times are positions in the vocals."""
    return read_turns(folder(store, item.steps[DIARIZATION]) / TURNS)


def read_dropped(item: Item, store: WorkStore) -> list[Dropped]:
    """Read the speech of an episode that became no turn; its times are positions in the vocals."""
    text = (folder(store, item.steps[DIARIZATION]) / DROPPED).read_text()
    return [Dropped(**row) for row in json.loads(text)]


def read_attributes(item: Item, store: WorkStore) -> list[Attributes]:
    """Read the acoustic attributes of every turn."""
    return [Attributes(**row) for row in _measured(ATTRIBUTES, item, store) or []]


def read_tags(item: Item, store: WorkStore, turns: int) -> list[Tags]:
    """Read the tags of every turn; empty ones when no engine tags emotion."""
    rows = _measured(TAGGING, item, store)
    return [Tags()] * turns if rows is None else [Tags(**{**row, "events": tuple(row["events"])}) for row in rows]


def read_qualities(item: Item, store: WorkStore, turns: int) -> list[Quality | None]:
    """Read the quality of every turn; None where it was not rated."""
    rows = _measured(QUALITY, item, store)
    return [None] * turns if rows is None else [Quality(**row) for row in rows]


def read_verdicts(item: Item, store: WorkStore) -> list[Verdict]:
    """Read whether each turn stays, and why not."""
    text = (folder(store, item.steps[CONSISTENCY]) / VERDICTS).read_text()
    return [Verdict(**row) for row in json.loads(text)]


def read_descriptions(item: Item, store: WorkStore) -> list[Description]:
    """Read one description per kept turn, in order."""
    text = (folder(store, item.steps[CAPTIONING]) / DESCRIPTIONS).read_text()
    return [Description(**row) for row in json.loads(text)]


def utterance_id(source_id: str, turn: int) -> str:
    """Make the id of a source's turn in the corpus, which also seeds the wording of its caption."""
    return f"{source_id}-{turn:05d}"


def _measured(stage: str, item: Item, store: WorkStore) -> list[dict[str, Any]] | None:
    step = item.steps.get(stage)
    return None if step is None else json.loads((folder(store, step) / f"{stage}.json").read_text())
