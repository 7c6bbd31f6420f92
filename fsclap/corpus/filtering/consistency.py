"""The consistency filter: a clip stays if it sounds like its speaker's others (Eq. 4-5).

Eq. 4 is the cosine of two clips' speaker embeddings. Eq. 5 maps it to [0, 1] by (cos + 1) / 2 and
takes the mean over the *other* clips of the same speaker in the same recording. A setting compares with
the speaker's core instead: the half of the clips that are most alike, among which there are few strangers.

Events, such as cries and laughs, have no say: a cry does not sound like its speaker's speech. They stay where some of
that speech does; else nobody knows whose voice it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fsclap.corpus.filtering.selection import Exclusion
from fsclap.corpus.turns import NOISE, Turn
from fsclap.settings import known_threshold

THRESHOLDS: Mapping[str, float] = MappingProxyType({"funasr": 0.65, "whisper-campplus": 0.65})
"""Mapped similarity from which a clip is kept, for each diarization engine.

0.65 is the paper's: with CAM++, which both engines use, a mean cosine of 0.30, next to that model's
verification threshold (0.31). `python -m bench.consistency` measures what it does on contaminated
clusters; see docs/measurements.md.
"""

Scale = Literal["mapped", "cosine"]

ROWS = 1024
"""Clips whose cosines with all others are held at once: 80 MB for 10,000 clips of one speaker."""


class ConsistencySettings(BaseModel):
    """What makes a clip consistent with its speaker."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="Mean similarity, on `scale`, from which a clip is kept. None: the value calibrated for the "
        "diarization engine (mapped: 0.65, the paper's, for both).",
    )
    compared_with: Literal["others", "core"] = Field(
        default="others",
        description="Which clips of the speaker a clip is compared with. others: all, Eq. 5 of the paper. core: the "
        "half that are most alike. Where a tenth or more of a speaker's clips are another's, core removes as many of "
        "those at the same threshold and loses half as many of the right ones.",
    )
    scale: Scale = Field(
        default="mapped", description="mapped: (cos + 1) / 2 in [0, 1], as in the paper. cosine: in [-1, 1]."
    )
    singletons: Literal["drop", "keep"] = Field(
        default="drop",
        description="What to do with a speaker's only clip in a recording, for which Eq. 5 is undefined.",
    )

    @model_validator(mode="after")
    def _threshold_is_on_the_scale(self) -> Self:
        if self.scale == "mapped" and self.threshold is not None and self.threshold < 0:
            raise ValueError(f"threshold {self.threshold} is not in [0, 1], the mapped scale")
        return self


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a turn stays.

    Attributes:
        similarity: Its mean similarity to its speaker's other turns, or to the core of them, on the
            scale of the settings; None where it is not defined (the only turn of its speaker, no
            speaker, no embedding, an event) or not computed (the turn was excluded before).
        kept: Whether it stays.
        reason: Why it does not: `noise_cluster`, `no_embedding`, `single_turn_speaker`,
            `below_threshold`, `speaker_without_speech`, or the reason of its exclusion.
        detail: The same in a sentence.
        stage: Which stage decided: `consistency`, or `selection` for what was left out before.
    """

    similarity: float | None
    kept: bool
    reason: str | None = None
    detail: str | None = None
    stage: str = "consistency"


UNKNOWN_VOICE = Verdict(
    None, False, "speaker_without_speech", "an event of a speaker of whom no speech is kept: it could be anybody's"
)


def effective_threshold(settings: ConsistencySettings, engine: str) -> float:
    """Return the threshold in use, on the scale of the settings: the one set, or the engine's.

    Args:
        settings: The filter's settings.
        engine: `Diarizer.name` of the engine whose embeddings are compared.

    Raises:
        ValueError: None is set, and none is known for the engine.
    """
    if settings.threshold is not None:
        return settings.threshold
    mapped = known_threshold(THRESHOLDS, engine, setting="consistency.threshold")
    return mapped if settings.scale == "mapped" else 2 * mapped - 1


def mean_similarity(embeddings: np.ndarray, *, scale: Scale = "mapped") -> np.ndarray:
    """Mean similarity of each embedding to the others (Eq. 5 over j != i).

    On unit vectors x, sum over j != i of cos(i, j) = x_i . S - 1 with S the sum of all, so it takes
    O(n dim) time and no n x n matrix; in float64.

    Args:
        embeddings: (n, dim), n >= 2; any positive norms.
        scale: See `ConsistencySettings`.

    Returns:
        (n,) float64 in [0, 1] or, for cosine, in [-1, 1].

    Raises:
        ValueError: Fewer than two embeddings, or one that has no direction (zero, NaN, infinite).
    """
    vectors = _units(embeddings)
    return _to_members(vectors, np.arange(len(vectors)), scale)


def core_similarity(embeddings: np.ndarray, *, scale: Scale = "mapped") -> np.ndarray:
    """Mean similarity of each embedding to the core: the half of all that are most alike.

    The core is a clip and its nearest neighbours, ceil(n / 2) in all: of the n groups of that kind, the one
    whose clip has the highest mean cosine to its neighbours. A clip of the core is compared with the rest of
    it, as in Eq. 5. Of two or three clips, the core is a pair. Strangers have no say unless they are as many
    as the speaker's own clips.

    O(n^2 dim) time and O(n dim) memory; in float64.

    Args:
        embeddings: (n, dim), n >= 2; any positive norms.
        scale: See `ConsistencySettings`.

    Returns:
        (n,) float64 in [0, 1] or, for cosine, in [-1, 1].

    Raises:
        ValueError: See `mean_similarity`.
    """
    vectors = _units(embeddings)
    return _to_members(vectors, _core(vectors), scale)


def _core(vectors: np.ndarray) -> np.ndarray:
    """Find the indices of the core of (n, dim) unit vectors."""
    size = max(2, (len(vectors) + 1) // 2)
    if len(vectors) <= size:
        return np.arange(len(vectors))
    # Each clip is its own nearest, with a cosine of 1: that shifts all means alike.
    blocks = (vectors[at : at + ROWS] @ vectors.T for at in range(0, len(vectors), ROWS))
    alike = np.concatenate([np.partition(block, -size, axis=1)[:, -size:].mean(axis=1) for block in blocks])
    return np.argsort(-(vectors @ vectors[np.argmax(alike)]), kind="stable")[:size]


def _to_members(vectors: np.ndarray, members: np.ndarray, scale: Scale) -> np.ndarray:
    """(n,) mean similarity of unit vectors to the members, but for a member itself."""
    if len(vectors) < 2:
        raise ValueError("the similarity to a speaker's other clips needs at least two clips, got one")
    own = np.zeros(len(vectors))
    own[members] = 1.0
    cosine = np.clip((vectors @ vectors[members].sum(axis=0) - own) / (len(members) - own), -1.0, 1.0)
    return (cosine + 1.0) / 2.0 if scale == "mapped" else cosine


def _units(embeddings: np.ndarray) -> np.ndarray:
    vectors = np.asarray(embeddings, dtype=np.float64)
    if vectors.ndim != 2 or len(vectors) == 0:
        raise ValueError(f"expected (n, dim) embeddings, n >= 1, got shape {vectors.shape}")
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    bad = np.flatnonzero(~(np.isfinite(largest) & (largest > 0))[:, 0])
    if bad.size:
        norm = np.linalg.norm(vectors[bad[0]])
        raise ValueError(f"embedding {bad[0]} has norm {norm}: it has no direction to compare")
    vectors = vectors / largest  # or the squares of very small or large ones would become 0 or infinity
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def judge(
    turns: Sequence[Turn],
    settings: ConsistencySettings,
    *,
    engine: str,
    exclusions: Sequence[Exclusion | None] | None = None,
) -> list[Verdict]:
    """Judge the turns of one recording, speaker by speaker.

    Args:
        turns: All turns that diarization found in the recording.
        settings: The filter's settings.
        engine: `Diarizer.name` of the engine that made the embeddings.
        exclusions: What `select` says of each turn; None: nothing is left out. A turn that is left
            out is not kept and is not among the clips that others are compared with.

    Returns:
        A verdict for each turn, in the order of the turns.
    """
    threshold = effective_threshold(settings, engine)
    verdicts: dict[int, Verdict] = {}
    clusters: dict[int, list[int]] = {}
    events: list[int] = []
    excluded: Sequence[Exclusion | None] = [None] * len(turns) if exclusions is None else exclusions
    for index, (turn, exclusion) in enumerate(zip(turns, excluded, strict=True)):
        if exclusion is not None:
            verdicts[index] = Verdict(None, False, exclusion.reason, exclusion.detail, stage="selection")
        elif turn.speaker == NOISE:
            verdicts[index] = Verdict(None, False, "noise_cluster", "diarization gave the turn to no speaker")
        elif turn.kind == "event":
            events.append(index)
        elif turn.embedding is None:
            detail = f"{turn.duration:.2f} s are too short for a speaker embedding"
            verdicts[index] = Verdict(None, False, "no_embedding", detail)
        else:
            clusters.setdefault(turn.speaker, []).append(index)
    for members in clusters.values():
        embeddings = [turns[index].embedding for index in members]
        verdicts.update(zip(members, _judge_cluster(embeddings, settings, threshold), strict=True))
    known = {turns[index].speaker for index, verdict in verdicts.items() if verdict.kept}
    for index in events:
        verdicts[index] = Verdict(None, True) if turns[index].speaker in known else UNKNOWN_VOICE
    return [verdicts[index] for index in range(len(turns))]


def _judge_cluster(
    embeddings: Sequence[np.ndarray | None], settings: ConsistencySettings, threshold: float
) -> list[Verdict]:
    if len(embeddings) == 1:
        return [_judge_single(settings)]
    similar = core_similarity if settings.compared_with == "core" else mean_similarity
    similarities = similar(np.stack([e for e in embeddings if e is not None]), scale=settings.scale)
    return [_judge_one(float(similarity), threshold, settings) for similarity in similarities]


def _judge_single(settings: ConsistencySettings) -> Verdict:
    if settings.singletons == "keep":
        return Verdict(None, True)
    detail = "the speaker's only clip in the recording: nothing to compare it with"
    return Verdict(None, False, "single_turn_speaker", detail)


def _judge_one(similarity: float, threshold: float, settings: ConsistencySettings) -> Verdict:
    if similarity >= threshold:
        return Verdict(similarity, True)
    others = "other clips" if settings.compared_with == "others" else "core"
    detail = f"mean similarity {similarity:.3f} to the speaker's {others} is below {threshold:.3f} ({settings.scale})"
    return Verdict(similarity, False, "below_threshold", detail)
