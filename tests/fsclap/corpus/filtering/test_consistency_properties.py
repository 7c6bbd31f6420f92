"""Eq. 4 and 5, as they are written: the n x n matrix of cosines, for any clusters, scales and thresholds."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsclap.corpus.filtering.consistency import (
    ConsistencySettings,
    Verdict,
    judge,
    mean_similarity,
)
from fsclap.corpus.turns import NOISE, Turn
from tests.properties import usual

ENGINE = "funasr"
DIM = 4
scales = st.sampled_from(["mapped", "cosine"])
norms = st.sampled_from([1.0, 1e-3, 7.0, 1e-30, 1e-44, 1e30])
"""Of float32 embeddings, down to denormal ones: only their direction counts."""


@st.composite
def embeddings(draw: st.DrawFn) -> np.ndarray:
    direction = np.array(draw(st.lists(st.integers(-3, 3), min_size=DIM, max_size=DIM).filter(any)), dtype=np.float64)
    unit = direction / np.linalg.norm(direction)
    # What a float32 denormal keeps of a direction is a coarse one: the definition below is given the same.
    found = (unit * draw(norms)).astype(np.float32)
    return found if found.any() else direction.astype(np.float32)


@st.composite
def some_turns(draw: st.DrawFn) -> list[Turn]:
    heard = st.tuples(st.integers(NOISE, 2), st.one_of(st.none(), embeddings()))
    found = draw(st.lists(heard, max_size=9))
    if found and draw(st.booleans()):
        found.append(found[0])  # a duplicate
    return [Turn(float(at), at + 1.0, speaker, "", None, vector) for at, (speaker, vector) in enumerate(found)]


def by_definition(turns: list[Turn], index: int, scale: str) -> float | None:
    """Eq. 5: the mean of Eq. 4 over the other embedded clips of the turn's speaker; None: there is no other."""
    own = turns[index]
    if own.speaker == NOISE or own.embedding is None:
        return None
    found = []
    for at, other in enumerate(turns):
        if at != index and other.speaker == own.speaker and other.embedding is not None:
            a, b = own.embedding.astype(np.float64), other.embedding.astype(np.float64)
            cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
            found.append((cosine + 1) / 2 if scale == "mapped" else cosine)
    return float(np.mean(found)) if found else None


@usual
@given(
    turns=some_turns(),
    scale=scales,
    threshold=st.floats(0, 1),
    singletons=st.sampled_from(["drop", "keep"]),
)
def test_verdicts_are_those_of_the_definition(turns: list[Turn], scale: str, threshold: float, singletons: str) -> None:
    options = ConsistencySettings(scale=scale, threshold=threshold, singletons=singletons)
    for index, verdict in enumerate(judge(turns, options, engine=ENGINE)):
        wanted = by_definition(turns, index, scale)
        if wanted is not None:
            assert verdict.similarity == pytest.approx(wanted, abs=1e-12)
            if abs(wanted - threshold) > 1e-12:
                assert verdict.kept == (wanted > threshold)
            assert verdict.reason == (None if verdict.kept else "below_threshold")
        elif turns[index].speaker == NOISE:
            assert (verdict.similarity, verdict.kept, verdict.reason) == (None, False, "noise_cluster")
        elif turns[index].embedding is None:
            assert (verdict.similarity, verdict.kept, verdict.reason) == (None, False, "no_embedding")
        else:
            reason = None if singletons == "keep" else "single_turn_speaker"
            assert (verdict.similarity, verdict.kept, verdict.reason) == (None, singletons == "keep", reason)
        assert verdict.kept == (verdict.reason is None) == (verdict.detail is None)


@usual
@given(turns=some_turns(), scale=scales, data=st.data())
def test_order_and_names_of_speakers_do_not_matter(turns: list[Turn], scale: str, data: st.DataObject) -> None:
    options = ConsistencySettings(scale=scale)
    verdicts = judge(turns, options, engine=ENGINE)
    order = data.draw(st.permutations(range(len(turns))))
    renamed = {0: 5, 1: 0, 2: 1, NOISE: NOISE}
    moved = [dataclasses.replace(turns[index], speaker=renamed[turns[index].speaker]) for index in order]
    for index, verdict in zip(order, judge(moved, options, engine=ENGINE), strict=True):
        same(verdict, verdicts[index])


def same(found: Verdict, wanted: Verdict) -> None:
    assert found.reason == wanted.reason
    assert found.similarity == pytest.approx(wanted.similarity, abs=1e-12)


@pytest.mark.parametrize("norm", [1e-308, 1e-200, 1e-160, 1e160, 1e300])
def test_a_norm_whose_square_no_float_holds_is_a_norm(norm: float) -> None:
    vectors = np.array([[3.0, 4.0], [4.0, 3.0], [5.0, 0.0]])
    np.testing.assert_allclose(mean_similarity(norm * vectors), mean_similarity(vectors), rtol=1e-9)
