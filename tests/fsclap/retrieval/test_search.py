import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fsclap.audio import decode_flac
from fsclap.retrieval.build import build_index
from fsclap.retrieval.filters import Condition
from fsclap.retrieval.index import SearchError
from fsclap.retrieval.nearest import Halved, best, nearest
from fsclap.retrieval.search import Searcher
from storage.versions import CorpusVersion
from tests.fsclap.retrieval.fixtures import make_model

QUERY = "a weary voice, speaking slowly"


def test_the_best_clips_come_first(searcher: Searcher) -> None:
    hits = searcher.search(QUERY, top=7, by="model")
    query = searcher.model.embed_text([QUERY])[0].numpy()
    scores = {
        id_: float(vector @ query)
        for id_, vector in zip(searcher.index.rows["utterance_id"].to_pylist(), searcher.index.vectors, strict=True)
    }
    expected = sorted(scores, key=lambda id_: -scores[id_])[:7]
    assert [hit.utterance_id for hit in hits] == expected
    assert [hit.rank for hit in hits] == list(range(1, 8))
    assert [hit.score for hit in hits] == pytest.approx([scores[id_] for id_ in expected], abs=1e-5)
    assert all(hit.caption == searcher.row(hit.utterance_id)["caption"] for hit in hits)


def test_more_than_there_is_gives_all(searcher: Searcher) -> None:
    assert len({hit.utterance_id for hit in searcher.search(QUERY, top=1000)}) == len(searcher.index.rows)


def test_conditions_narrow_the_search(searcher: Searcher) -> None:
    everything = searcher.search(QUERY, top=1000)
    where = [Condition.parse("emotion=sad"), Condition.parse("duration>=1")]
    hits = searcher.search(QUERY, top=1000, where=where)
    expected = [hit for hit in everything if hit.row["emotion"] == "sad" and hit.row["duration"] >= 1]
    assert [hit.utterance_id for hit in hits] == [hit.utterance_id for hit in expected]
    assert hits
    assert searcher.search(QUERY, where=[Condition.parse("emotion=furious")]) == []


def test_a_clip_finds_itself_first_by_its_sound(searcher: Searcher, version: CorpusVersion) -> None:
    ids = searcher.index.rows["utterance_id"].to_pylist()[3:6]
    for id_, flac in version.audio(ids):
        first = searcher.like_sound(*decode_flac(flac), top=3)[0]
        assert first.utterance_id == id_
        assert first.score == pytest.approx(1, abs=1e-5)


def test_a_clip_of_the_corpus_finds_others(searcher: Searcher) -> None:
    id_ = searcher.index.rows["utterance_id"][4].as_py()
    hits = searcher.like_clip(id_, top=5)
    assert len(hits) == 5
    assert id_ not in [hit.utterance_id for hit in hits]
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    scores = searcher.index.vectors @ searcher.vector(id_)
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores)[::-1][1:6], abs=1e-5)


def test_a_clip_is_described_by_the_captions_that_fit_it(searcher: Searcher) -> None:
    vector = searcher.vector(searcher.index.rows["utterance_id"][0].as_py())
    found = searcher.describe(vector, top=3)
    scores = dict(zip(searcher.index.captions.to_pylist(), searcher.index.caption_vectors @ vector, strict=True))
    expected = sorted(scores, key=lambda caption: -scores[caption])[:3]
    assert [description.caption for description in found] == expected
    assert found[0].score == pytest.approx(scores[expected[0]])


@pytest.mark.parametrize("query", ["", "  \n"])
def test_an_empty_query_is_refused(searcher: Searcher, query: str) -> None:
    with pytest.raises(SearchError, match="empty"):
        searcher.search(query)


@pytest.mark.parametrize(
    "wave", [np.zeros(10, np.float32), np.full(24_000, np.nan, np.float32), np.zeros((2, 24_000), np.float32)]
)
def test_an_unusable_wave_is_refused(searcher: Searcher, wave: np.ndarray) -> None:
    with pytest.raises(SearchError, match="at least"):
        searcher.like_sound(wave, 24_000)


def tones(*pitches: float) -> np.ndarray:
    """20 s of each pitch, (samples,) at 16 kHz."""
    time = np.arange(20 * 16_000) / 16_000
    return np.concatenate([0.3 * np.sign(np.sin(2 * np.pi * pitch * time)) for pitch in pitches]).astype(np.float32)


def test_all_of_a_long_recording_counts(searcher: Searcher) -> None:
    wave = tones(110, 300)[: 40 * 16_000]
    wave[13 * 16_000 : 27 * 16_000] = tones(200)[: 14 * 16_000]
    encoder = searcher.model.audio_encoder
    assert len(encoder.features(wave)) > 2 * encoder.max_frames
    found = searcher.embedded(wave, 16_000)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)
    middle = searcher.model.embed_audio([wave])[0].numpy()
    span = 187 * len(wave) // 501  # 15 s, three times
    starts = np.linspace(0, len(wave) - span, 3).round().astype(int)
    mean = searcher.model.embed_audio([wave[start : start + span] for start in starts]).numpy().mean(axis=0)
    assert found == pytest.approx(mean / np.linalg.norm(mean), abs=1e-4)
    assert np.linalg.norm(found - middle) > 1e-2
    ends = wave.copy()
    ends[: 10 * 16_000] = 0.01
    assert np.linalg.norm(searcher.embedded(ends, 16_000) - found) > 1e-2, "the middle is the same"


def test_a_long_recording_is_embedded_in_parts(searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    embed = searcher.model.embed_audio_features

    def counted(features: list[np.ndarray]) -> object:
        sizes.extend(len(part) for part in features)
        return embed(features)

    monkeypatch.setattr(searcher.model, "embed_audio_features", counted)
    searcher.embedded(tones(110, 200, 300), 16_000)
    searcher.embedded(tones(110)[: 10 * 16_000], 16_000)
    assert len(sizes) == 6
    assert max(sizes[:5]) <= searcher.model.audio_encoder.max_frames
    assert sizes[5] == 126, "a short one is embedded whole"


def test_an_unknown_clip_is_refused(searcher: Searcher) -> None:
    with pytest.raises(SearchError, match="nowhere"):
        searcher.like_clip("nowhere")


def test_the_wrong_model_is_refused(index_folder: Path, version: CorpusVersion, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", version, seed=1)
    with pytest.raises(SearchError, match="not the model"):
        Searcher.open(index_folder, model=other)


def test_a_model_that_was_moved_can_be_named(
    index_folder: Path, model_folder: Path, searcher: Searcher, tmp_path: Path
) -> None:
    shutil.copytree(model_folder, tmp_path / "moved")
    moved = Searcher.open(index_folder, model=tmp_path / "moved", device="cpu")
    assert [hit.utterance_id for hit in moved.search(QUERY)] == [hit.utterance_id for hit in searcher.search(QUERY)]


def test_re_ranking_wants_a_matching_head(searcher: Searcher) -> None:
    with pytest.raises(SearchError, match=r"model\.rerank"):
        searcher.search(QUERY, rerank=5)


def test_the_matching_head_orders_the_best(small_corpus: Path, tmp_path: Path) -> None:
    version = CorpusVersion.open(str(small_corpus))
    model = make_model(tmp_path / "model", version, rerank=True)
    index = build_index(tmp_path / "index", model, version, device="cpu", progress=False)
    searcher = Searcher.open(index.folder, sound=version.audio, device="cpu")
    plain, again = searcher.search(QUERY, top=12), searcher.search(QUERY, top=12, rerank=8)
    assert searcher.search(QUERY, top=12, by="words", rerank=8) == again, "words are the default"
    by_model = searcher.search(QUERY, top=12, by="model", rerank=8)
    assert {hit.utterance_id for hit in by_model[:8]} == {
        hit.utterance_id for hit in searcher.search(QUERY, top=8, by="model")
    }
    assert {hit.utterance_id: hit.why for hit in again} == {hit.utterance_id: hit.why for hit in plain}
    assert {hit.utterance_id for hit in again[:8]} == {hit.utterance_id for hit in plain[:8]}
    assert [hit.utterance_id for hit in again[8:]] == [hit.utterance_id for hit in plain[8:]]
    matches = [hit.match for hit in again[:8]]
    assert matches == sorted(matches, reverse=True)
    assert [hit.match for hit in again[8:]] == [None] * 4
    # A logit is that of the clip and the query alone, whatever else was scored with them.
    ((_, flac),) = version.audio([again[0].utterance_id])
    wave, _ = decode_flac(flac)
    assert len(wave)
    assert searcher.search(QUERY, top=1, rerank=1)[0].match == pytest.approx(
        next(hit.match for hit in again if hit.utterance_id == plain[0].utterance_id), abs=1e-4
    )
    with pytest.raises(SearchError, match="sound"):
        Searcher.open(index.folder, device="cpu").search(QUERY, rerank=5)


@given(
    arrays(np.float32, st.integers(1, 60), elements=st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0])), st.integers(1, 70)
)
def test_best_is_a_stable_sort_cut_off(scores: np.ndarray, top: int) -> None:
    assert best(scores, top).tolist() == np.argsort(-scores, kind="stable")[:top].tolist()


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_a_search_among_some_is_a_search_of_those_alone(share: float) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((500, 8)).astype(np.float32)
    query = rng.standard_normal(8).astype(np.float32)
    among = rng.random(500) < share
    rows, scores = nearest(vectors, query, 5, among)
    chosen = np.flatnonzero(among)
    alone, alone_scores = nearest(vectors[chosen], query, 5)
    assert rows.tolist() == chosen[alone].tolist()
    assert scores == pytest.approx(alone_scores, abs=1e-5)


@pytest.mark.parametrize("spread", [1.0, 0.02])
def test_half_precision_misses_none_of_the_nearest(spread: float) -> None:
    rng = np.random.default_rng(0)
    vectors = (1 + spread * rng.standard_normal((20_000, 64))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    half = Halved(vectors.astype(np.float16))
    among = rng.random(20_000) < 0.3
    for query in vectors[rng.integers(20_000, size=20)] + 0.01:
        query /= np.linalg.norm(query)
        for chosen in (None, among):
            expected, _ = nearest(vectors, query, 10, chosen)
            likely = half.candidates(query, 10, chosen)
            assert set(expected) <= set(likely)
            assert chosen is None or chosen[likely].all()
            if spread == 1:
                assert len(likely) < 1000
    few = np.zeros(20_000, dtype=bool)
    few[:3] = True
    assert half.candidates(vectors[0], 10, few).tolist() == [0, 1, 2]


def test_the_best_of_many_scores_are_found_block_by_block() -> None:
    rng = np.random.default_rng(0)
    for scores in (
        rng.normal(size=9999),
        np.arange(9999.0),
        -np.arange(9999.0),
        np.zeros(9999),
        rng.integers(0, 5, 9999),
    ):
        for top in (1, 10, 500, 9998, 20_000):
            assert best(scores, top).tolist() == np.argsort(-scores, kind="stable")[:top].tolist()
