"""Split a corpus into training, validation and test parts that share neither a voice nor a text."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from fsclap.clustering import cluster, mean_embeddings, vectors
from fsclap.data.captions import caption_key
from fsclap.files import written_aside

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
"""From the least to the most protected."""
MIN_WORDS = 4
"""Transcripts of fewer words, such as "Yes.", may be in several parts."""

_MOVED = "voice moved: "


class TooSmall(ValueError):  # noqa: N818
    """A corpus, or a part of it, has too few clips to train or to measure on."""


class SplitSettings(BaseModel):
    """How a corpus is split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, description="Seed of the draw of voices")
    validation_share: float = Field(0.1, gt=0, lt=0.5, description="Share of the clips that select the best epoch")
    test_share: float = Field(0.1, gt=0, lt=0.5, description="Share of the clips that nothing is selected by")
    validation_series: tuple[str, ...] = Field(
        (), description="Series of the validation part, as patterns (*, ?); none: draw voices by share"
    )
    test_series: tuple[str, ...] = Field(
        (), description="Series of the test part, as patterns (*, ?); none: draw voices by share"
    )
    voice_similarity: float = Field(
        0.7,
        gt=0,
        le=1,
        description="Speakers of different episodes count as one voice if the cosine of their mean embeddings is at "
        "least this. Resemblyzer: the same voice 0.8 or more, two voices about 0.55; lower is safer, but leaves "
        "fewer voices",
    )
    min_train_clips: int = Field(32, ge=2, description="Refuse a corpus with fewer clips to train on")
    min_eval_clips: int = Field(8, ge=2, description="Refuse a corpus with fewer clips to validate or to test on")


class Voice(BaseModel):
    """Speakers of one or several episodes that sound like one person, and the part they are in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: Part
    speakers: list[str]


class Split(BaseModel):
    """The parts of a corpus, as plain data.

    Attributes:
        settings: How it was made.
        train: Utterance ids of the training part, sorted.
        validation: Utterance ids of the validation part, sorted.
        test: Utterance ids of the test part, sorted.
        removed: Utterance id -> why it is in no part.
        voices: All voices of the corpus.
        nearest: For validation and test, `nearest_training_speaker`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: SplitSettings
    train: list[str]
    validation: list[str]
    test: list[str]
    removed: dict[str, str]
    voices: list[Voice]
    nearest: dict[Part, float | None]

    def ids(self, part: Part) -> list[str]:
        """Return the utterance ids of a part."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[part]

    def nearest_training_speaker(self, part: Part) -> float | None:
        """Return the highest cosine between mean embeddings of `part` and of training.

        None for a corpus without speaker embeddings.
        """
        return self.nearest[part]

    @property
    def digest(self) -> str:
        """SHA-256 of the split, 64 hexadecimal digits."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the split, whole or not at all."""
        with written_aside(path) as part:
            part.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Split":
        return cls.model_validate_json(path.read_bytes())


def make_split(table: pa.Table, settings: SplitSettings, earlier: Split | None = None) -> Split:
    """Split a corpus by voice, or by series, so that no text or recording is in two parts.

    By voice: speaker labels are local to an episode, so speakers with similar mean embeddings count
    as one voice, and a voice is in one part as a whole. By series (`validation_series`,
    `test_series`): the part consists of the clips of these series; other clips of a voice in them
    are removed.

    By text: a clip is removed from training if a clip of validation or test has the same caption,
    transcript (of MIN_WORDS or more) or recording; and from validation if one of test has.

    With `earlier`, the split of another version of the corpus, what was drawn stays: a voice is in
    the part its utterances and speakers were in, and only new voices are drawn. If new clips join
    two voices of different parts into one, it takes the most protected part (test, then
    validation), and its clips from another part are removed for good: an earlier model knows them,
    so they must not measure it, and they share a voice with clips that do, so no model may train on
    them.

    Args:
        table: `utterance_id`, `series`, `speaker`, `caption`, `text`, `speaker_embedding` of each
            clip. With `audio_sha256`, equal recordings are found; with `defect` (`ClipStore.table`
            has both), unreadable clips are removed.
        settings: Shares, seed and limits.
        earlier: Split that voices and clips keep their part of.

    Raises:
        TooSmall: A part would have too few clips.
        ValueError: A pattern matches no series.
    """
    clips = _read(table)
    speakers = mean_embeddings(zip(table["speaker"].to_pylist(), vectors(table["speaker_embedding"]), strict=True))
    voices = _voices(speakers, settings)
    explicit = _by_series(clips, settings)
    usable = [clip for clip in clips if clip.defect is None]
    parts = _parts(usable, voices, explicit, settings, earlier)
    removed = {clip.id: clip.defect for clip in clips if clip.defect is not None}
    removed |= _out_of_place(usable, voices, explicit, parts, earlier)
    kept: dict[Part, list[_Clip]] = {part: [] for part in PARTS}
    for clip in usable:
        if clip.id not in removed:
            kept[parts[voices[clip.speaker]]].append(clip)
    removed |= _shared(kept)
    kept = {part: [clip for clip in kept[part] if clip.id not in removed] for part in PARTS}
    _check_sizes(kept, removed, len(clips), len(set(voices.values())), settings)
    ids = {part: sorted(clip.id for clip in kept[part]) for part in PARTS}
    return Split(
        settings=settings,
        **ids,
        removed=dict(sorted(removed.items())),
        voices=_described(voices, parts),
        nearest=_nearest(kept, speakers),
    )


@dataclass(frozen=True, slots=True)
class _Clip:
    """What a split depends on; caption and text as `caption_key`."""

    id: str
    series: str
    speaker: str
    caption: str
    text: str
    audio: str | None
    defect: str | None


def _read(table: pa.Table) -> list[_Clip]:
    def column(name: str) -> list[Any]:
        return table[name].to_pylist() if name in table.column_names else [None] * table.num_rows

    names = ("utterance_id", "series", "speaker", "caption", "text", "audio_sha256", "defect")
    clips = []
    for id_, series, speaker, caption, text, audio, defect in zip(*map(column, names), strict=True):
        caption, text = caption_key(caption or ""), caption_key(text or "")
        defect = defect or (None if caption else "it has no caption")
        clips.append(_Clip(id_, series, speaker, caption, text, audio, defect))
    return clips


def _voices(speakers: dict[str, np.ndarray | None], settings: SplitSettings) -> dict[str, int]:
    """Speaker -> number of its voice; each speaker without an embedding is a separate voice.

    Voices are not the persons of `fsclap.corpus.linking`: linking must not join two people, while a
    split must not separate one, since a voice in two parts is a leak. So the threshold is lower,
    series are compared with each other, and two labels of one episode may be one voice.
    """
    embedded = {speaker: vector for speaker, vector in sorted(speakers.items()) if vector is not None}
    voices: dict[str, int] = {}
    if embedded:
        threshold = 1 - settings.voice_similarity
        labels = cluster(np.stack(list(embedded.values())), threshold=threshold, max_clusters=len(embedded))
        voices = dict(zip(embedded, labels.tolist(), strict=True))
    for speaker in sorted(speakers.keys() - embedded.keys()):
        voices[speaker] = len(set(voices.values()))
    return voices


def _by_series(clips: list[_Clip], settings: SplitSettings) -> dict[str, Part | None]:
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


def _parts(
    clips: list[_Clip],
    voices: dict[str, int],
    explicit: dict[str, Part | None],
    settings: SplitSettings,
    earlier: Split | None,
) -> dict[int, Part]:
    """Voice -> part: by its series, else as it was, else drawn."""
    named = _most_protected((voices[clip.speaker], explicit[clip.series]) for clip in clips)
    before = _before(earlier)
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


def _before(earlier: Split | None) -> dict[str, Part]:
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


def _draw(
    sizes: Counter[int], kept: dict[int, Part], settled: Set[int], parts: list[Part], settings: SplitSettings
) -> dict[int, Part]:
    """Give the largest voices first, each to the part that lacks most; then fill up parts."""
    rng = np.random.default_rng(settings.seed)
    jitter = {voice: rng.uniform(0.5, 1) for voice in sorted(sizes)}
    order = sorted(sizes.keys() - settled, key=lambda voice: -sizes[voice] * jitter[voice])
    share = {"validation": settings.validation_share, "test": settings.test_share}
    share["train"] = 1 - sum(share.values())
    have = Counter({part: sum(sizes[v] for v, p in kept.items() if p == part) for part in parts})
    total = have.total() + sum(sizes[voice] for voice in order)
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


def _out_of_place(
    clips: list[_Clip],
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


def _shared(kept: dict[Part, list[_Clip]]) -> dict[str, str]:
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


def _contents(clip: _Clip) -> list[tuple[str, str]]:
    contents = [("caption", clip.caption)]
    if len(clip.text.split()) >= MIN_WORDS:
        contents.append(("transcript", clip.text))
    if clip.audio is not None:
        contents.append(("recording", clip.audio))
    return contents


def _check_sizes(
    kept: dict[Part, list[_Clip]], removed: dict[str, str], clips: int, voices: int, settings: SplitSettings
) -> None:
    needed = {"train": settings.min_train_clips}
    if all(len(kept[part]) >= needed.get(part, settings.min_eval_clips) for part in PARTS):
        return
    sizes = ", ".join(f"{part} {len(kept[part])}" for part in PARTS)
    raise TooSmall(
        f"the corpus is too small to train on: {clips} clips of {voices} voices give {sizes} ({len(removed)} removed"
        f"{_why(removed)}). It needs {settings.min_train_clips} to train, {settings.min_eval_clips} each to validate "
        "and to test, and at least three voices. Add sources with other speakers, or lower split.min_train_clips and "
        "split.min_eval_clips."
    )


def _why(removed: dict[str, str]) -> str:
    common = Counter(removed.values()).most_common(3)
    return "".join(f"; {count} as {why}" for why, count in common)


def _described(voices: dict[str, int], parts: dict[int, Part]) -> list[Voice]:
    speakers: dict[int, list[str]] = {}
    for speaker, voice in sorted(voices.items()):
        speakers.setdefault(voice, []).append(speaker)
    return [Voice(part=parts[voice], speakers=names) for voice, names in speakers.items()]


def _nearest(kept: dict[Part, list[_Clip]], speakers: dict[str, np.ndarray | None]) -> dict[Part, float | None]:
    def means(part: Part) -> list[np.ndarray]:
        embeddings = (speakers[speaker] for speaker in sorted({clip.speaker for clip in kept[part]}))
        return [vector for vector in embeddings if vector is not None]

    trained = means("train")
    nearest: dict[Part, float | None] = {}
    for part in PARTS[1:]:
        tested = means(part)
        nearest[part] = float((np.stack(tested) @ np.stack(trained).T).max()) if tested and trained else None
    return nearest
