from collections.abc import Callable

import numpy as np
import pytest

from fsclap.evaluation.metrics import paper_metrics
from fsclap.evaluation.protocol import Rerank, difference, evaluate_embeddings, interval
from fsclap.evaluation.results import METRICS, RetrievalFigures

DIRECTIONS = ("audio_to_text", "text_to_audio", "mean")


def unit(rows: int, dim: int = 24, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(rows, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def corpus(
    clips: int, captions: int, styles: int, *, noise: float = 0.5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Clips with captions at random; each caption tells one style, and audio is its caption's vector in noise."""
    caption = np.random.default_rng(seed).integers(captions, size=clips)
    vectors = unit(captions, seed=seed + 1)
    audio = vectors[caption] + noise * unit(clips, seed=seed + 2)
    audio = (audio / np.linalg.norm(audio, axis=1, keepdims=True)).astype(np.float32)
    return audio, vectors[caption], [f"caption {c}" for c in caption], [f"style {c % styles}" for c in caption]


def distinct(clips: int, *, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Clips with a caption of their own each."""
    text = unit(clips, seed=seed)
    audio = text + noise * unit(clips, seed=seed + 1)
    audio = (audio / np.linalg.norm(audio, axis=1, keepdims=True)).astype(np.float32)
    return audio, text, [f"caption {c}" for c in range(clips)], [f"style {c % 10}" for c in range(clips)]


def only(
    figures: list[RetrievalFigures], mode: str, direction: str, pool: int, stage: str = "embeddings"
) -> RetrievalFigures:
    wanted = (mode, direction, pool, stage)
    (found,) = [row for row in figures if (row.mode, row.direction, row.pool, row.stage) == wanted]
    return found


def values(row: RetrievalFigures) -> dict[str, float]:
    return {name: figure.value for name, figure in row.metrics.items()}


def naive_grouped(
    audio: np.ndarray, text: np.ndarray, captions: list[str], styles: list[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Both directions by loops, without ties: clips against distinct captions, distinct captions against clips."""
    names = sorted(set(captions))
    told = {name: {style for caption, style in zip(captions, styles, strict=True) if caption == name} for name in names}
    vectors = np.stack([text[captions.index(name)] for name in names])
    found: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    for clip, style in enumerate(styles):
        order = np.argsort(-(vectors @ audio[clip]))
        found[0].append(of_order([style in told[names[item]] for item in order]))
    for vector, name in zip(vectors, names, strict=True):
        order = np.argsort(-(audio @ vector))
        found[1].append(of_order([styles[item] in told[name] for item in order]))
    one, other = ({name: float(np.mean([row[name] for row in rows])) for name in METRICS} for rows in found)
    return one, other


def of_order(relevant: list[bool]) -> dict[str, float]:
    hits = np.cumsum(relevant[:10])
    precision = sum(hits[place] / (place + 1) for place in range(len(hits)) if relevant[place])
    found = {f"R@{k}": float(any(relevant[:k])) for k in (1, 5, 10)}
    return found | {"mAP@10": precision / min(sum(relevant), 10)}


def test_every_figure_is_there_once() -> None:
    figures = evaluate_embeddings(*corpus(300, 40, 8), pools=(50, 200, 300, 5000), draws=3, resamples=20)
    found = [(row.pool, row.draws, row.mode, row.direction) for row in figures]
    expected = [
        (pool, draws, mode, direction)
        for pool, draws in ((50, 3), (200, 3), (300, 1))
        for mode in ("paper", "grouped")
        for direction in DIRECTIONS
    ]
    assert found == expected
    assert all(set(part) == set(METRICS) for row in figures for part in (row.metrics, row.chance, row.ceiling))
    for row in figures:
        for name, figure in row.metrics.items():
            assert 0 <= figure.low <= figure.value <= figure.high <= row.ceiling[name] + 0.2
    paper = only(figures, "paper", "audio_to_text", 200)
    assert paper.queries == 3 * 200
    assert only(figures, "paper", "mean", 200).queries == 2 * 3 * 200
    assert only(figures, "grouped", "text_to_audio", 300).queries == 40


def test_the_pool_of_all_in_paper_mode() -> None:
    audio, text, captions, styles = corpus(150, 30, 6)
    figures = evaluate_embeddings(audio, text, captions, styles, resamples=20)
    one, other = paper_metrics(audio, text), paper_metrics(text, audio)
    for name in METRICS:
        assert values(only(figures, "paper", "audio_to_text", 150))[name] == pytest.approx(one[name].mean())
        assert values(only(figures, "paper", "text_to_audio", 150))[name] == pytest.approx(other[name].mean())
        both = (one[name].mean() + other[name].mean()) / 2
        assert values(only(figures, "paper", "mean", 150))[name] == pytest.approx(both)


def test_smaller_pools_are_the_mean_over_their_draws() -> None:
    """By hand: the same draws, of which each is evaluated as if it were all there is."""
    audio, text, captions, styles = corpus(120, 30, 6)
    figures = evaluate_embeddings(audio, text, captions, styles, pools=(40,), draws=4, seed=7, resamples=20)
    rng = np.random.default_rng([7, 40])
    drawn = [rng.choice(120, size=40, replace=False) for _ in range(4)]
    alone = [
        evaluate_embeddings(
            audio[pool], text[pool], [captions[i] for i in pool], [styles[i] for i in pool], resamples=20
        )
        for pool in drawn
    ]
    for mode in ("paper", "grouped"):
        pooled = only(figures, mode, "audio_to_text", 40)
        parts = [only(part, mode, "audio_to_text", 40) for part in alone]
        for name in METRICS:
            assert values(pooled)[name] == pytest.approx(np.mean([values(part)[name] for part in parts]))
            assert pooled.chance[name] == pytest.approx(np.mean([part.chance[name] for part in parts]))
            assert pooled.ceiling[name] == pytest.approx(np.mean([part.ceiling[name] for part in parts]))


@pytest.mark.parametrize("noise", [0.3, 2.0])
def test_grouped_mode_is_that_of_naive_loops(noise: float) -> None:
    audio, text, captions, styles = corpus(90, 35, 8, noise=noise)
    styles[captions.index("caption 3")] = "style 7"  # one caption of two styles
    figures = evaluate_embeddings(audio, text, captions, styles, resamples=20)
    one, other = naive_grouped(audio, text, captions, styles)
    assert values(only(figures, "grouped", "audio_to_text", 90)) == pytest.approx(one)
    assert values(only(figures, "grouped", "text_to_audio", 90)) == pytest.approx(other)
    assert values(only(figures, "grouped", "mean", 90)) == pytest.approx({n: (one[n] + other[n]) / 2 for n in METRICS})


def test_chance_in_paper_mode_has_a_closed_form() -> None:
    row = only(evaluate_embeddings(*corpus(199, 20, 5), resamples=5), "paper", "mean", 199)
    harmonic = sum(1 / rank for rank in range(1, 11))
    expected = {"R@1": 1 / 199, "R@5": 5 / 199, "R@10": 10 / 199, "mAP@10": harmonic / 199}
    assert row.chance == pytest.approx(expected)


@pytest.mark.parametrize("mode", ["paper", "grouped"])
def test_embeddings_at_random_reach_chance(mode: str) -> None:
    _, _, captions, styles = corpus(120, 40, 6)
    reached = []
    for seed in range(60):
        audio, text = unit(120, seed=seed), unit(40, seed=1000 + seed)[[int(c.split()[1]) for c in captions]]
        row = only(evaluate_embeddings(audio, text, captions, styles, resamples=2), mode, "mean", 120)
        reached.append([values(row)[name] for name in METRICS])
    mean, error = np.mean(reached, axis=0), np.std(reached, axis=0) / np.sqrt(60)
    expected = np.array([row.chance[name] for name in METRICS])
    assert (np.abs(mean - expected) < 4 * error).all()


def test_an_oracle_reaches_the_ceiling_and_no_more() -> None:
    """It knows the caption of every clip, and of clips with the same one nothing else."""
    audio, text, captions, styles = corpus(200, 12, 12, noise=0.0)
    figures = evaluate_embeddings(audio, text, captions, styles, pools=(60,), draws=5, resamples=20)
    for row in figures:
        assert values(row) == pytest.approx(row.ceiling)
        assert (row.ceiling["R@1"] == 1.0) == (row.mode == "grouped")
    assert only(figures, "paper", "mean", 200).ceiling["R@1"] == pytest.approx(12 / 200)


def test_the_ceiling_without_equal_captions_is_one() -> None:
    for row in evaluate_embeddings(*distinct(60, noise=0.0), resamples=5):
        if row.mode == "paper":
            assert row.ceiling == values(row) == dict.fromkeys(METRICS, 1.0)


def test_text_of_equal_captions_may_differ_by_rounding_alone() -> None:
    audio, text, captions, styles = corpus(100, 10, 5)
    rounded = text + np.random.default_rng(0).normal(scale=1e-6, size=text.shape).astype(np.float32)
    expected = [values(row) for row in evaluate_embeddings(audio, text, captions, styles, resamples=5)]
    found = [values(row) for row in evaluate_embeddings(audio, rounded, captions, styles, resamples=5)]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=0.02)
    with pytest.raises(ValueError, match="has embeddings"):
        evaluate_embeddings(audio, audio, captions, styles)


def test_an_interval_is_as_wide_as_the_standard_error_says() -> None:
    rng = np.random.default_rng(0)
    hits = (rng.random(1000) < 0.3).astype(float)
    found = interval(hits, seed=0, resamples=4000)
    error = np.sqrt(hits.mean() * (1 - hits.mean()) / 1000)
    assert found.value == hits.mean()
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(400):
        found = interval(rng.exponential(size=150), seed=seed, resamples=300)
        covered += found.low <= 1.0 <= found.high
    assert 0.90 <= covered / 400 <= 0.98


def test_the_interval_of_the_paper_mode_is_that_over_clips() -> None:
    audio, text, captions, styles = distinct(400, noise=1.5)
    row = only(evaluate_embeddings(audio, text, captions, styles, resamples=200, seed=3), "paper", "audio_to_text", 400)
    found = paper_metrics(audio, text)
    for name in METRICS:
        one, other = row.metrics[name], interval(found[name], seed=3, resamples=200)
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


def test_both_directions_of_a_clip_are_drawn_together() -> None:
    """Where the two directions are one, their mean is as uncertain as each: independent draws would halve that."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(24, 24))
    audio = unit(300)
    text = audio @ (mixing + mixing.T + 6 * np.eye(24)).astype(np.float32)  # a symmetric matrix of similarities
    names = [f"caption {i}" for i in range(300)]
    figures = evaluate_embeddings(audio, text, names, names, resamples=500)
    one, both = (only(figures, "paper", direction, 300) for direction in ("audio_to_text", "mean"))
    assert 0.1 < values(one)["mAP@10"] < 0.9
    assert both.metrics["mAP@10"].low == pytest.approx(one.metrics["mAP@10"].low, abs=1e-4)
    assert both.metrics["mAP@10"].high == pytest.approx(one.metrics["mAP@10"].high, abs=1e-4)


def test_copies_of_a_clip_do_not_narrow_the_grouped_interval() -> None:
    audio, text, captions, _ = distinct(80, noise=1.5)
    widths = []
    for copies in (1, 9):
        names = captions * copies
        figures = evaluate_embeddings(np.tile(audio, (copies, 1)), np.tile(text, (copies, 1)), names, names)
        figure = only(figures, "grouped", "audio_to_text", 80 * copies).metrics["mAP@10"]
        widths.append(figure.high - figure.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.05)


def test_a_clip_in_many_pools_is_one_observation() -> None:
    """Twenty pools of 90 out of 100 clips are 1,800 queries, and hardly more evidence than the 100 clips."""
    data = distinct(100, noise=1.5)
    figures = evaluate_embeddings(*data, pools=(90,), draws=20)
    pooled, whole = (only(figures, "paper", "audio_to_text", pool).metrics["mAP@10"] for pool in (90, 100))
    assert pooled.high - pooled.low == pytest.approx(whole.high - whole.low, rel=0.2)


def test_a_paired_difference_sees_what_two_intervals_do_not() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(300)
    one, other = hard + 0.02 + rng.normal(scale=0.02, size=300), hard
    alone = interval(one, seed=0)
    assert alone.low < other.mean() < alone.high
    found = difference(one, other, seed=0)
    assert found.low > 0
    assert found.value == pytest.approx((one - other).mean())
    mirrored = difference(other, one, seed=0)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    same = difference(one, one, seed=0)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_a_seed_repeats_everything() -> None:
    data = corpus(150, 30, 6)
    assert evaluate_embeddings(*data, pools=(50,), seed=1) == evaluate_embeddings(*data, pools=(50,), seed=1)
    one, other = (only(evaluate_embeddings(*data, pools=(50,), seed=seed), "paper", "mean", 50) for seed in (1, 2))
    assert values(one) != values(other)


def counting(score: Callable[[np.ndarray, np.ndarray], np.ndarray], seen: list[tuple[int, int]]) -> Rerank:
    def counted(audio: np.ndarray, text: np.ndarray) -> np.ndarray:
        seen.extend(zip(audio.tolist(), text.tolist(), strict=True))
        return score(audio, text)

    return Rerank(counted, k=15, draws=2)


def test_a_second_stage_that_agrees_changes_nothing() -> None:
    audio, text, captions, styles = corpus(150, 40, 6)
    seen: list[tuple[int, int]] = []
    rerank = counting(lambda a, t: np.einsum("nd,nd->n", audio[a], text[t]), seen)
    # In double precision: the two ways to multiply round differently, which may swap neighbours.
    audio, text = audio.astype(np.float64), text.astype(np.float64)
    figures = evaluate_embeddings(audio, text, captions, styles, pools=(), rerank=rerank, resamples=20)
    for mode, direction in (("grouped", "audio_to_text"), ("grouped", "text_to_audio"), ("paper", "text_to_audio")):
        first, second = (only(figures, mode, direction, 150, stage) for stage in ("embeddings", "rerank@15"))
        assert values(second) == pytest.approx(values(first), abs=1e-9)
        assert second.chance == first.chance
        assert second.ceiling == first.ceiling
    assert len(seen) == len(set(seen)) > 0


def test_an_oracle_in_the_second_stage_finds_all_that_the_first_brought() -> None:
    """R@1 after re-ranking is then R@15 before."""
    audio, text, captions, styles = distinct(150, noise=2.0)
    rerank = Rerank(lambda a, t: (a == t).astype(float), k=15, draws=2)
    figures = evaluate_embeddings(audio, text, captions, styles, pools=(100,), rerank=rerank, resamples=20)
    scores = audio @ text.T
    place = (scores > np.diag(scores)[:, None]).sum(axis=1)
    row = only(figures, "paper", "audio_to_text", 150, "rerank@15")
    assert values(row)["R@1"] == values(row)["mAP@10"] == pytest.approx(np.mean(place < 15))
    assert values(row)["R@1"] < 1
    assert only(figures, "paper", "mean", 100, "rerank@15").draws == 2
    grouped = only(figures, "grouped", "text_to_audio", 150, "rerank@15")
    assert grouped.metrics["R@1"].value == pytest.approx(np.mean((scores > np.diag(scores)).sum(axis=0) < 15), abs=0.5)


def test_the_second_stage_is_kept_from_large_pools() -> None:
    rerank = Rerank(lambda a, t: np.zeros(len(a)), largest_pool=50)
    figures = evaluate_embeddings(*distinct(100), pools=(40,), rerank=rerank, resamples=5)
    assert {row.pool for row in figures if row.stage == "rerank@20"} == {40}


def test_a_second_stage_answers_about_one_text_a_caption() -> None:
    audio, text, captions, styles = corpus(60, 5, 5)
    seen: list[tuple[int, int]] = []
    rerank = counting(lambda a, t: np.zeros(len(a)), seen)
    evaluate_embeddings(audio, text, captions, styles, pools=(), rerank=rerank, resamples=5)
    assert {text_row for _, text_row in seen} <= {captions.index(caption) for caption in captions}


def test_refuses_what_cannot_be_evaluated() -> None:
    audio, text, captions, styles = corpus(20, 5, 5)
    with pytest.raises(ValueError, match=r"\[20, 20, 19, 20\]"):
        evaluate_embeddings(audio, text, captions[1:], styles)
    with pytest.raises(ValueError, match="at least 1"):
        evaluate_embeddings(audio[:0], text[:0], [], [])
    with pytest.raises(ValueError, match="NaN"):
        evaluate_embeddings(audio * np.nan, text, captions, styles)
    with pytest.raises(ValueError, match="choose at least 10"):
        Rerank(lambda a, t: a, k=9)
    with pytest.raises(ValueError, match="not finite"):
        evaluate_embeddings(audio, text, captions, styles, rerank=Rerank(lambda a, t: a * np.nan))
    with pytest.raises(ValueError, match="same queries"):
        difference(np.zeros(3), np.zeros(4), seed=0)
    with pytest.raises(ValueError, match="Q >= 1"):
        interval(np.zeros(0), seed=0)


def test_one_clip_is_enough() -> None:
    for row in evaluate_embeddings(unit(1), unit(1), ["high"], ["pitch high"], resamples=5):
        assert values(row) == dict.fromkeys(METRICS, 1.0)
