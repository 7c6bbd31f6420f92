"""From the rows of published tables to entries: one clip with its descriptions, and what is known of it."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
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
_WORDS = re.compile(r"\w+").findall
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


@dataclass(frozen=True, slots=True)
class Beside:
    """What a data set says of its rows in files of their own.

    Attributes:
        prompts: Key -> descriptions; None: the rows have their own.
        parts: Name of a clip -> published part.
        excluded: Speakers that the data set advises against.
        invalid: Column that is 1 for rows not to be used.
    """

    prompts: dict[str, tuple[str, ...]] | None = None
    parts: dict[str, str] = field(default_factory=dict)
    excluded: frozenset[str] = frozenset()
    invalid: str | None = None

    @classmethod
    def read(cls, root: Path, preset: Preset) -> "Beside":
        """Read the files below the folder of a data set, or beside its table.

        Raises:
            ImportProblem: One is missing or damaged.
        """
        folder = root if root.is_dir() else root.parent
        prompts = None if preset.prompts is None else _prompts(folder, preset.prompts)
        parts: dict[str, str] = {}
        for pattern in preset.parts:
            for path in sorted(folder.rglob(pattern)):
                parts |= dict.fromkeys(_listed(path), split_of(path.stem))
        excluded = sorted(folder.rglob(preset.excluded)) if preset.excluded else []
        speakers = frozenset(word for path in excluded for word in path.read_text(encoding="utf-8").split())
        return cls(prompts, parts, speakers, preset.invalid)

    def applied(self, entry: Entry, row: dict[str, Any]) -> Entry:
        """Return an entry with its published part, refused if the data set says so."""
        if self.parts:
            entry = replace(entry, split=self.parts.get(Path(entry.name).stem, ""))
        if self.invalid is not None and str(row.get(self.invalid, "")).strip() in ("1", "1.0", "True"):
            return replace(entry, problem="the data set calls this row invalid")
        if entry.speaker in self.excluded:
            return replace(entry, problem="the data set advises against this speaker")
        return entry


def _prompts(folder: Path, pattern: str) -> dict[str, tuple[str, ...]]:
    """Read descriptions by key; those that differ in case alone are one."""
    found = sorted(folder.rglob(pattern))
    if not found:
        raise ImportProblem(f"{folder} has no {pattern}, which has the descriptions: it is published beside the tables")
    prompts: dict[str, tuple[str, ...]] = {}
    for path in found:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ImportProblem(f"{path}: not UTF-8 ({error.reason}); download it again") from error
        for number, line in enumerate(lines, start=1):
            key, separator, texts = line.partition("|")
            if line.strip() and not separator:
                raise ImportProblem(f"{path}, line {number}: expected `key|description;description`; it may be cut off")
            several = {caption.casefold(): caption for caption in reversed(list(_captions(texts.split(";"))))}
            prompts[key.strip()] = tuple(reversed(several.values()))
    return prompts


def _listed(path: Path) -> Iterator[str]:
    """Read the names of the clips that a list of a part has."""
    try:
        for number, row in read_table(path):
            name = row.get("file_id") or row.get("relative_path_within_libritts")
            if not name:
                raise ImportProblem(f"{path}, line {number}: no file_id")
            yield Path(name).name.removesuffix(".wav")
    except TableError as error:
        raise ImportProblem(str(error)) from error


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
    beside = Beside.read(root, preset)
    for table in tables(root, settings.tables or preset.tables):
        if table.name in preset.parts:
            continue
        relative = table.name if root.is_file() else str(table.relative_to(root))
        try:
            known: dict[tuple[str, ...], Columns] = {}
            for number, row in read_table(table, header=preset.header):
                names = tuple(row)
                if names not in known:
                    if not known:
                        _require(row, columns, f"{table}")
                    known[names] = _present(columns, names)
                if left is not None:
                    if left == 0:
                        return
                    left -= 1
                yield beside.applied(_entry(row, known[names], settings, relative, number, beside), row)
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


def _present(columns: Columns, names: tuple[str, ...]) -> Columns:
    """Return the columns that a table has: nothing else needs to be looked for in each of its rows."""
    some = {
        field: tuple(name for name in getattr(columns, field) if name in names)
        for field in Columns.model_fields
        if field != "style"
    }
    style = {attribute: tuple(name for name in tried if name in names) for attribute, tried in columns.style.items()}
    return Columns(**some, style={attribute: found for attribute, found in style.items() if found})


def _require(row: dict[str, Any], columns: Columns, table: str) -> None:
    for meaning in ("audio", "caption"):
        names: tuple[str, ...] = getattr(columns, meaning)
        if not any(name in row for name in names):
            raise ImportProblem(
                f"{table} has no column for the {meaning} (tried {', '.join(names)}; it has {', '.join(row)}): name it "
                f"in columns.{meaning}"
            )


def _entry(
    row: dict[str, Any], columns: Columns, settings: ImportSettings, table: str, number: int, beside: Beside
) -> Entry:
    place = f"{table}, line {number}"
    audio = _first(row, columns.audio)
    inside = audio if isinstance(audio, dict) else {"path": audio}
    data = inside.get("bytes")
    text = _text(row, columns.text)
    captions = tuple(_captions(_first(row, columns.caption)))
    problem = "" if captions else "no caption"
    if beside.prompts is not None and captions:
        (key,), captions = captions[:1], beside.prompts.get(captions[0], ())
        problem = "" if captions else f"there are no descriptions of the key {key}"
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
    words = _WORDS((text if text.isascii() else unicodedata.normalize("NFKC", text)).lower())
    return f" {' '.join(words)} "


def quotes(caption: str, text: str) -> bool:
    """Whether a caption has its clip's transcript in it."""
    said = _plain(text)
    words = said.split()
    short = len(words) < LEAST_WORDS and len(said.replace(" ", "")) < 2 * LEAST_WORDS
    if short or (caption.isascii() and words[0] not in caption.lower()):  # most rows: the rest takes longer
        return False
    return said.strip() in _plain(caption)


def stripped(caption: str, text: str) -> str:
    """Take the transcript and its quotation marks out of a caption; empty if it can't be done."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text))
    pattern = r"[\W_]*".join(map(re.escape, words))
    without = re.sub(rf"[{_QUOTES}]*\b{pattern}\b[^\w{_QUOTES}]*[{_QUOTES}]*", "", caption, flags=re.IGNORECASE)
    kept = " ".join(without.split())
    return "" if quotes(kept, text) or not re.search(r"\w", kept) else kept
