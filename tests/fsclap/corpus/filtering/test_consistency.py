from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from fsclap.corpus.filtering import consistency
from fsclap.corpus.filtering.consistency import (
    ConsistencySettings,
    Verdict,
    core_similarity,
    effective_threshold,
    judge,
    mean_similarity,
)
from fsclap.corpus.filtering.selection import Exclusion
from fsclap.corpus.turns import NOISE, Turn

HALF = ConsistencySettings(threshold=0.65)
ENGINE = "whisper-campplus"


def turn(speaker: int, embedding: Sequence[float] | np.ndarray | None, start: float = 0.0) -> Turn:
    vector = None if embedding is None else np.asarray(embedding, dtype=np.float32)
    return Turn(start=start, end=start + 2.0, speaker=speaker, text="", language=None, embedding=vector)


def by_definition(embeddings: np.ndarray) -> np.ndarray:
    """Eq. 4 and 5 as they are written: the n x n matrix, its diagonal left out."""
    vectors = embeddings.astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    mapped = (vectors @ vectors.T + 1) / 2
    return (mapped.sum(axis=1) - np.diag(mapped)) / (len(vectors) - 1)


@pytest.mark.parametrize("count", [2, 3, 7, 400])
@pytest.mark.parametrize("dim", [1, 2, 192])
def test_equals_the_definition(count: int, dim: int) -> None:
    embeddings = np.random.default_rng(count).normal(size=(count, dim)).astype(np.float32)
    np.testing.assert_allclose(mean_similarity(embeddings), by_definition(embeddings), atol=1e-6)


def test_cosine_scale_is_the_mapped_one_stretched() -> None:
    embeddings = np.random.default_rng(0).normal(size=(9, 16))
    mapped, cosine = mean_similarity(embeddings), mean_similarity(embeddings, scale="cosine")
    np.testing.assert_allclose(cosine, 2 * mapped - 1, atol=1e-12)


def test_of_two_opposite_and_of_equal_vectors() -> None:
    np.testing.assert_allclose(mean_similarity(np.array([[1.0, 0.0], [-1.0, 0.0]])), [0.0, 0.0], atol=1e-12)
    equal = np.tile(np.random.default_rng(1).normal(size=64).astype(np.float32), (50, 1))
    similarities = mean_similarity(equal)
    np.testing.assert_allclose(similarities, 1.0, atol=1e-9)
    assert similarities.max() <= 1.0


def test_length_does_not_count_and_order_only_permutes() -> None:
    rng = np.random.default_rng(2)
    embeddings = rng.normal(size=(20, 8))
    expected = mean_similarity(embeddings)
    np.testing.assert_allclose(mean_similarity(embeddings * rng.uniform(0.1, 9, size=(20, 1))), expected)
    order = rng.permutation(20)
    np.testing.assert_allclose(mean_similarity(embeddings[order]), expected[order])


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (np.ones((1, 4)), "at least two clips"),
        (np.empty((0, 4)), "shape"),
        (np.ones(4), "shape"),
        (np.array([[1.0, 0.0], [0.0, 0.0]]), "embedding 1 has norm 0.0"),
        (np.array([[np.nan, 0.0], [1.0, 0.0]]), "embedding 0 has norm nan"),
        (np.array([[np.inf, 0.0], [1.0, 0.0]]), "embedding 0 has norm inf"),
    ],
)
def test_refuses_what_has_no_similarity(embeddings: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_similarity(embeddings)


def by_definition_of_core(embeddings: np.ndarray) -> np.ndarray:
    """Each group of a clip and its nearest ones, one by one, and the mean to the best group without oneself."""
    vectors = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    mapped = (vectors @ vectors.T + 1) / 2
    size = max(2, -(-len(vectors) // 2))
    groups = [[i, *(j for j in np.argsort(-mapped[i], kind="stable") if j != i)][:size] for i in range(len(vectors))]
    core = max(groups, key=lambda group: mapped[group[0], group[1:]].mean())
    return np.array([np.mean([mapped[i, j] for j in core if j != i]) for i in range(len(vectors))])


@pytest.mark.parametrize("count", [2, 3, 4, 7, 40])
def test_core_equals_its_definition(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consistency, "ROWS", 3)
    embeddings = np.random.default_rng(count).normal(size=(count, 16)) + 0.5
    expected = by_definition_of_core(embeddings)
    np.testing.assert_allclose(core_similarity(embeddings), expected, atol=1e-9)
    np.testing.assert_allclose(core_similarity(embeddings, scale="cosine"), 2 * expected - 1, atol=1e-9)


def test_strangers_have_no_say_in_the_core() -> None:
    """Two in five clips are strangers': Eq. 5 draws the speaker's clips down to them, the core does not."""
    rng = np.random.default_rng(0)
    own, stranger = (voice + rng.normal(0, 0.1, (count, 8)) for voice, count in zip(np.eye(8), (6, 4), strict=False))
    turns = [turn(0, vector) for vector in (*own, *stranger)]
    settings = ConsistencySettings(threshold=0.85, compared_with="core")
    kept = [verdict.kept for verdict in judge(turns, settings, engine=ENGINE)]
    assert kept == [True] * 6 + [False] * 4
    assert not any(verdict.kept for verdict in judge(turns, ConsistencySettings(threshold=0.85), engine=ENGINE))
    alone = judge([turn(0, vector) for vector in own], settings, engine=ENGINE)
    assert all(verdict.kept for verdict in alone)
    refused = judge(turns, settings, engine=ENGINE)[-1]
    assert refused.detail == f"mean similarity {refused.similarity:.3f} to the speaker's core is below 0.850 (mapped)"


def test_the_core_of_a_pair_is_the_pair() -> None:
    pair = np.array([[1.0, 0.0], [0.6, 0.8]])
    np.testing.assert_allclose(core_similarity(pair), mean_similarity(pair))
    with pytest.raises(ValueError, match="at least two clips"):
        core_similarity(pair[:1])


def test_each_turn_gets_its_own_reason_in_the_order_of_the_turns() -> None:
    turns = [
        turn(0, [1.0, 0.0]),
        turn(NOISE, [1.0, 0.0]),
        turn(1, [0.0, 1.0]),
        turn(0, [0.0, 1.0]),
        turn(0, None),
        turn(0, [1.0, 0.1]),
        turn(0, [1.0, -0.1]),
    ]
    verdicts = judge(turns, HALF, engine=ENGINE)
    reasons = [None, "noise_cluster", "single_turn_speaker", "below_threshold", "no_embedding", None, None]
    assert [verdict.reason for verdict in verdicts] == reasons
    assert [verdict.kept for verdict in verdicts] == [reason is None for reason in reasons]
    cluster = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [1.0, -0.1]])
    judged = [verdicts[index].similarity for index in (0, 3, 5, 6)]
    np.testing.assert_allclose(judged, by_definition(cluster), atol=1e-6)
    assert [verdicts[index].similarity for index in (1, 2, 4)] == [None, None, None]
    assert all(verdict.detail for verdict in verdicts if not verdict.kept)


def test_an_event_stays_and_has_no_say() -> None:
    speech = [turn(0, [1.0, 0.0]), turn(0, [1.0, 0.2]), turn(0, [1.0, -0.2])]
    cries = [replace(turn(0, vector), kind="event") for vector in ([-1.0, 0.0], None)]
    nobody = replace(turn(NOISE, None), kind="event")
    stranger, alone = replace(turn(1, None), kind="event"), [turn(2, [0.0, 1.0]), replace(turn(2, None), kind="event")]
    *verdicts, unknown, cry, short, strange, _, of_one = judge(
        [*speech, nobody, *cries, stranger, *alone], HALF, engine=ENGINE
    )
    assert verdicts == judge(speech, HALF, engine=ENGINE)
    assert cry == short == Verdict(None, True)
    assert unknown.reason == "noise_cluster"
    assert strange.reason == of_one.reason == "speaker_without_speech", "nothing of what they say is kept"


def test_speakers_are_judged_apart() -> None:
    voices = np.random.default_rng(3).normal(size=(6, 32))
    alone = judge([turn(0, voice) for voice in voices[:3]], HALF, engine=ENGINE)
    mixed = [turn(speaker, voices[index + 3 * speaker]) for index in range(3) for speaker in (0, 1)]
    assert judge(mixed, HALF, engine=ENGINE)[::2] == alone


def test_a_clip_at_the_threshold_stays() -> None:
    pair = [turn(0, [1.0, 0.0]), turn(0, [0.0, 1.0])]
    assert all(v.kept for v in judge(pair, ConsistencySettings(threshold=0.5), engine=ENGINE))
    assert all(v.kept for v in judge(pair, ConsistencySettings(threshold=0.0, scale="cosine"), engine=ENGINE))
    assert not any(v.kept for v in judge(pair, ConsistencySettings(threshold=0.51), engine=ENGINE))


def test_a_single_clip_stays_only_when_told() -> None:
    (verdict,) = judge([turn(0, [1.0])], ConsistencySettings(singletons="keep"), engine=ENGINE)
    assert verdict.kept
    assert verdict.similarity is None


def test_no_turns_no_verdicts() -> None:
    assert judge([], ConsistencySettings(), engine=ENGINE) == []


def test_threshold_is_the_set_one_or_the_engines() -> None:
    assert effective_threshold(ConsistencySettings(threshold=0.4), "unknown") == 0.4
    assert effective_threshold(ConsistencySettings(), "funasr") == 0.65
    assert effective_threshold(ConsistencySettings(scale="cosine"), "funasr") == pytest.approx(0.30)
    assert effective_threshold(ConsistencySettings(), ENGINE) == 0.65
    with pytest.raises(ValueError, match=r"'nemo'.*consistency\.threshold"):
        effective_threshold(ConsistencySettings(), "nemo")


def test_settings_refuse_what_no_scale_has() -> None:
    with pytest.raises(ValidationError):
        ConsistencySettings(threshold=1.2)
    with pytest.raises(ValidationError, match=r"mapped"):
        ConsistencySettings(threshold=-0.2)
    assert ConsistencySettings(threshold=-0.2, scale="cosine").threshold == -0.2


def test_a_turn_that_is_left_out_has_no_vote() -> None:
    voices = [[1.0, 0.0], [0.9, 0.1], [-1.0, 0.2], [0.8, -0.1]]
    turns = [turn(0, voice) for voice in voices] + [turn(NOISE, voices[0])]
    without = judge([turns[0], turns[1], turns[3]], HALF, engine=ENGINE)
    noisy = Exclusion("low_quality", "quality 1.10 is below selection.min_quality = 2")
    verdicts = judge(turns, HALF, engine=ENGINE, exclusions=[None, None, noisy, None, noisy])
    assert [verdicts[n].similarity for n in (0, 1, 3)] == [verdict.similarity for verdict in without]
    assert verdicts[2] == verdicts[4] == Verdict(None, False, noisy.reason, noisy.detail, stage="selection")
    assert judge(turns, HALF, engine=ENGINE)[0].similarity < without[0].similarity  # type: ignore[operator]


def test_the_last_turn_that_is_not_left_out_is_a_speakers_only_one() -> None:
    turns = [turn(0, [1.0, 0.0]), turn(0, [1.0, 0.1])]
    verdicts = judge(turns, HALF, engine=ENGINE, exclusions=[Exclusion("too_short", "so short"), None])
    assert [verdict.reason for verdict in verdicts] == ["too_short", "single_turn_speaker"]
    with pytest.raises(ValueError, match="zip"):
        judge(turns, HALF, engine=ENGINE, exclusions=[None])
