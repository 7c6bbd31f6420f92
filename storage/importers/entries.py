"""From the rows of published tables to entries: one clip with its descriptions, and what is known of it."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from storage.importers.presets import Preset
from storage.importers.settings import Columns, ImportSettings
from storage.importers.tables import TableError, read_table

SPLITS = {
    "train": "train",
    "dev": "validation",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "holdout": "test",
}
"""Words for the parts, and ours."""
WORDS = {
    ("pitch", "low"): "low",
    ("pitch", "high"): "high",
    ("energy", "low"): "soft",
    ("energy", "high"): "loud",
    ("speaking_rate", "low"): "slow",
    ("speaking_rate", "slow"): "slow",
    ("speaking_rate", "high"): "fast",
    ("speaking_rate", "fast"): "fast",
}
"""Three-level labels in the words of the styles; the middle has none."""
MIDDLE = {"", "normal", "medium", "neutral", "moderate", "nan", "none", "n/a"}
EMOTIONS = {
    "happy": "happy",
    "happiness": "happy",
    "sad": "sad",
    "sadness": "sad",
    "angry": "angry",
    "anger": "angry",
    "fear": "fearful",
    "fearful": "fearful",
    "disgust": "disgusted",
    "disgusted": "disgusted",
    "surprise": "surprised",
    "surprised": "surprised",
    "neutral": "neutral",
    "contempt": "contempt",
    "calm": "calm",
}
LEAST_WORDS = 3
"""A transcript of fewer words may stand in a caption by accident."""
_QUOTES = "\"'“”„‘’「」『』"


class ImportProblem(ValueError):  # noqa: N818 (a message for people)
    """A data set that can't be imported as it is. The message says which file and what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One clip of a data set.

    Attributes:
        place: Table and line, for messages.
        name: What the row calls its sound; the path of the table and the line where it is inside.
        audio: The sound itself, where the table has it.
        source: Which of several roots has the sound.
        captions: Descriptions, at least one.
        text: Transcript; empty if unknown.
        speaker: As published; empty if unknown.
        split: "train", "validation", "test", or empty: no published part.
        language: Code; None if unknown.
        style: Labels in the words of this project's styles.
        problem: Why the row can't be used; empty: it can.
    """

    place: str
    name: str
    audio: bytes | None
    source: str | None
    captions: tuple[str, ...]
    text: str
    speaker: str
    split: str
    language: str | None
    style: dict[str, str]
    problem: str = ""


def read_entries(root: Path, preset: Preset, settings: ImportSettings) -> Iterator[Entry]:
    """Read the rows of a data set in the order of its tables.

    Args:
        root: Folder of the data set, or one table.
        preset: How it is laid out.
        settings: What is otherwise.

    Raises:
        ImportProblem: There is no table, one is damaged, or lacks a column.
    """
    columns = settings.columns or preset.columns
    left = settings.limit
    for table in tables(root, settings.tables or preset.tables):
        relative = table.name if root.is_file() else str(table.relative_to(root))
        try:
            for number, row in read_table(table, header=preset.header):
                if number == 1 or left == settings.limit:
                    _require(row, columns, f"{table}")
                if left is not None:
                    if left == 0:
                        return
                    left -= 1
                yield _entry(row, columns, settings, relative, number)
        except TableError as error:
            raise ImportProblem(str(error)) from error


def tables(root: Path, patterns: tuple[str, ...]) -> list[Path]:
    """List the tables of a data set.

    Raises:
        ImportProblem: There are none.
    """
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise ImportProblem(f"{root}: there is no such folder or table")
    found = sorted({path for pattern in patterns for path in root.rglob(pattern) if path.is_file()})
    if not found:
        raise ImportProblem(f"{root} has no table ({', '.join(patterns)}): name the folder in which they lie")
    return found


def _require(row: dict[str, Any], columns: Columns, table: str) -> None:
    for meaning in ("audio", "caption"):
        names: tuple[str, ...] = getattr(columns, meaning)
        if not any(name in row for name in names):
            raise ImportProblem(
                f"{table} has no column for the {meaning} (tried {', '.join(names)}; it has {', '.join(row)}): name it "
                f"in columns.{meaning}"
            )


def _entry(row: dict[str, Any], columns: Columns, settings: ImportSettings, table: str, number: int) -> Entry:
    place = f"{table}, line {number}"
    audio = _first(row, columns.audio)
    inside = audio if isinstance(audio, dict) else {"path": audio}
    data = inside.get("bytes")
    text = _text(row, columns.text)
    captions = tuple(_captions(_first(row, columns.caption)))
    problem = "" if captions else "no caption"
    quoting = [caption for caption in captions if quotes(caption, text)]
    if quoting and settings.strip_transcript:
        captions = tuple(kept for caption in captions if (kept := stripped(caption, text)))
        problem = "" if captions else "nothing is left of the caption without the transcript"
    elif quoting:
        problem = "the caption quotes the transcript, so the clip would be found by its words"
    if data is None and not inside.get("path"):
        problem = "no sound is named"
    return Entry(
        place=place,
        name=place if data is not None else str(inside["path"] or ""),
        audio=data,
        source=_text(row, columns.source) or None,
        captions=captions,
        text=text,
        speaker="" if (speaker := _text(row, columns.speaker)) == "N/A" else speaker,
        split=split_of(_text(row, columns.split)) or _split_of_table(table),
        language=_text(row, columns.language) or None,
        style=dict(_style(row, columns)),
        problem=problem,
    )


def _first(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        if (value := row.get(name)) is not None:
            return value
    return None


def _text(row: dict[str, Any], names: tuple[str, ...]) -> str:
    value = _first(row, names)
    return "" if value is None else str(value).strip()


def _captions(value: Any) -> Iterator[str]:
    values = value if isinstance(value, list | tuple) else [value]
    yield from dict.fromkeys(
        caption for item in values if item is not None and (caption := " ".join(str(item).split()))
    )


@lru_cache
def _split_of_table(table: str) -> str:
    return split_of(Path(table).stem)


@lru_cache
def split_of(name: str) -> str:
    """Read the published part from a name such as "dev", "test-00000-of-00001" or "random_train"."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((SPLITS[word] for word in words if word in SPLITS), "")


def _style(row: dict[str, Any], columns: Columns) -> Iterator[tuple[str, str]]:
    for attribute, names in columns.style.items():
        label = _text(row, names).lower()
        if attribute == "emotion":
            if label in EMOTIONS:
                yield attribute, EMOTIONS[label]
        elif attribute == "gender":
            if label:
                yield attribute, {"m": "male", "f": "female"}.get(label, label)
        elif label not in MIDDLE and (attribute, label) in WORDS:
            yield attribute, WORDS[attribute, label]


def _plain(text: str) -> str:
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower())
    return f" {' '.join(words)} "


def quotes(caption: str, text: str) -> bool:
    """Whether a caption has its clip's transcript in it."""
    said = _plain(text)
    short = len(said.split()) < LEAST_WORDS and len(said.replace(" ", "")) < 2 * LEAST_WORDS
    return not short and said.strip() in _plain(caption)


def stripped(caption: str, text: str) -> str:
    """Take the transcript and its quotation marks out of a caption; empty if it can't be done."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text))
    pattern = r"[\W_]*".join(map(re.escape, words))
    without = re.sub(rf"[{_QUOTES}]*\b{pattern}\b[^\w{_QUOTES}]*[{_QUOTES}]*", "", caption, flags=re.IGNORECASE)
    kept = " ".join(without.split())
    return "" if quotes(kept, text) or not re.search(r"\w", kept) else kept
