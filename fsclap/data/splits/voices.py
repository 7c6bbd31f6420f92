"""Speakers who may be one person: the voices of a corpus, and who of one part sounds like one of another."""

from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fsclap.clustering import ROUNDING, cluster, connected, in_order, most_alike
from fsclap.data.splits.base import PARTS, MixedEmbeddings, Part, Split, SplitSettings
from fsclap.data.splits.contents import Clip, Corpus
from fsclap.data.splits.draw import before_of, shares

ALIKE = "its speaker sounds like one in "


def check_embedder(table: pa.Table) -> None:
    """Refuse embeddings that cannot be compared."""
    if "diarization_engine" not in table.column_names:
        return
    with_voice = pc.greater(pc.list_value_length(table["speaker_embedding"]), 0)
    engines = sorted(pc.unique(table.filter(with_voice)["diarization_engine"]).to_pylist())
    if len({engine.partition("@")[0] for engine in engines}) > 1:
        raise MixedEmbeddings(
            f"the corpus holds voices of several diarization engines ({', '.join(engines)}), whose embeddings cannot "
            "be compared, so no split can keep a voice in one part. Build its sources again with one engine: the sources "
            "of the other are those with its name in the column diarization_engine"
        )


def embedded(speakers: dict[str, np.ndarray | None], names: Iterable[str]) -> tuple[list[str], np.ndarray]:
    """Those of some speakers that have an embedding, sorted, and their (n, dim) embeddings."""
    found = {name: vector for name in sorted(names) if (vector := speakers[name]) is not None}
    return list(found), np.stack(list(found.values())) if found else np.empty((0, 1))


def chains_of(speakers: dict[str, np.ndarray | None], settings: SplitSettings) -> dict[str, int]:
    """Speaker with an embedding -> number of its chain; those of two chains are not alike."""
    names, points = embedded(speakers, speakers)
    return dict(zip(names, connected(points, similarity=settings.voice_similarity).tolist(), strict=True))


def to_divide(corpus: Corpus, settings: SplitSettings, earlier: Split | None) -> set[int]:
    """Chains that cannot be in one part as a whole without harm to the parts.

    They have more clips than training may have, or whoever chose series or made an earlier split
    has put their speakers in several parts.
    """
    before = before_of(earlier)
    sizes: Counter[int] = Counter()
    named: dict[int, set[Part | None]] = {}
    known: dict[int, set[Part | None]] = {}
    for clip in corpus.usable:
        if clip.speaker in corpus.chains:
            chain = corpus.chains[clip.speaker]
            sizes[chain] += 1
            named.setdefault(chain, set()).add(corpus.explicit[clip.series])
            known.setdefault(chain, set()).update((before.get(clip.id), before.get(clip.speaker)))
    most = shares(settings, len(corpus.usable))["train"] * len(corpus.usable)
    return {
        chain for chain, size in sizes.items() if size > most or len(named[chain]) > 1 or len(known[chain] - {None}) > 1
    }


def voices_of(
    speakers: dict[str, np.ndarray | None], chains: dict[str, int], divided: Set[int], settings: SplitSettings
) -> dict[str, int]:
    """Speaker -> number of its voice; each speaker without an embedding is a separate voice.

    Voices are not the persons of `fsclap.corpus.linking`: linking must not join two people, while a
    split must not separate one, since a voice in two parts is a leak. So the threshold is lower,
    series are compared with each other, and two labels of one episode may be one voice.
    """
    names, points = embedded(speakers, speakers)
    chain = np.array([chains[name] for name in names], dtype=np.int64)
    inner = np.zeros(len(names), dtype=np.int64)
    for number in sorted(divided):
        rows = np.flatnonzero(chain == number)
        inner[rows] = cluster(points[rows], threshold=1 - settings.voice_similarity, max_clusters=len(rows))
    voices = dict(zip(names, in_order(chain * len(names) + inner).tolist(), strict=True))
    count = len(set(voices.values()))
    return voices | {name: count + i for i, name in enumerate(sorted(speakers.keys() - voices.keys()))}


def new_speakers(clips: list[Clip], explicit: dict[str, Part | None], earlier: Split | None) -> set[str]:
    """Speakers that a part was drawn for, and that the earlier split had no clip of in any part."""
    if earlier is None:
        return set()
    before = {id_ for part in PARTS for id_ in earlier.ids(part)}
    old = {clip.speaker for clip in clips if clip.id in before or explicit[clip.series] is not None}
    return {clip.speaker for clip in clips} - old


def sounding_alike(
    kept: dict[Part, list[Clip]],
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
        (mine, points), (theirs, against) = (embedded(speakers, some - gone.keys()) for some in (names, others))
        if mine and theirs:
            alike = most_alike(points, against)[0] >= settings.voice_similarity - ROUNDING
            gone.update((name, ALIKE + other) for name, is_ in zip(mine, alike, strict=True) if is_)

    pairs = [(part, other) for other in reversed(PARTS) for part in reversed(PARTS) if part != other]
    for part, other in pairs:
        compare(part, heard[part] & new, other, heard[other] - new)
    for part, other in pairs:
        if PARTS.index(part) < PARTS.index(other):
            compare(part, heard[part], other, heard[other])
    return {clip.id: gone[clip.speaker] for part in PARTS for clip in kept[part] if clip.speaker in gone}


@dataclass(frozen=True, slots=True)
class Pair:
    """A speaker, the training speaker that is most alike to it, and their cosine."""

    speaker: str
    trained: str
    cosine: float


def nearest_pair(clips: list[Clip], trained: list[Clip], speakers: dict[str, np.ndarray | None]) -> Pair | None:
    """Find the speaker of some clips who is most like one of training; None without embeddings."""
    (mine, points), (theirs, against) = (
        embedded(speakers, {clip.speaker for clip in some}) for some in (clips, trained)
    )
    if not mine or not theirs:
        return None
    cosines, rows = most_alike(points, against)
    best = int(cosines.argmax())
    return Pair(speaker=mine[best], trained=theirs[rows[best]], cosine=float(cosines[best]))
