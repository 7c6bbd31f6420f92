"""A model against people's judgements: nDCG@10 over the clips that people judged for a query.

The judged clips of the evaluated part are ranked by the model, and the discounted gain of that
order is divided by that of the best one (Järvelin & Kekäläinen 2002). Clips that nobody judged are
left out: "condensed lists" (Sakai 2007), because counting them as wrong would favour the model
whose results were judged. Chance is high here: if five of ten judged clips fit, a random order has
an nDCG of 0.77.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import ndcg_score

from fsclap.evaluation.agreement import ordinal_alpha
from fsclap.evaluation.protocol import RESAMPLES, difference, interval
from fsclap.evaluation.results import Judged
from fsclap.evaluation.run import EvaluationRun, asked, reading
from fsclap.model.systems import load_system

K = 10

Embed = Callable[[Sequence[str]], np.ndarray]
"""Queries -> (queries, embedding) unit rows."""


@dataclass(frozen=True, slots=True)
class Graded:
    """People's judgement of a clip for a query.

    Attributes:
        query: The description.
        utterance_id: The clip.
        gain: Mean over judges: 2 fits, 1 partly, 0 does not fit.
        judges: Names of the judges.
        gains: Gain of each judge's verdict, in the order of `judges`.
    """

    query: str
    utterance_id: str
    gain: float
    judges: tuple[str, ...]
    gains: tuple[float, ...] = ()


def judge_model(
    folder: Path, run: EvaluationRun, graded: Sequence[Graded], *, device: str = "auto", resamples: int = RESAMPLES
) -> Judged | None:
    """Compute the nDCG@10 of an evaluated model on the judged clips of the evaluated part.

    Args:
        folder: Folder of the model.
        run: Its evaluation, with the embeddings of the clips.
        graded: Judgements.
        device: "cpu", "cuda" or "auto".
        resamples: Number of bootstrap resamples.

    Returns:
        None if nobody judged anything, or the model leaks.
    """
    if not graded or run.evaluation.leak.leaks:
        return None
    embed = asked(load_system(folder, device), folder, reading(run.vectors.styles))
    return judged_figure(
        graded, run.vectors.ids, run.vectors.audio, embed, seed=run.evaluation.seed, resamples=resamples
    )


def judged_figure(
    graded: Sequence[Graded],
    ids: Sequence[str],
    audio: np.ndarray,
    embed: Embed,
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Judged:
    """Compute nDCG@10, its interval over queries, and that of a random order for the same queries.

    Args:
        graded: One entry per query and clip.
        ids: Utterance id of each evaluated clip. Other clips, such as those of training, do not
            count.
        audio: (clips, embedding) unit rows, in the order of `ids`.
        embed: Embeds queries.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.
    """
    row_of = {id_: row for row, id_ in enumerate(ids)}
    by_query: dict[str, list[Graded]] = defaultdict(list)
    for grade in graded:
        by_query[grade.query].extend([grade] if grade.utterance_id in row_of else [])
    scored = {query: grades for query, grades in sorted(by_query.items()) if len({g.gain for g in grades}) > 1}
    reached, chance = [], []
    for grades, vector in zip(scored.values(), embed(list(scored)) if scored else (), strict=True):
        gains = np.array([[grade.gain for grade in grades]])
        cosines = audio[[row_of[grade.utterance_id] for grade in grades]] @ vector
        # Of equal scores, scikit-learn averages over all orders: if all are equal, that is chance.
        reached.append(ndcg_score(gains, cosines[None], k=K))
        chance.append(ndcg_score(gains, np.zeros_like(gains), k=K))
    counted = [grade for grades in scored.values() for grade in grades]
    settings = {"seed": seed, "resamples": resamples}
    return Judged(
        ndcg=interval(np.array(reached), **settings) if scored else None,
        chance=float(np.mean(chance)) if scored else None,
        above_chance=difference(np.array(reached), np.array(chance), **settings) if scored else None,
        queries=len(scored),
        left_out=len(by_query) - len(scored),
        judgements=sum(len(grade.judges) for grade in counted),
        elsewhere=sum(len(grade.judges) for grade in graded if grade.utterance_id not in row_of),
        clips=len({grade.utterance_id for grade in counted}),
        judges=len({name for grade in counted for name in grade.judges}),
        alpha=ordinal_alpha([grade.gains for grade in graded]),
        judged_twice=sum(len(grade.gains) > 1 for grade in graded),
    )
