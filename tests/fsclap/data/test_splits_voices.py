"""No voice is in two parts: not of many speakers, of a chain of them, or of a later version."""

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsclap import clustering
from fsclap.clustering import normalized
from fsclap.data.splits import PARTS, Split, SplitSettings, TooAlike, TooSmall, make, make_split

SMALL = SplitSettings(min_train_clips=2, min_eval_clips=2)


def people(labels: int, *, each: int, spread: float, dim: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(labels, dim) unit embeddings of speaker labels, `each` of one person; and the person of each.

    The spread is the norm of the noise around a person's direction, of norm 1.
    """
    rng = np.random.default_rng(seed)
    person = rng.permutation(np.arange(labels) // each)
    directions = normalized(rng.normal(size=(labels // each + 1, dim)))
    noise = spread * rng.normal(size=(labels, dim)) / np.sqrt(dim)
    return normalized(directions[person] + noise).astype(np.float32), person


def table(embeddings: np.ndarray, *, each: int = 1, series: list[str] | None = None) -> pa.Table:
    """`each` clips of each speaker label; clip n is of label n // each."""
    count, (labels, dim) = each * len(embeddings), embeddings.shape
    rows = np.repeat(embeddings.astype(np.float32), each, axis=0)
    offsets = np.arange(0, rows.size + 1, dim, dtype=np.int32)
    return pa.table(
        {
            "utterance_id": [f"{number:06d}" for number in range(count)],
            "series": np.repeat(series or ["A"] * labels, each).tolist(),
            "speaker": [f"A/e{number // each:06d}/S00" for number in range(count)],
            "caption": [f"caption {number}" for number in range(count)],
            "text": [""] * count,
            "speaker_embedding": pa.ListArray.from_arrays(offsets, pa.array(rows.ravel())),
        }
    )


def labels_of(split: Split, *, each: int = 1) -> dict[str, np.ndarray]:
    return {part: np.unique([int(id_) // each for id_ in split.ids(part)]) for part in PARTS}


def most_alike_across(split: Split, embeddings: np.ndarray, *, each: int = 1) -> float:
    """The highest cosine of two speaker labels of different parts."""
    labels = labels_of(split, each=each)
    highest = -1.0
    for a, b in combinations(PARTS, 2):
        others = embeddings[labels[b]].T
        for start in range(0, len(labels[a]), 1000):
            highest = max(highest, float((embeddings[labels[a][start : start + 1000]] @ others).max()))
    return highest


@pytest.mark.parametrize(
    ("count", "each"),
    [
        (5_000, 2),
        pytest.param(6_000, 3, marks=pytest.mark.slow),
        pytest.param(20_000, 3, marks=pytest.mark.slow),
        pytest.param(50_000, 4, marks=pytest.mark.slow),
    ],
)
def test_no_voice_is_in_two_parts_at_any_size(count: int, each: int) -> None:
    embeddings, person = people(count, each=each, spread=0.4)
    split = make_split(table(embeddings), SplitSettings())
    assert most_alike_across(split, embeddings) < 0.7
    people_of = {part: set(person[labels]) for part, labels in labels_of(split).items()}
    assert all(people_of[a].isdisjoint(people_of[b]) for a, b in combinations(PARTS, 2))
    assert split.removed == {}
    np.testing.assert_allclose([len(split.ids(part)) / count for part in PARTS], [0.8, 0.1, 0.1], atol=0.001)


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(6, 120),
    each=st.integers(1, 6),
    spread=st.floats(0, 2),
    dim=st.sampled_from([3, 8, 64]),
    similarity=st.floats(0.3, 1),
    seed=st.integers(0, 2**16),
)
def test_no_two_alike_speakers_are_in_different_parts(
    count: int, each: int, spread: float, dim: int, similarity: float, seed: int
) -> None:
    embeddings, _ = people(count, each=each, spread=spread, dim=dim, seed=seed)
    chosen = SMALL.model_copy(update={"voice_similarity": similarity, "seed": seed})
    try:
        split = make_split(table(embeddings, each=2), chosen)
    except TooSmall:  # all of them sound alike
        return
    assert most_alike_across(split, embeddings, each=2) < similarity
    assert sum(len(split.ids(part)) for part in PARTS) + len(split.removed) == 2 * count


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(20, 60),
    more=st.integers(0, 60),
    dim=st.sampled_from([4, 8, 64]),
    before=st.floats(0.6, 1),
    after=st.floats(0.6, 1),
    seed=st.integers(0, 2**16),
)
def test_nor_in_a_later_version_in_which_no_clip_changes_its_part(
    count: int, more: int, dim: int, before: float, after: float, seed: int
) -> None:
    embeddings, _ = people(count + more, each=2, spread=0.6, dim=dim, seed=seed)
    try:
        first = make_split(table(embeddings[:count]), SMALL.model_copy(update={"voice_similarity": before}))
        second = make_split(table(embeddings), SMALL.model_copy(update={"voice_similarity": after}), first)
    except TooSmall:
        return
    assert most_alike_across(second, embeddings) < after
    for part in PARTS:
        assert set(first.ids(part)) <= set(second.ids(part)) | second.removed.keys()


def line(*degrees: float) -> np.ndarray:
    """Voices in one plane: the cosine of two is that of the angle between them."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles), *np.zeros((6, len(angles)))], axis=1)


def apart(count: int) -> np.ndarray:
    """Voices at right angles to each other and to all of `line`; at most six."""
    return np.eye(8)[2 : 2 + count]


def test_a_new_speaker_between_two_parts_is_in_neither() -> None:
    known = apart(6)
    first = make_split(table(known, each=4), SMALL)
    labels = {part: rows.tolist() for part, rows in labels_of(first, each=4).items()}
    for a, b in combinations(PARTS, 2):
        between = normalized(known[labels[a][:1]] + known[labels[b][:1]])  # 0.71 to both
        second = make_split(table(np.concatenate([known, between]), each=4), SMALL, first)
        assert all(first.ids(part) == second.ids(part) for part in PARTS)
        assert sorted(second.removed) == [f"{number:06d}" for number in range(24, 28)]
        assert set(second.removed.values()) <= {f"its speaker sounds like one in {part}" for part in (a, b)}


def test_what_an_earlier_split_let_through_is_not_trained_on_any_more() -> None:
    corpus = table(np.concatenate([line(-30, 0, 40), apart(6)]), each=4)  # 0 and 40 degrees: 0.77
    for seed in range(20):
        lax = SMALL.model_copy(update={"seed": seed, "voice_similarity": 0.8})
        first = make_split(corpus, lax)
        heard = labels_of(first, each=4)
        if 1 in heard["train"] and 2 in heard["test"]:
            break
    assert first.nearest["test"] == pytest.approx(0.766, abs=1e-3)
    second = make_split(corpus, SMALL, first)
    assert second.removed == {f"{number:06d}": "its speaker sounds like one in test" for number in range(4, 8)}
    assert (second.validation, second.test) == (first.validation, first.test)
    assert make_split(corpus, SMALL, second) == second


def test_a_chain_is_one_voice() -> None:
    embeddings = np.concatenate([line(0, 40, 80), apart(6)])  # by average link, two voices
    for seed in range(5):
        split = make_split(table(embeddings, each=4), SMALL.model_copy(update={"seed": seed}))
        assert [0, 1, 2] in [[int(name[3:9]) for name in sorted(voice.speakers)] for voice in split.voices]
        assert split.removed == {}


def test_a_chain_with_too_many_clips_is_cut_between_voices() -> None:
    embeddings = line(0, 5, 10, 15, 55, 95, 100, 140, 175)
    split = make_split(table(embeddings, each=27), SMALL)
    assert most_alike_across(split, embeddings, each=27) < 0.7
    assert {part: rows.tolist() for part, rows in labels_of(split, each=27).items()} == {
        "train": [0, 1],
        "validation": [8],
        "test": [4, 5, 6],
    }
    assert set(split.removed.values()) == {"its speaker sounds like one in test"}


def test_a_small_corpus_gives_more_of_itself_to_validation_and_test() -> None:
    for speakers, expected in ((60, 12), (120, 24), (300, 30)):
        split = make_split(table(np.eye(speakers)), SMALL)
        assert len(split.validation) == len(split.test) == expected


def test_a_chain_too_long_for_one_dendrogram_is_cut_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "MAX_LINKAGE", 20)
    embeddings, _ = people(300, each=2, spread=0.4, dim=6)
    split = make_split(table(embeddings), SMALL)
    assert most_alike_across(split, embeddings) < 0.7
    assert min(len(split.ids(part)) for part in PARTS) >= 10


def test_chains_fewer_than_parts_are_cut_between_voices() -> None:
    embeddings = np.concatenate([line(0, 40, 80), apart(1)])
    split = make_split(table(embeddings, each=4), SMALL)
    assert most_alike_across(split, embeddings, each=4) < 0.7
    assert {why.rsplit(" ", 1)[0] for why in split.removed.values()} == {"its speaker sounds like one in"}


def test_a_chain_over_named_series_loses_only_who_sounds_like_another_part() -> None:
    embeddings = np.concatenate([line(0, 40, 80, 120), apart(2)])
    series = ["train", "train", "train", "test", "train", "validation"]
    named = {"validation_series": ("validation",), "test_series": ("test",)}
    split = make_split(table(embeddings, each=4, series=series), SMALL.model_copy(update=named))
    heard = {part: labels.tolist() for part, labels in labels_of(split, each=4).items()}
    assert most_alike_across(split, embeddings, each=4) < 0.7
    assert heard["test"] == [3]
    assert heard["validation"] == [5]
    assert set(heard["train"]) >= {0, 4}


def test_a_corpus_that_is_one_chain_says_so() -> None:
    with pytest.raises(TooSmall, match=r"10 speakers with 40 .* a chain .* raise split\.voice_similarity"):
        make_split(table(line(*range(10)), each=4), SMALL)


def test_a_split_with_a_speaker_like_one_of_training_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    series = ["train", "train", "test", "validation"]
    corpus = table(np.concatenate([line(-30, 0, 40), apart(1)]), each=4, series=series)
    chosen = SMALL.model_copy(update={"validation_series": ("validation",), "test_series": ("test",)})
    split = make_split(corpus, chosen)
    assert labels_of(split, each=4)["train"].tolist() == [0]
    assert split.nearest["test"] == pytest.approx(0.342, abs=1e-3)
    monkeypatch.setattr(make, "sounding_alike", lambda *_: {})
    message = r"A/e000002/S00 of test and speaker A/e000001/S00 of training .* is 0\.766, and from 0\.7 on"
    with pytest.raises(TooAlike, match=message):
        make_split(corpus, chosen)
