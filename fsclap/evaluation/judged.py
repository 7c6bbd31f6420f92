"""A model against what people heard: nDCG@10 over the clips that they judged for a query.

The judged clips of the evaluated part are put in the model's order, and the discounted gain of that order is divided by
that of the best one (Järvelin & Kekäläinen 2002). Clips that nobody judged are left out of the order: "condensed lists"
(Sakai 2007), for to count them as wrong would favour the model whose finds were judged. Chance is high here: among ten
judged clips of which five fit, an order at random has an nDCG of 0.77.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import ndcg_score

from fsclap.evaluation.protocol import RESAMPLES, difference, interval
from fsclap.evaluation.results import Judged
from fsclap.evaluation.run import EvaluationRun
from fsclap.model.fsclap import load_model

K = 10

Embed = Callable[[Sequence[str]], np.ndarray]
"""Queries -> (queries, embedding) unit rows."""


@dataclass(frozen=True, slots=True)
class Graded:
    """What people say of a query and a clip.

    Attributes:
        gain: Mean over those who judged: 2 it fits, 1 partly, 0 it does not.
        judges: Their names.
    """

    query: str
    utterance_id: str
    gain: float
    judges: tuple[str, ...]


def judge_model(
    folder: Path, found: EvaluationRun, graded: Sequence[Graded], *, device: str = "auto", resamples: int = RESAMPLES
) -> Judged | None:
    """nDCG@10 of a model that was evaluated, on the clips of that part.

    Args:
        folder: Of the model.
        found: Its evaluation, with the embeddings of the clips.

    Returns:
        None when nobody judged anything, or the model leaks.
    """
    if not graded or found.evaluation.leak.leaks:
        return None
    model = load_model(folder, device)

    def embed(queries: Sequence[str]) -> np.ndarray:
        return np.concatenate([model.embed_text([query]).cpu().numpy() for query in queries])

    return judged_figure(graded, found.ids, found.audio, embed, seed=found.evaluation.seed, resamples=resamples)


def judged_figure(
    graded: Sequence[Graded],
    ids: Sequence[str],
    audio: np.ndarray,
    embed: Embed,
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Judged:
    """nDCG@10, its interval over queries, and what an order at random would reach for the same queries.

    Args:
        graded: One entry a query and clip.
        ids: Utterance id of each evaluated clip. Others, such as those of training, do not count.
        audio: (clips, embedding) unit rows, in the order of `ids`.
        embed: Of queries.
        seed: Of the bootstrap.
    """
    row_of = {id_: row for row, id_ in enumerate(ids)}
    by_query: dict[str, list[Graded]] = defaultdict(list)
    for one in graded:
        by_query[one.query].extend([one] if one.utterance_id in row_of else [])
    scored = {query: said for query, said in sorted(by_query.items()) if len({one.gain for one in said}) > 1}
    counted = [one for said in scored.values() for one in said]
    reached, chance = [], []
    for said, vector in zip(scored.values(), embed(list(scored)) if scored else (), strict=True):
        gains = np.array([[one.gain for one in said]])
        cosines = audio[[row_of[one.utterance_id] for one in said]] @ vector
        # Of equal scores, scikit-learn takes the mean over all orders: with all of them equal, that is chance.
        reached.append(ndcg_score(gains, cosines[None], k=K))
        chance.append(ndcg_score(gains, np.zeros_like(gains), k=K))
    settings = {"seed": seed, "resamples": resamples}
    return Judged(
        ndcg=interval(np.array(reached), **settings) if scored else None,
        chance=float(np.mean(chance)) if scored else None,
        above_chance=difference(np.array(reached), np.array(chance), **settings) if scored else None,
        queries=len(scored),
        left_out=len(by_query) - len(scored),
        judgements=sum(len(one.judges) for one in counted),
        elsewhere=sum(len(one.judges) for one in graded if one.utterance_id not in row_of),
        clips=len({one.utterance_id for one in counted}),
        judges=len({name for one in counted for name in one.judges}),
    )
