"""The figures of a corpus that its card shows. All of them come from the three tables, without audio."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from storage.corpus import WITHOUT_AUDIO, Corpus, Totals

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True, slots=True)
class Group:
    """A speaker or a series, and what there is of it."""

    name: str
    utterances: int
    hours: float


@dataclass(frozen=True, slots=True)
class StageCost:
    """What a stage took over all sources: seconds of compute, and the same for each second of audio."""

    stage: str
    seconds: float
    real_time_factor: float


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Figures of one version of a corpus.

    Attributes:
        series, speakers: Largest first.
        persons: Speakers once those of different episodes are linked; 0 when nobody did.
        durations: (utterances,) seconds.
        attributes: By name, (n,) values of the utterances in which the attribute could be measured.
        languages, emotions, reasons: Counts, largest first; reasons are (stage, reason) of the rejects.
        caption_groups: By number of clips that share one caption, how many captions are shared by as many.
        similarities: (turns,) Eq. 5 of every turn that got that far, kept or not.
        styles: Number of different style keys.
        costs: The stage that took most first.
        sample_rates: The rates that occur, in hertz.
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
    reasons: Mapping[tuple[str, str], int]
    caption_groups: Mapping[int, int]
    styles: int
    similarities: np.ndarray
    costs: Sequence[StageCost]
    sample_rates: Sequence[int]

    def duration_quantiles(self) -> dict[float, float]:
        """Seconds at `QUANTILES`; empty when there is no utterance."""
        if not self.durations.size:
            return {}
        return dict(zip(QUANTILES, np.quantile(self.durations, QUANTILES).tolist(), strict=True))


def measure(corpus: Corpus) -> Statistics:
    """Read the tables of a corpus and count."""
    version = corpus.version()
    kept = corpus.utterances(version=version, columns=WITHOUT_AUDIO)
    rejects = corpus.rejects()
    return Statistics(
        version=version,
        totals=corpus.totals(),
        series=_groups(kept, "series"),
        speakers=_groups(kept, "speaker"),
        persons=len(corpus.speakers()["linked_speaker"].unique()),
        durations=kept["duration"].to_numpy(),
        attributes=_attributes(kept["attributes"]),
        languages=_counts("unknown" if value is None else value for value in kept["language"].to_pylist()),
        emotions=_counts(value for value in kept["emotion"].to_pylist() if value is not None),
        reasons=_counts(zip(rejects["stage"].to_pylist(), rejects["reason"].to_pylist(), strict=True)),
        caption_groups=dict(sorted(Counter(Counter(kept["caption"].to_pylist()).values()).items())),
        styles=len(kept["style_key"].unique()),
        similarities=np.concatenate([_floats(kept["similarity"]), _floats(rejects["similarity"])]),
        costs=_costs(corpus.ledger().values()),
        sample_rates=sorted(kept["sample_rate"].unique().to_pylist()),
    )


def retention(similarities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(thresholds,) share of the turns whose similarity reaches each threshold.

    Raises:
        ValueError: There are no similarities.
    """
    if not similarities.size:
        raise ValueError("no turn has a similarity: there is no share of them to keep")
    below = np.searchsorted(np.sort(similarities), thresholds, side="left")
    return 1 - below / similarities.size


def _groups(kept: pa.Table, column: str) -> list[Group]:
    sums = kept.group_by(column).aggregate([("duration", "sum"), ("duration", "count")]).to_pylist()
    groups = [Group(row[column], row["duration_count"], row["duration_sum"] / 3600) for row in sums]
    return sorted(groups, key=lambda group: (-group.hours, group.name))


def _counts(values: Any) -> dict[Any, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return column.drop_null().to_numpy().astype(np.float64)


def _attributes(column: pa.ChunkedArray) -> dict[str, np.ndarray]:
    struct = column.combine_chunks()
    names = [struct.type.field(index).name for index in range(struct.type.num_fields)]
    return {name: _floats(pa.chunked_array([struct.field(name)])) for name in names}


def _costs(ledger: Any) -> list[StageCost]:
    seconds: Counter[str] = Counter()
    audio: Counter[str] = Counter()
    for row in ledger:
        for stage, spent in row["stage_seconds"].items():
            if row["duration"]:  # a source that was never decoded has no length to compare with
                seconds[stage] += spent
                audio[stage] += row["duration"]
    costs = [StageCost(stage, seconds[stage], seconds[stage] / audio[stage]) for stage in audio]
    return sorted(costs, key=lambda cost: (-cost.seconds, cost.stage))
