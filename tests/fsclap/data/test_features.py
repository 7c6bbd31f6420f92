import multiprocessing
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fsclap.data import features
from fsclap.data.clips import ClipStore
from fsclap.data.features import CachedFeatures, FeatureCache, audio_features, text_features
from fsclap.model.embedded import SentenceTokens
from tests.fsclap.training.encoders import FrozenBytes, FrozenMel, TrainedBytes, TrainedMel


class CountingMel(FrozenMel):
    """Remembers how often it computed."""

    def __init__(self) -> None:
        self.computed = 0

    def features(self, wave: np.ndarray) -> np.ndarray:
        self.computed += 1
        return super().features(wave)


def heard(store: ClipStore, rows: list[int], folder: Path, encoder: FrozenMel) -> CachedFeatures:
    found, rejected = audio_features(store, rows, encoder, folder=folder, cached=True, progress=False)
    assert not rejected
    assert isinstance(found, CachedFeatures)
    return found


def test_values_are_those_of_the_encoder_in_half_precision(store: ClipStore, tmp_path: Path) -> None:
    encoder = FrozenMel()
    found = heard(store, [5, 3, 80], tmp_path, encoder)
    for position, row in enumerate([5, 3, 80]):
        expected = encoder.features(store.wave(row, encoder.sample_rate))
        np.testing.assert_array_equal(found[position], expected.astype(np.float16))
    assert found.lengths.tolist() == [len(found[position]) for position in range(3)]
    assert found[0].base is not None  # a view of the file


def test_only_what_is_missing_is_computed(store: ClipStore, tmp_path: Path) -> None:
    encoder = CountingMel()
    heard(store, [1, 2, 3], tmp_path, encoder)
    found = heard(store, [2, 3, 4, 4, 1], tmp_path, encoder)
    assert encoder.computed == 4
    np.testing.assert_array_equal(found[2], found[3])
    encoder.revision = "mel-2"
    heard(store, [1], tmp_path, encoder)
    assert encoder.computed == 5


def test_a_killed_run_loses_one_part_at_most(store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(CountingMel):
        def features(self, wave: np.ndarray) -> np.ndarray:
            if self.computed == 5:
                raise KeyboardInterrupt
            return super().features(wave)

    monkeypatch.setattr(features, "PART_BYTES", 4000)  # two clips
    with pytest.raises(KeyboardInterrupt):
        heard(store, list(range(20)), tmp_path, Stopped())
    cache = FeatureCache(tmp_path / "audio", FrozenMel.revision)
    (cache.path / ".part-0.arrow.part").write_bytes(b"half")
    encoder = CountingMel()
    found = heard(store, list(range(20)), tmp_path, encoder)
    assert 15 <= encoder.computed <= 17
    assert not list(cache.path.glob(".*"))
    fresh = heard(store, list(range(20)), tmp_path / "fresh", FrozenMel())
    for position in range(20):
        np.testing.assert_array_equal(found[position], fresh[position])


def test_a_damaged_part_is_computed_again(store: ClipStore, tmp_path: Path) -> None:
    found = heard(store, [1, 2], tmp_path, FrozenMel())
    (part,) = found.cache.path.glob("part-*")
    part.write_bytes(part.read_bytes()[:200])
    encoder = CountingMel()
    heard(store, [1, 2], tmp_path, encoder)
    assert encoder.computed == 2


def test_clips_that_give_no_features_are_reported(store: ClipStore, tmp_path: Path) -> None:
    class Choosy(FrozenMel):
        """Refuses short clips, and finds an overflow in long ones."""

        def features(self, wave: np.ndarray) -> np.ndarray:
            if len(wave) < 0.75 * self.sample_rate:
                raise ValueError("too short for this network")
            found = super().features(wave)
            return found * np.float32(1e6) if len(wave) > 1.45 * self.sample_rate else found

    rows = list(range(10))  # 0.6 to 1.5 s
    found, rejected = audio_features(store, rows, Choosy(), folder=tmp_path, cached=True, progress=False)
    assert {clip.utterance_id: clip.reason for clip in rejected} == {
        "lines-00000": "its features cannot be computed: too short for this network",
        "lines-00001": "its features cannot be computed: too short for this network",
        "lines-00009": "its features are not all finite in float16",
    }
    assert len(found.lengths) == 7
    np.testing.assert_array_equal(found[0], heard(store, [2], tmp_path / "other", FrozenMel())[0])


def test_features_of_a_trained_encoder_are_computed_when_asked_for(store: ClipStore, tmp_path: Path) -> None:
    encoder = TrainedMel()
    found, _ = audio_features(store, [4, 9], encoder, folder=tmp_path, cached=False)
    np.testing.assert_array_equal(found[1], encoder.features(store.wave(9, encoder.sample_rate)))
    assert found.lengths.argsort().tolist() == [0, 1]  # 1.0 and 1.5 s
    assert not list(tmp_path.iterdir())


def test_captions(tmp_path: Path) -> None:
    captions = ["A low voice.", "A high voice.", "A low voice."]
    for encoder in (FrozenBytes(), TrainedBytes()):
        found = text_features(captions, encoder, folder=tmp_path, progress=False)
        assert found.lengths.tolist() == [12, 13, 12]
        np.testing.assert_allclose(found[2], encoder.features(captions)[2], rtol=1e-3)
        np.testing.assert_array_equal(found[0], found[2])
    assert found[0].dtype == np.int64  # ids, of the second


def test_a_caption_of_ten_thousand_words_is_cut(tmp_path: Path) -> None:
    encoder = SentenceTokens()
    found = text_features(["low " * 10_000, "low"], encoder, folder=tmp_path, progress=False)
    assert found.lengths.tolist() == [encoder.max_tokens, 3]
    assert np.isfinite(found[0]).all()


def test_a_process_gets_the_cache_by_name(store: ClipStore, tmp_path: Path) -> None:
    found = heard(store, [1, 2], tmp_path, FrozenMel())
    data = pickle.dumps(found)
    assert len(data) < 1000
    np.testing.assert_array_equal(pickle.loads(data)[1], found[1])


def _fill(folder: Path, count: int) -> int:
    cache = FeatureCache(folder, "numbers")

    def compute(positions: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        for position in positions:
            yield position, np.full((3, 2), position)

    cache.fill([str(number) for number in range(count)], compute)
    return sum(int(cache[str(number)].max()) for number in range(count))


def test_two_processes_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.starmap(_fill, [(tmp_path, 50), (tmp_path, 60)]) == [1225, 1770]
    parts = [pa.ipc.open_file(file).read_all()["key"].to_pylist() for file in tmp_path.glob("*/part-*")]
    assert sorted(int(key) for part in parts for key in part) == list(range(60))  # none was computed twice
