"""Who is who across the episodes of a series.

Diarization labels speakers within one recording: S00 of one episode and S00 of the next have
nothing to do with each other. Here the mean embeddings of the speakers of a series are clustered
into persons, by average link on their cosine, such that two speakers of one episode are never the
same person: diarization has compared them already. It may have split one voice in two; but a person who
is found twice does less harm than two people who are one.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy  # its parts load when they are used: they take seconds, and every flow imports this module
from pydantic import BaseModel, ConfigDict, Field

from fsclap import Seconds
from fsclap.clustering import in_order, mean_embeddings, normalized, vectors
from fsclap.settings import known_threshold

log = logging.getLogger(__name__)

THRESHOLDS: Mapping[str, float] = MappingProxyType({"funasr": 0.75, "whisper-campplus": 0.75})
"""Mean cosine of centroids from which speakers are one person, for each diarization engine.

Chosen on the dev half of `python -m bench.linking`, with the CAM++ of whisper-campplus. It lies above the
cosine that tells single clips apart (0.30), since a mean has less noise than a clip. That of funasr is the
same network trained on Mandarin alone: measure it before relying on the value.
"""

MAX_SPEAKERS = 8000
"""Speakers in a series whose cosines are held at once; they take 4 n^2 bytes, twice: 0.5 GB."""


class LinkingSettings(BaseModel):
    """Whether and how speakers of different episodes become one person."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(
        default=True,
        description="Write a table of speakers that says who is the same person across the episodes of a series. It "
        "changes no utterance and takes less than a second for 50 episodes. Turn it off for sources that "
        "share no speakers.",
    )
    threshold: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Mean cosine between speakers' mean embeddings from which they are one person. Higher joins fewer "
        "people by mistake, and splits more. None: the value for the diarization engine "
        "(whisper-campplus: 0.75, measured; funasr: 0.75, taken over from it).",
    )


@dataclass(frozen=True, slots=True, eq=False)
class SpeakerCentroid:
    """A speaker of one episode.

    Attributes:
        name: Unique; "{series}/{episode}#{source}/S00".
        source: The recording's id: two may have one series and one episode name.
        centroid: (dim,) mean of the speaker's clip embeddings, of any positive norm; None when none
            has one.
        clips: How many there are.
        seconds: How long they are together.
    """

    name: str
    source: str
    series: str
    episode: str
    centroid: np.ndarray | None
    clips: int
    seconds: Seconds


@dataclass(frozen=True, slots=True)
class LinkedSpeaker:
    """A speaker of one episode and the person it is: a row of the table `speakers`.

    Attributes:
        speaker: As in the utterances.
        linked_speaker: The person: the name of the person's first speaker, by episode in natural
            order ("e2" before "e10"). It stays when episodes are added after that one, unless what
            they add joins or parts persons.
        similarity: Mean cosine to the person's other speakers; None for a person with one.
    """

    speaker: str
    linked_speaker: str
    series: str
    episode: str
    clips: int
    seconds: Seconds
    similarity: float | None


def effective_threshold(settings: LinkingSettings, engine: str) -> float:
    """Return the threshold in use: the one set, or the engine's.

    Raises:
        ValueError: None is set, and none is known for the engine.
    """
    if settings.threshold is not None:
        return settings.threshold
    return known_threshold(THRESHOLDS, engine, setting="linking.threshold")


def speakers_of(utterances: pa.Table) -> list[SpeakerCentroid]:
    """Collect the speakers of a corpus, or of some of its series.

    Args:
        utterances: `source_id`, `series`, `episode`, `speaker`, `duration`, `speaker_embedding` of
            each clip. A speaker that occurs in several sources, as earlier versions could name
            them, is left out: its mean would be of several people.
    """
    utterances = _of_one_source(utterances)
    names = utterances["speaker"].to_pylist()
    centroids = mean_embeddings(zip(names, vectors(utterances["speaker_embedding"]), strict=True))
    clips = dict.fromkeys(centroids, 0)
    seconds = dict.fromkeys(centroids, 0.0)
    places: dict[str, tuple[str, str, str]] = {}
    columns = (utterances[column].to_pylist() for column in ("source_id", "series", "episode", "duration"))
    for name, source, series, episode, duration in zip(names, *columns, strict=True):
        clips[name] += 1
        seconds[name] += duration
        places[name] = (source, series, episode)
    return [
        SpeakerCentroid(name, *places[name], vector, clips[name], seconds[name]) for name, vector in centroids.items()
    ]


def _of_one_source(utterances: pa.Table) -> pa.Table:
    sources: dict[str, set[str]] = {}
    for name, source in zip(utterances["speaker"].to_pylist(), utterances["source_id"].to_pylist(), strict=True):
        sources.setdefault(name, set()).add(source)
    shared = [name for name, found in sources.items() if len(found) > 1]
    if not shared:
        return utterances
    log.warning(
        "linking: %d speakers occur in several sources, such as %s, and are left out. `fsclap corpus verify` names "
        "the sources, `fsclap corpus repair` takes them out, and the next build makes them again.",
        len(shared),
        shared[0],
    )
    return utterances.filter(pc.invert(pc.is_in(utterances["speaker"], pa.array(shared))))


def link(speakers: Sequence[SpeakerCentroid], settings: LinkingSettings, *, engine: str) -> list[LinkedSpeaker]:
    """Find the persons of each series.

    O(n^2) time and memory in the speakers of the largest series. The result does not depend on the
    order of `speakers`.

    Args:
        speakers: Of any number of series; series have nothing to do with each other.
        settings: What makes a person.
        engine: `Diarizer.name` of the engine that made the embeddings.

    Returns:
        A row for each speaker, by series and episode. A speaker without a centroid is a person
        alone, and so is every speaker of a series that has more than MAX_SPEAKERS.

    Raises:
        ValueError: Two speakers have one name, a centroid has no direction (zero, NaN, infinite),
            or two of a series are not of one length.
    """
    threshold = effective_threshold(settings, engine)
    _check(speakers)
    ordered = sorted(speakers, key=lambda s: (s.series, _natural(s.episode), s.episode, s.name))
    rows: list[LinkedSpeaker] = []
    for _, series in groupby(ordered, key=lambda s: s.series):
        rows.extend(_link_series(list(series), threshold))
    return rows


def _check(speakers: Sequence[SpeakerCentroid]) -> None:
    dims: dict[str, tuple[str, tuple[int, ...]]] = {}
    seen = set()
    for speaker in speakers:
        if speaker.name in seen:
            raise ValueError(f"speaker {speaker.name!r} is given twice; a speaker of one episode has one centroid")
        seen.add(speaker.name)
        if speaker.centroid is not None:
            norm = np.linalg.norm(speaker.centroid)
            if not (np.isfinite(norm) and norm > 0):
                raise ValueError(f"the centroid of speaker {speaker.name!r} has norm {norm}: it has no direction")
            other, shape = dims.setdefault(speaker.series, (speaker.name, speaker.centroid.shape))
            if shape != speaker.centroid.shape:
                raise ValueError(
                    f"the embeddings of {other!r}, {shape}, and {speaker.name!r}, {speaker.centroid.shape}, cannot be "
                    "compared: they come from different diarization engines. Rebuild the series with one engine."
                )


def _natural(name: str) -> list[str | int]:
    """Sorts "e2" before "e10": words at even places, numbers at odd ones."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _link_series(speakers: list[SpeakerCentroid], threshold: float) -> list[LinkedSpeaker]:
    embedded = [(s, s.centroid) for s in speakers if s.centroid is not None]
    if len(embedded) > MAX_SPEAKERS:
        log.warning(
            "linking: series %s has %d speakers, more than the %d that can be compared at once: none are linked. "
            "Split it into several, such as one per season.",
            speakers[0].series,
            len(embedded),
            MAX_SPEAKERS,
        )
        embedded = []
    found: dict[str, tuple[str, float | None]] = {}
    if embedded:
        directions = normalized(np.stack([centroid for _, centroid in embedded]).astype(np.float64))
        for members in _persons(directions, [s.source for s, _ in embedded], threshold):
            first = embedded[members[0]][0].name
            for index, similarity in zip(members, _similarities(directions[members]), strict=True):
                found[embedded[index][0].name] = (first, similarity)
    rows = []
    for s in speakers:
        person, similarity = found.get(s.name, (s.name, None))
        rows.append(LinkedSpeaker(s.name, person, s.series, s.episode, s.clips, s.seconds, similarity))
    return rows


def _persons(directions: np.ndarray, sources: Sequence[str], threshold: float) -> list[list[int]]:
    """Indexes of the speakers of each person, ascending.

    Average link with constraints is plain average link when the distance of two speakers who must
    not meet is so large that no mean which includes it comes below the threshold.
    """
    count = len(directions)
    if count == 1:
        return [[0]]
    _, source = np.unique(np.array(sources), return_inverse=True)
    distances = np.empty(count * (count - 1) // 2)
    apart = float(count * count)  # a mean is over less than count^2 / 2 pairs, so it is above 2, the largest distance
    at = 0
    for index in range(count - 1):
        row = slice(at, at := at + count - 1 - index)
        cosine = directions[index + 1 :] @ directions[index]
        distances[row] = np.where(source[index + 1 :] == source[index], apart, np.maximum(1 - cosine, 0))
    hierarchy = scipy.cluster.hierarchy
    tree = hierarchy.linkage(distances, method="average")
    labels = in_order(hierarchy.fcluster(tree, 1 - threshold, criterion="distance"))
    persons: list[list[int]] = [[] for _ in range(labels.max() + 1)]
    for index, label in enumerate(labels.tolist()):
        persons[label].append(index)
    return persons


def _similarities(directions: np.ndarray) -> Iterator[float | None]:
    """Mean cosine of each (dim,) row of unit norm to the others."""
    if len(directions) == 1:
        yield None
        return
    yield from np.clip((directions @ directions.sum(axis=0) - 1) / (len(directions) - 1), -1, 1).tolist()
