"""The figures on a corpus's card, computed from the three tables without audio."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from storage.corpus import Corpus, Totals
from storage.rights import read_rights
from storage.schema import ATTRIBUTES

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

_COLUMNS = (
    "series", "speaker", "duration", "language", "emotion", "kind", "caption", "style_key", "similarity", "sample_rate",
    "attributes",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Group:
    """The size of a speaker or a series."""

    name: str
    utterances: int
    hours: float


@dataclass(frozen=True, slots=True)
class StageCost:
    """The compute of a stage over all sources: in seconds, and in seconds per second of audio."""

    stage: str
    seconds: float
    real_time_factor: float


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """The figures of a version of a corpus.

    Attributes:
        series: By hours, largest first.
        speakers: By hours, largest first.
        persons: Number of speakers after linking those of different episodes; 0 without linking.
        durations: (utterances,) seconds.
        attributes: Name -> (n,) values of the utterances in which the attribute could be measured.
        languages: Number of utterances, largest first.
        emotions: Number of utterances, largest first.
        events: Utterances of the kind "event".
        reasons: (stage, reason) of the rejects -> number, largest first.
        caption_groups: Number of clips that share a caption -> number of such captions.
        similarities: (turns,) Eq. 5 of every turn that reached that stage, kept or not.
        styles: Number of different style keys.
        costs: By seconds, largest first.
        sample_rates: The rates that occur, in hertz.
        licences: Licence -> number of utterances, largest first; None for those of which none is stated.
    """

    version: int
    totals: Totals
    series: Sequence[Group]
    speakers: Sequence[Group]
    persons: int
    durations: np.ndarray
    attributes: Mapping[str, np.ndarray]
    languages: Mapping[str, int]
    emotions: Mapping[str, int]
    events: int
    reasons: Mapping[tuple[str, str], int]
    caption_groups: Mapping[int, int]
    styles: int
    similarities: np.ndarray
    costs: Sequence[StageCost]
    sample_rates: Sequence[int]
    licences: Mapping[str | None, int]

    def duration_quantiles(self) -> dict[float, float]:
        """Seconds at `QUANTILES`; empty when there is no utterance."""
        if not self.durations.size:
            return {}
        return dict(zip(QUANTILES, np.quantile(self.durations, QUANTILES).tolist(), strict=True))


def measure(corpus: Corpus) -> Statistics:
    """Compute the figures of the current version."""
    version = corpus.version()
    kept = corpus.utterances(version=version, columns=_COLUMNS).flatten().to_pandas()
    rejects = corpus.rejects().select(["stage", "reason", "similarity"]).to_pandas()
    return Statistics(
        version=version,
        totals=corpus.totals(),
        series=_groups(kept, "series"),
        speakers=_groups(kept, "speaker"),
        persons=len(corpus.speakers()["linked_speaker"].unique()),
        durations=kept["duration"].to_numpy(),
        attributes={field.name: _values(kept[f"attributes.{field.name}"]) for field in ATTRIBUTES},
        languages=_counts(kept["language"].fillna("unknown")),
        emotions=_counts(kept["emotion"].dropna()),
        events=int((kept["kind"] == "event").sum()),
        reasons=_counts(rejects[["stage", "reason"]]),
        caption_groups=kept["caption"].value_counts().value_counts().sort_index().to_dict(),
        styles=kept["style_key"].nunique(),
        similarities=np.concatenate([_values(kept["similarity"]), _values(rejects["similarity"])]),
        costs=_costs(corpus.ledger().values()),
        sample_rates=sorted(kept["sample_rate"].unique().tolist()),
        licences=_licences(corpus, version),
    )


def _licences(corpus: Corpus, version: int) -> dict[str | None, int]:
    rights = read_rights(corpus)
    sources = corpus.utterances(version=version, columns=["source_id"])["source_id"].to_pylist()
    counts = Counter(rights.get(source_id, {}).get("licence") for source_id in sources)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0] or "")))


def retention(similarities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(thresholds,) share of the turns whose similarity is at least each threshold.

    Raises:
        ValueError: There are no similarities.
    """
    if not similarities.size:
        raise ValueError("no turn has a similarity, so there is no share to compute")
    below = np.searchsorted(np.sort(similarities), thresholds, side="left")
    return 1 - below / similarities.size


def _groups(kept: pd.DataFrame, column: str) -> list[Group]:
    sums = kept.groupby(column)["duration"].agg(["size", "sum"]).sort_index()
    largest_first = sums.sort_values("sum", ascending=False, kind="stable")
    return [
        Group(str(name), int(size), float(seconds) / 3600)
        for name, size, seconds in largest_first.itertuples(name=None)
    ]


def _counts(values: "pd.Series[Any] | pd.DataFrame") -> dict[Any, int]:
    return values.value_counts().sort_index().sort_values(ascending=False, kind="stable").to_dict()


def _values(column: "pd.Series[Any]") -> np.ndarray:
    return column.dropna().to_numpy(dtype=np.float64)


def _costs(ledger: Any) -> list[StageCost]:
    spent = pd.DataFrame(
        [
            (stage, seconds, row["duration"])
            for row in ledger
            if row["duration"]  # a source that was never decoded has no duration
            for stage, seconds in row["stage_seconds"].items()
        ],
        columns=["stage", "seconds", "audio"],
    )
    sums = spent.groupby("stage").sum().sort_values("seconds", ascending=False, kind="stable")
    return [
        StageCost(str(stage), float(seconds), float(seconds / audio))
        for stage, seconds, audio in sums.itertuples(name=None)
    ]
