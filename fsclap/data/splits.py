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
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from fsclap.clustering import ROUNDING, cluster, connected, in_order, mean_embeddings, most_alike, vectors
from fsclap.data.captions import caption_key
from fsclap.files import written_aside

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
"""From the least to the most protected."""
MIN_WORDS = 4
"""Transcripts of fewer words, such as "Yes.", may be in several parts."""
FAIR, LARGEST_SHARE = 24, 0.2
"""Clips that validation and test should have, and the share of a small corpus that each may take for it."""

_MOVED = "voice moved: "
_ALIKE = "its speaker sounds like one in "


class TooSmall(ValueError):  # noqa: N818
    """A corpus, or a part of it, has too few clips to train or to measure on."""


class TooAlike(ValueError):  # noqa: N818
    """A speaker of validation or test sounds like one of training."""


class MixedEmbeddings(ValueError):  # noqa: N818
    """The speaker embeddings of a corpus come from several engines."""


class SplitSettings(BaseModel):
    """How a corpus is split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, description="Seed of the draw of voices")
    validation_share: float = Field(
        0.1,
        gt=0,
        lt=0.5,
        description="Share of the clips that select the best epoch; up to 0.2 in a corpus so small that it would be "
        "fewer than 24 clips",
    )
    test_share: float = Field(
        0.1, gt=0, lt=0.5, description="Share of the clips that nothing is selected by; in a small corpus as above"
    )
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
        description="No two speakers of different parts have mean embeddings with a cosine of this or more. "
        "CAM++: nine in ten pairs of one voice have 0.78 or more, nineteen in twenty of two voices 0.5 or less; lower is "
        "safer, but leaves fewer voices",
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

    No two speakers of different parts are as alike as `voice_similarity`. A chain of speakers, each
    that much like the next, is one voice, unless it has more clips than the share of training, or
    the settings or `earlier` put its clips in several parts, or whole chains would leave a part too
    small. It is then cut into the voices of average link, and a speaker of training who is as alike
    as that to one of validation or test is removed, and one of validation who is to one of test.

    By text: a clip is removed from training if a clip of validation or test has the same caption,
    transcript (of MIN_WORDS or more) or recording; and from validation if one of test has.

    With `earlier`, the split of another version of the corpus, what was drawn stays: a voice is in
    the part its utterances and speakers were in, and only new voices are drawn. If new clips join
    two voices of different parts into one, it takes the most protected part (test, then
    validation), and its clips from another part are removed for good: an earlier model knows them,
    so they must not measure it, and they share a voice with clips that do, so no model may train on
    them. A new speaker who is not of such a voice, but as alike as `voice_similarity` to an earlier
    speaker of another part, is removed rather than the earlier one.

    Args:
        table: `utterance_id`, `series`, `speaker`, `caption`, `text`, `speaker_embedding` of each
            clip. With `audio_sha256`, equal recordings are found; with `defect` (`ClipStore.table`
            has both), unreadable clips are removed.
        settings: Shares, seed and limits.
        earlier: Split that voices and clips keep their part of.

    Raises:
        TooSmall: A part would have too few clips.
        TooAlike: A speaker of validation or test is as alike as `voice_similarity` to one of training.
        MixedEmbeddings: The embeddings come from several diarization engines.
        ValueError: A pattern matches no series.
    """
    _check_embedder(table)
    clips = _read(table)
    speakers = mean_embeddings(zip(table["speaker"].to_pylist(), vectors(table["speaker_embedding"]), strict=True))
    corpus = _Corpus(
        clips=clips,
        usable=[clip for clip in clips if clip.defect is None],
        speakers=speakers,
        chains=_chains(speakers, settings),
        explicit=_by_series(clips, settings),
    )
    try:
        return _split(corpus, _divided(corpus, settings, earlier), settings, earlier)
    except TooSmall:
        # As few chains as leave a part empty may still be enough voices.
        return _split(corpus, set(corpus.chains.values()), settings, earlier)


def _check_embedder(table: pa.Table) -> None:
    """Refuse embeddings that cannot be compared."""
    if "diarization_engine" not in table.column_names:
        return
    with_voice = pc.greater(pc.list_value_length(table["speaker_embedding"]), 0)
    engines = sorted(pc.unique(table.filter(with_voice)["diarization_engine"]).to_pylist())
    if len({engine.partition("@")[0] for engine in engines}) > 1:
        raise MixedEmbeddings(
            f"the corpus holds voices of several diarization engines ({', '.join(engines)}), whose embeddings cannot be "
            "compared, so no split can keep a voice in one part. Build its sources again with one engine: the sources "
            "of the other are those with its name in the column diarization_engine"
        )


@dataclass(frozen=True, slots=True)
class _Corpus:
    """What there is to split: clips, `mean_embeddings`, `_chains` and `_by_series`."""

    clips: "list[_Clip]"
    usable: "list[_Clip]"
    speakers: dict[str, np.ndarray | None]
    chains: dict[str, int]
    explicit: dict[str, Part | None]


def _split(corpus: _Corpus, divided: Set[int], settings: SplitSettings, earlier: Split | None) -> Split:
    """Split a corpus in which some chains are several voices."""
    usable, speakers, explicit = corpus.usable, corpus.speakers, corpus.explicit
    voices = _voices(speakers, corpus.chains, divided, settings)
    parts = _parts(usable, voices, explicit, settings, earlier)
    removed = {clip.id: clip.defect for clip in corpus.clips if clip.defect is not None}
    removed |= _out_of_place(usable, voices, explicit, parts, earlier)
    kept: dict[Part, list[_Clip]] = {part: [] for part in PARTS}
    for clip in usable:
        if clip.id not in removed:
            kept[parts[voices[clip.speaker]]].append(clip)
    removed |= _sounding_alike(kept, speakers, _new_speakers(usable, explicit, earlier), settings)
    kept = _without(kept, removed)
    removed |= _shared(kept)
    kept = _without(kept, removed)
    _check_sizes(kept, removed, corpus, len(set(voices.values())), settings)
    nearest = {part: _nearest(kept[part], kept["train"], speakers) for part in PARTS[1:]}
    _check_voices(nearest, settings)
    ids = {part: sorted(clip.id for clip in kept[part]) for part in PARTS}
    return Split(
        settings=settings,
        **ids,
        removed=dict(sorted(removed.items())),
        voices=_described(voices, parts),
        nearest={part: pair and pair.cosine for part, pair in nearest.items()},
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


def _embedded(speakers: dict[str, np.ndarray | None], names: Iterable[str]) -> tuple[list[str], np.ndarray]:
    """Those of some speakers that have an embedding, sorted, and their (n, dim) embeddings."""
    found = {name: vector for name in sorted(names) if (vector := speakers[name]) is not None}
    return list(found), np.stack(list(found.values())) if found else np.empty((0, 1))


def _chains(speakers: dict[str, np.ndarray | None], settings: SplitSettings) -> dict[str, int]:
    """Speaker with an embedding -> number of its chain; those of two chains are not alike."""
    names, points = _embedded(speakers, speakers)
    return dict(zip(names, connected(points, similarity=settings.voice_similarity).tolist(), strict=True))


def _divided(corpus: _Corpus, settings: SplitSettings, earlier: Split | None) -> set[int]:
    """Chains that cannot be in one part as a whole without harm to the parts.

    They have more clips than training may have, or whoever chose series or made an earlier split
    has put their speakers in several parts.
    """
    before = _before(earlier)
    sizes: Counter[int] = Counter()
    named: dict[int, set[Part | None]] = {}
    known: dict[int, set[Part | None]] = {}
    for clip in corpus.usable:
        if clip.speaker in corpus.chains:
            chain = corpus.chains[clip.speaker]
            sizes[chain] += 1
            named.setdefault(chain, set()).add(corpus.explicit[clip.series])
            known.setdefault(chain, set()).update((before.get(clip.id), before.get(clip.speaker)))
    most = _shares(settings, len(corpus.usable))["train"] * len(corpus.usable)
    return {
        chain for chain, size in sizes.items() if size > most or len(named[chain]) > 1 or len(known[chain] - {None}) > 1
    }


def _voices(
    speakers: dict[str, np.ndarray | None], chains: dict[str, int], divided: Set[int], settings: SplitSettings
) -> dict[str, int]:
    """Speaker -> number of its voice; each speaker without an embedding is a separate voice.

    Voices are not the persons of `fsclap.corpus.linking`: linking must not join two people, while a
    split must not separate one, since a voice in two parts is a leak. So the threshold is lower,
    series are compared with each other, and two labels of one episode may be one voice.
    """
    names, points = _embedded(speakers, speakers)
    chain = np.array([chains[name] for name in names], dtype=np.int64)
    inner = np.zeros(len(names), dtype=np.int64)
    for number in sorted(divided):
        rows = np.flatnonzero(chain == number)
        inner[rows] = cluster(points[rows], threshold=1 - settings.voice_similarity, max_clusters=len(rows))
    voices = dict(zip(names, in_order(chain * len(names) + inner).tolist(), strict=True))
    count = len(set(voices.values()))
    return voices | {name: count + i for i, name in enumerate(sorted(speakers.keys() - voices.keys()))}


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


def _shares(settings: SplitSettings, clips: int) -> dict[Part, float]:
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
    share = _shares(settings, total)
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


def _without(kept: dict[Part, list[_Clip]], removed: dict[str, str]) -> dict[Part, list[_Clip]]:
    return {part: [clip for clip in kept[part] if clip.id not in removed] for part in PARTS}


def _new_speakers(clips: list[_Clip], explicit: dict[str, Part | None], earlier: Split | None) -> set[str]:
    """Speakers that a part was drawn for, and that the earlier split had no clip of in any part."""
    if earlier is None:
        return set()
    before = {id_ for part in PARTS for id_ in earlier.ids(part)}
    old = {clip.speaker for clip in clips if clip.id in before or explicit[clip.series] is not None}
    return {clip.speaker for clip in clips} - old


def _sounding_alike(
    kept: dict[Part, list[_Clip]],
    speakers: dict[str, np.ndarray | None],
    new: Set[str],
    settings: SplitSettings,
) -> dict[str, str]:
    """Clips of speakers as alike as the settings allow in one part only to one of another part.

    Of two such speakers the new one goes; else the one of the less protected part.
    """
    heard = {part: {clip.speaker for clip in kept[part]} for part in PARTS}
    gone: dict[str, str] = {}

    def compare(part: Part, names: Set[str], other: Part, others: Set[str]) -> None:
        (mine, points), (theirs, against) = (_embedded(speakers, some - gone.keys()) for some in (names, others))
        if mine and theirs:
            alike = most_alike(points, against)[0] >= settings.voice_similarity - ROUNDING
            gone.update((name, _ALIKE + other) for name, is_ in zip(mine, alike, strict=True) if is_)

    pairs = [(part, other) for other in reversed(PARTS) for part in reversed(PARTS) if part != other]
    for part, other in pairs:
        compare(part, heard[part] & new, other, heard[other] - new)
    for part, other in pairs:
        if PARTS.index(part) < PARTS.index(other):
            compare(part, heard[part], other, heard[other])
    return {clip.id: gone[clip.speaker] for part in PARTS for clip in kept[part] if clip.speaker in gone}


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
    kept: dict[Part, list[_Clip]], removed: dict[str, str], corpus: _Corpus, voices: int, settings: SplitSettings
) -> None:
    needed = {"train": settings.min_train_clips}
    if all(len(kept[part]) >= needed.get(part, settings.min_eval_clips) for part in PARTS):
        return
    sizes = ", ".join(f"{part} {len(kept[part])}" for part in PARTS)
    raise TooSmall(
        f"the corpus is too small to train on: {len(corpus.clips)} clips of {voices} voices give {sizes} "
        f"({len(removed)} removed{_why(removed)}). It needs {settings.min_train_clips} to train, "
        f"{settings.min_eval_clips} each to validate and to test, and at least three voices. Add sources with other "
        f"speakers, or lower split.min_train_clips and split.min_eval_clips.{_chained(corpus, settings)}"
    )


def _chained(corpus: _Corpus, settings: SplitSettings) -> str:
    """Say so if a chain of several speakers has half of the clips or more."""
    chains = corpus.chains
    sizes = Counter(chains[clip.speaker] for clip in corpus.usable if clip.speaker in chains)
    for chain, size in sizes.most_common(1):
        speakers = sum(number == chain for number in chains.values())
        if speakers > 1 and size >= len(corpus.usable) / 2:
            return (
                f" {speakers} speakers with {size} of the clips are a chain in which each sounds like the next (a "
                f"cosine of {settings.voice_similarity:g} or more), and no two such speakers can be in different "
                "parts. If they are several people, raise split.voice_similarity."
            )
    return ""


def _check_voices(nearest: "dict[Part, _Pair | None]", settings: SplitSettings) -> None:
    for part, pair in nearest.items():
        if pair is not None and pair.cosine >= settings.voice_similarity:
            raise TooAlike(
                f"speaker {pair.speaker} of {part} and speaker {pair.trained} of training are too alike: the cosine of "
                f"their mean embeddings is {pair.cosine:.3f}, and from {settings.voice_similarity:g} on "
                "(split.voice_similarity) two speakers may be one person, whom a model must not be trained and "
                "measured on. Remove the clips of one of them, or, if they are two people, raise "
                "split.voice_similarity above their cosine."
            )


def _why(removed: dict[str, str]) -> str:
    common = Counter(removed.values()).most_common(3)
    return "".join(f"; {count} as {why}" for why, count in common)


def _described(voices: dict[str, int], parts: dict[int, Part]) -> list[Voice]:
    speakers: dict[int, list[str]] = {}
    for speaker, voice in sorted(voices.items()):
        speakers.setdefault(voice, []).append(speaker)
    return [Voice(part=parts[voice], speakers=names) for voice, names in speakers.items()]


@dataclass(frozen=True, slots=True)
class _Pair:
    """A speaker, the training speaker that is most alike to it, and their cosine."""

    speaker: str
    trained: str
    cosine: float


def _nearest(clips: list[_Clip], trained: list[_Clip], speakers: dict[str, np.ndarray | None]) -> _Pair | None:
    """Find the speaker of some clips who is most like one of training; None without embeddings."""
    (mine, points), (theirs, against) = (
        _embedded(speakers, {clip.speaker for clip in some}) for some in (clips, trained)
    )
    if not mine or not theirs:
        return None
    cosines, rows = most_alike(points, against)
    best = int(cosines.argmax())
    return _Pair(speaker=mine[best], trained=theirs[rows[best]], cosine=float(cosines[best]))
