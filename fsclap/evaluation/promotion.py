"""Whether a new model takes the place of the current one."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fsclap.data.batches import embed
from fsclap.data.clips import ClipStore
from fsclap.data.splits import Split
from fsclap.evaluation.metrics import clip_map10, one_vector_a_caption, random_metrics
from fsclap.evaluation.protocol import difference, interval
from fsclap.evaluation.results import Interval
from fsclap.evaluation.run import usable_pairs
from fsclap.evaluation.words import interval as written
from fsclap.evaluation.words import points
from fsclap.model.systems import load_system
from fsclap.weights import WeightsError

log = logging.getLogger(__name__)

_FEWEST = 8  # clips: on fewer, no interval is narrow enough to tell two models apart

Score = Callable[[Path, list[str]], dict[str, float]]
"""From a model's folder and utterance ids to each clip's AP@10, mean of both directions."""


@dataclass(frozen=True, slots=True)
class PromotionDecision:
    """Whether a model takes the place of the current one.

    Attributes:
        promoted: It does.
        reason: One sentence.
        figure: mAP@10 of the model on the deciding clips, mean of both directions.
        difference: How much the model exceeds the current one on the same clips; None without a
            comparison.
        clips: Number of deciding clips.
    """

    promoted: bool
    reason: str
    figure: Interval | None
    difference: Interval | None
    clips: int


LEAKS = PromotionDecision(promoted=False, reason="it leaks", figure=None, difference=None, clips=0)
"""The decision on a model that leaks, whatever its figures."""


def decide_promotion(
    model: Path,
    current: Path | None,
    store: ClipStore,
    split: Split,
    *,
    cache: Path,
    seed: int = 0,
    device: str = "auto",
) -> PromotionDecision:
    """Compare a model with the current one on the validation part.

    The first model has to beat chance. Any other has to beat the current one: on the same clips,
    without those the current one was trained on, the 95 % interval of the paired difference must
    lie above 0. The figure is the one that training selects by, the mean of both directions'
    mAP@10.

    Args:
        model: Folder of a model that does not leak.
        current: Folder of the current model, with its split.json; None if there is none.
        store: Clips of the corpus version.
        split: Split of `model`.
        cache: Folder of cached features.
        seed: Seed of the bootstrap.
        device: "cpu", "cuda" or "auto".
    """

    def score(folder: Path, ids: list[str]) -> dict[str, float]:
        return _clip_figures(folder, store, ids, cache, device)

    if current is None:
        return _against_chance(score(model, split.validation), seed=seed)
    known = set(Split.load(current / "split.json").train)
    ids = [id_ for id_ in split.validation if id_ in store.rows and id_ not in known]
    if len(ids) < _FEWEST:
        reason = (
            f"only {len(ids)} of its {len(split.validation)} validation clips are unknown to the current model; "
            f"a comparison needs at least {_FEWEST}"
        )
        return PromotionDecision(promoted=False, reason=reason, figure=None, difference=None, clips=len(ids))
    return _against(score, model, current, ids, seed=seed)


def against_current(ours: np.ndarray, theirs: np.ndarray, *, seed: int) -> PromotionDecision:
    """Decide by the AP@10 of each clip, (clips,) of the model and of the current one."""
    gain = difference(ours, theirs, seed=seed)
    promoted = gain.low > 0
    outcome = "it beats" if promoted else "it does not beat"
    reason = f"{outcome} the current model: mAP@10 {points(gain)} on {len(ours)} validation clips"
    return PromotionDecision(promoted, reason, interval(ours, seed=seed), gain, len(ours))


def _against(score: Score, model: Path, current: Path, ids: list[str], *, seed: int) -> PromotionDecision:
    try:
        theirs = score(current, ids)
    except WeightsError as error:
        log.warning("the current model cannot be compared with: %s", error)
        decision = _against_chance(score(model, ids), seed=seed)
        reason = f"the current model cannot be loaded any more ({error}), so the bar is chance: {decision.reason}"
        return replace(decision, reason=reason)
    ours = score(model, ids)
    shared = sorted(ours.keys() & theirs.keys())
    return against_current(*(np.array([figures[id_] for id_ in shared]) for figures in (ours, theirs)), seed=seed)


def _against_chance(figures: dict[str, float], *, seed: int) -> PromotionDecision:
    values = np.array(list(figures.values()))
    figure = interval(values, seed=seed)
    chance = float(random_metrics(len(values), np.ones(1, dtype=np.int64))["mAP@10"][0])
    promoted = figure.low > chance
    outcome = "it beats" if promoted else "it does not beat"
    reason = (
        f"{outcome} chance: mAP@10 {written(figure)} on {len(values)} validation clips, chance {100 * chance:.1f} %"
    )
    return PromotionDecision(promoted, reason, figure, None, len(values))


def _clip_figures(folder: Path, store: ClipStore, ids: list[str], cache: Path, device: str) -> dict[str, float]:
    """Utterance id -> AP@10, mean of both directions."""
    model = load_system(folder, device)
    pairs = usable_pairs(model, store, ids, cache)
    audio, text = (rows.numpy() for rows in embed(model, pairs))
    text = one_vector_a_caption(text, pairs.captions)
    return dict(zip(pairs.ids, clip_map10(audio, text).tolist(), strict=True))
