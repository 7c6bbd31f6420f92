"""Look at a copy of a data set before it is imported: how much of it is there, and what is not."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from storage.importers.entries import Entry, ImportProblem, read_entries
from storage.importers.presets import Preset
from storage.importers.settings import ImportSettings
from storage.importers.sound import EVERY, Sound

SHOWN = 10
NO_PART = "no part"


@dataclass(frozen=True)
class Check:
    """What a copy of a data set has.

    Attributes:
        rows: Rows of its tables.
        joined: Rows with sound.
        captions: Descriptions, several of a row counted.
        splits: Rows by published part.
        speakers: Number of published speakers.
        refused: Rows by why they can't be used.
        without_sound: Rows without sound: a few, with the names that were looked for.
        without_row: Sound files that no row names: a few.
        licence: Terms.
        sound: Where the sound is obtained.
    """

    rows: int
    joined: int
    captions: int
    splits: dict[str, int]
    speakers: int
    refused: dict[str, int]
    without_sound: list[str]
    without_row: list[str]
    licence: str
    sound: str

    def lines(self) -> list[str]:
        """Report for people."""
        share = self.joined / self.rows if self.rows else 0.0
        found = [
            f"{self.rows} rows, {self.joined} with sound ({share:.1%}), {self.captions} captions, "
            f"{self.speakers} speakers",
            f"parts: {', '.join(f'{name or NO_PART} {count}' for name, count in sorted(self.splits.items()))}",
            f"terms: {self.licence}",
        ]
        found += [f"refused: {reason}: {count} rows" for reason, count in self.refused.items()]
        if self.without_sound:
            found += [f"sound: {self.sound}", "rows without sound, such as:", *(f"  {x}" for x in self.without_sound)]
        if self.without_row:
            found += ["sound without a row, such as:", *(f"  {x}" for x in self.without_row)]
        return found


def sound_of(root: Path, preset: Preset, settings: ImportSettings) -> Sound:
    """Return where the sound of a data set is."""
    roots = {name: Path(folder) for name, folder in settings.audio_roots.items()}
    missing = [f"{name} ({folder})" for name, folder in roots.items() if not folder.is_dir()]
    if missing:
        raise ImportProblem(f"audio_roots: there is no folder {', '.join(missing)}")
    if not roots:
        roots = {EVERY: root if root.is_dir() else root.parent}
    return Sound(roots, join=settings.join or preset.join, prefixes=preset.prefixes)


def check(root: Path, preset: Preset, settings: ImportSettings) -> Check:
    """Read all tables and look for all sound; decode nothing.

    Raises:
        ImportProblem: A table is missing or damaged; see `read_entries`.
    """
    sound = sound_of(root, preset, settings)
    splits: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    speakers: set[str] = set()
    used: set[Path] = set()
    rows = joined = captions = 0
    lost: list[str] = []
    for entry in read_entries(root, preset, settings):
        rows += 1
        captions += len(entry.captions)
        splits[entry.split] += 1
        speakers.add(entry.speaker)
        if entry.problem:
            refused[entry.problem] += 1
        path = None if entry.audio is not None else sound.find(entry.name, entry.source)
        if path is not None:
            used.add(path)
        if entry.audio is not None or path is not None:
            joined += 1
        elif len(lost) < SHOWN:
            lost.append(_lost(entry))
    return Check(
        rows=rows,
        joined=joined,
        captions=captions,
        splits=dict(splits),
        speakers=len(speakers - {""}),
        refused=dict(refused),
        without_sound=lost,
        without_row=sound.unused(used, SHOWN),
        licence=preset.licence,
        sound=preset.sound,
    )


def require(found: Check, settings: ImportSettings) -> None:
    """Refuse a copy with too little sound.

    Raises:
        ImportProblem: Fewer rows have sound than `min_joined`; the message is the whole report.
    """
    if found.rows == 0 or found.joined < settings.min_joined * found.rows:
        needed = f"fewer rows have sound than min_joined={settings.min_joined:.0%} of them"
        raise ImportProblem("\n".join([needed if found.rows else "the tables have no rows", *found.lines()]))


def _lost(entry: Entry) -> str:
    return f"{entry.place}: {entry.name}" + (f" ({entry.source})" if entry.source else "")
