"""An evaluation written by hand and embeddings drawn at random, for tests of plots and report."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fsclap.evaluation.results import (
    ALL_WORDS,
    AUDIBLE,
    METRICS,
    Alignment,
    Collapse,
    Direction,
    Evaluation,
    Example,
    Interval,
    LeakProbe,
    Mode,
    Natural,
    NaturalQuery,
    NaturalRanking,
    RetrievalFigures,
)
from fsclap.evaluation.vectors import Vectors

PASSED = LeakProbe(pairs=200, noise_r1=0.005, shuffled_r1=0.0075, moved=0.0, chance=0.005, limit=0.03, leaks=False)
LEAKING = LeakProbe(pairs=200, noise_r1=1.0, shuffled_r1=0.98, moved=1.3, chance=0.005, limit=0.03, leaks=True)


def figures(
    *,
    mode: Mode = "paper",
    direction: Direction = "mean",
    pool: int = 200,
    value: float = 0.2,
    stage: str = "embeddings",
) -> RetrievalFigures:
    return RetrievalFigures(
        mode=mode,
        direction=direction,
        pool=pool,
        draws=1 if pool > 500 else 5,
        queries=2 * pool,
        metrics={
            name: Interval(value=value * (1 + place / 4), low=value * (0.7 + place / 4), high=value * (1.4 + place / 4))
            for place, name in enumerate(METRICS)
        },
        chance=dict.fromkeys(METRICS, 1 / pool),
        ceiling=dict.fromkeys(METRICS, 0.83),
        stage=stage,
    )


def evaluation(**changes: Any) -> Evaluation:
    directions: tuple[Direction, ...] = ("audio_to_text", "mean", "text_to_audio")
    modes: tuple[Mode, ...] = ("grouped", "paper")
    retrieval = [
        figures(mode=mode, direction=direction, pool=pool, value=20 / pool**0.9)
        for mode in modes
        for direction in directions
        for pool in (200, 1000)
    ]
    retrieval.append(figures(pool=1000, stage="rerank@20"))
    spread = Collapse(uniformity=-2.9, effective_rank=31.4, mean_cosine=0.12)
    fields: dict[str, Any] = {
        "model": "data/models/corpus-v8-0123abcd",
        "corpus": "data/corpus",
        "version": 8,
        "part": "test",
        "clips": 1000,
        "speakers": 18,
        "captions": 640,
        "styles": 90,
        "seed": 0,
        "date": "2026-11-23",
        "machine": {"processor": "a processor", "cores": 2},
        "leak": PASSED,
        "retrieval": retrieval,
        "audio": spread,
        "text": spread,
        "joint": Alignment(alignment=1.1, modality_gap=0.4),
        "group_sizes": {1: 40, 2: 22, 3: 9, 7: 4, 19: 1},
        "nearest_training_speaker": 0.71,
    }
    return Evaluation(**(fields | changes))


def matched(of: Evaluation, *, audible: float, every: float) -> list[RetrievalFigures]:
    """The matcher that uses no model, at these values in every row of an evaluation."""
    return [
        row.model_copy(
            update={"stage": stage, "metrics": dict.fromkeys(METRICS, Interval(value=value, low=value, high=value))}
        )
        for stage, value in ((AUDIBLE, audible), (ALL_WORDS, every))
        for row in of.retrieval
        if row.stage == "embeddings"
    ]


def natural(*scores: float, **changes: Any) -> Natural:
    """Queries as people type them: "query 0" and so on, with these scores by the model."""
    mean = sum(scores) / len(scores)
    rankings = {
        "model": NaturalRanking(percentile=Interval(value=mean, low=mean - 0.05, high=mean + 0.06), good=0.25),
        "words": NaturalRanking(percentile=Interval(value=0.71, low=0.66, high=0.75), good=0.55),
        "both": NaturalRanking(percentile=Interval(value=0.72, low=0.67, high=0.76), good=0.56),
        "ideal": NaturalRanking(percentile=Interval(value=0.92, low=0.91, high=0.93), good=0.94),
    }
    queries = [
        NaturalQuery(query=f"query {at}", scores={"model": score, "words": 0.712, "both": 0.723, "ideal": 0.934})
        for at, score in enumerate(scores)
    ]
    return Natural(clips=210, rankings=rankings, queries=queries).model_copy(update=changes)


def pairs(count: int, dim: int = 32, *, seed: int = 0, noise: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows (count, dim) of audio and of text; pairs are alike, the modalities are a little apart."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(count, dim))
    gap = 0.8 * np.eye(dim)[0]
    return tuple(  # type: ignore[return-value]
        (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        for rows in (shared + noise * rng.normal(size=shared.shape) + side * gap for side in (1, -1))
    )


def vectors(audio: np.ndarray, text: np.ndarray, ids: Sequence[str] | None = None) -> Vectors:
    """Embeddings of pairs that have a caption each, of three styles."""
    ids = ids or [f"clip-{at:05d}" for at in range(len(audio))]
    captions = [f"caption {at}" for at in range(len(ids))]
    styles = [f"pitch={('low', 'high', 'deep')[at % 3]}" for at in range(len(ids))]
    return Vectors(list(ids), captions, styles, audio, text)


def history(epochs: int) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "step": 20 * epoch,
            "loss": 4 / epoch**0.3,
            "validation": 0.05 + 0.02 * epoch - 0.0015 * epoch**2,
            "learning_rate": 1e-4 * np.cos(epoch / epochs * 1.5),
        }
        for epoch in range(1, epochs + 1)
    ]


def example(query: str, *, right: str, found: list[str], rank: float = 1.0) -> Example:
    return Example(query=query, expected_id=right, rank=rank, found_ids=found)
