"""Which part a voice is in: by its series, as it was, or drawn."""

from collections import Counter
from collections.abc import Iterable, Set
from fnmatch import fnmatchcase

import numpy as np

from fsclap.data.splits.base import PARTS, Part, Split, SplitSettings
from fsclap.data.splits.contents import Clip

FAIR, LARGEST_SHARE = 24, 0.2
"""Clips that validation and test should have, and the share of a small corpus that each may take for it."""

_MOVED = "voice moved: "


def by_series(clips: list[Clip], settings: SplitSettings) -> dict[str, Part | None]:
    """Series -> the part that the settings name for it; None where it is drawn."""
    series = sorted({clip.series for clip in clips})
    patterns_of = {"validation_series": settings.validation_series, "test_series": settings.test_series}
    for setting, patterns in patterns_of.items():
        for pattern in patterns:
            if not _matching(series, [pattern]):
                raise ValueError(f"split.{setting}: {pattern!r} matches none of the series {', '.join(series)}")
    rest: Part | None = "train" if settings.validation_series and settings.test_series else None
    explicit: dict[str, Part | None] = dict.fromkeys(series, rest)
    explicit.update(dict.fromkeys(_matching(series, settings.validation_series), "validation"))
    explicit.update(dict.fromkeys(_matching(series, settings.test_series), "test"))
    return explicit


def _matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    patterns = list(patterns)
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def parts_of(
    clips: list[Clip],
    voices: dict[str, int],
    explicit: dict[str, Part | None],
    settings: SplitSettings,
    earlier: Split | None,
) -> dict[int, Part]:
    """Voice -> part: by its series, else as it was, else drawn."""
    named = _most_protected((voices[clip.speaker], explicit[clip.series]) for clip in clips)
    before = before_of(earlier)
    known = _most_protected(
        (voices[clip.speaker], before.get(key)) for clip in clips for key in (clip.id, clip.speaker)
    )
    taken = {part for part in explicit.values() if part is not None}
    drawable: list[Part] = [part for part in PARTS if part not in taken]
    kept = {voice: part for voice, part in known.items() if part in drawable and voice not in named}
    sizes = Counter(voices[clip.speaker] for clip in clips)
    drawn = _draw(sizes, kept, kept.keys() | named.keys(), drawable, settings) if drawable else {}
    silent: dict[int, Part] = dict.fromkeys(voices.values(), "train")  # voices without a readable clip
    return silent | drawn | kept | named


def before_of(earlier: Split | None) -> dict[str, Part]:
    """Utterance and speaker -> the part it was in; speakers have slashes, utterances none."""
    if earlier is None:
        return {}
    by_id = {id_: part for part in PARTS for id_ in earlier.ids(part)}
    return {speaker: voice.part for voice in earlier.voices for speaker in voice.speakers} | by_id


def _most_protected(wishes: Iterable[tuple[int, Part | None]]) -> dict[int, Part]:
    chosen: dict[int, Part] = {}
    for voice, part in wishes:
        if part is not None and PARTS.index(part) >= PARTS.index(chosen.get(voice, "train")):
            chosen[voice] = part
    return chosen


def shares(settings: SplitSettings, clips: int) -> dict[Part, float]:
    """Return the share of each part. Among fewer than FAIR clips, the ten best hits of a query say little."""
    least = min(FAIR / max(clips, 1), LARGEST_SHARE)
    share: dict[Part, float] = {
        "validation": max(settings.validation_share, least),
        "test": max(settings.test_share, least),
    }
    return share | {"train": 1 - sum(share.values())}


def _draw(
    sizes: Counter[int], kept: dict[int, Part], settled: Set[int], parts: list[Part], settings: SplitSettings
) -> dict[int, Part]:
    """Give the largest voices first, each to the part that lacks most; then fill up parts."""
    rng = np.random.default_rng(settings.seed)
    jitter = {voice: rng.uniform(0.5, 1) for voice in sorted(sizes)}
    order = sorted(sizes.keys() - settled, key=lambda voice: -sizes[voice] * jitter[voice])
    have = Counter({part: sum(sizes[v] for v, p in kept.items() if p == part) for part in parts})
    total = have.total() + sum(sizes[voice] for voice in order)
    share = shares(settings, total)
    whole = sum(share[part] for part in parts)
    drawn: dict[int, Part] = {}
    for voice in order:
        drawn[voice] = max(parts, key=lambda part: share[part] / whole * total - have[part])
        have[drawn[voice]] += sizes[voice]
    _fill_up(drawn, have, sizes, settings)
    return drawn


def _fill_up(drawn: dict[int, Part], have: Counter[Part], sizes: Counter[int], settings: SplitSettings) -> None:
    """Move voices to parts below the minimum of the settings, from parts that can spare them."""
    need = {part: settings.min_train_clips if part == "train" else settings.min_eval_clips for part in have}
    for part in have:
        while have[part] < need[part]:
            spare = [v for v, p in drawn.items() if p != part and have[p] - sizes[v] >= need[p]]
            if not spare:
                break
            enough = [v for v in spare if have[part] + sizes[v] >= need[part]]
            voice = min(enough, key=lambda v: sizes[v]) if enough else max(spare, key=lambda v: sizes[v])
            have[drawn[voice]] -= sizes[voice]
            have[part] += sizes[voice]
            drawn[voice] = part


def out_of_place(
    clips: list[Clip],
    voices: dict[str, int],
    explicit: dict[str, Part | None],
    parts: dict[int, Part],
    earlier: Split | None,
) -> dict[str, str]:
    """Clips that cannot be in their voice's part: of another series, or known before."""
    by_series = {voices[clip.speaker] for clip in clips if explicit[clip.series] is not None}
    before = {} if earlier is None else {id_: part for part in PARTS for id_ in earlier.ids(part)}
    gone = {} if earlier is None else {i: why for i, why in earlier.removed.items() if why.startswith(_MOVED)}
    removed = {}
    for clip in clips:
        part = parts[voices[clip.speaker]]
        if voices[clip.speaker] in by_series:
            if explicit[clip.series] != part:
                removed[clip.id] = f"its voice is in {part}"
        elif clip.id in gone:
            removed[clip.id] = gone[clip.id]
        elif before.get(clip.id, part) != part:
            removed[clip.id] = f"{_MOVED}it was in {before[clip.id]}, its voice is now in {part}"
    return removed
