import io
import multiprocessing
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from fsclap.audio import decode_flac, encode_flac, resample
from fsclap.data.clips import FILE, ClipStore, CorruptClip
from fsclap.data.splits import TooSmall
from tests.fsclap.training.conftest import RATE


def wav(samples: np.ndarray) -> bytes:
    """A float WAV, which can hold what FLAC cannot."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.astype(np.float32), RATE, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def broken(corpus: pa.Table) -> tuple[pa.Table, dict[int, str]]:
    """The corpus with a row for each way to be unusable: what is said of each."""
    rows = corpus.slice(0, 20).to_pylist()
    sound, _ = decode_flac(rows[1]["audio"]["bytes"])
    with_nan = sound.copy()
    with_nan[100:103] = np.nan
    audio = {
        1: (b"no sound at all", "not a readable FLAC"),
        2: (rows[2]["audio"]["bytes"][:3000], "not a readable FLAC"),
        3: (wav(with_nan), "3 of its samples are NaN"),
        4: (encode_flac(sound[:1], RATE), "it has 1 samples at 24000 Hz, less than 0.1 s"),
        5: (encode_flac(sound[: RATE // 4], RATE), "its sound ends after 0.25 of 1.10 s"),
        6: (wav(np.stack([sound, sound], axis=1)), "2 channels"),
        7: (None, "it has no audio"),
    }
    for number, (data, _) in audio.items():
        rows[number]["audio"]["bytes"] = data
    rows[8]["audio"] = None
    rows[9]["caption"] = None
    rows[10]["caption"] = " "
    said = {number: reason for number, (_, reason) in audio.items()}
    return pa.Table.from_pylist(rows), said | dict.fromkeys((8,), "no audio") | dict.fromkeys((9, 10), "no caption")


def test_any_clip_as_it_was(store: ClipStore, corpus: pa.Table) -> None:
    assert len(store) == corpus.num_rows == 90
    rows = corpus.to_pylist()
    for number in (71, 0, 12):
        data = rows[number]["audio"]["bytes"]
        assert store.audio(number) == data
        wave, rate = decode_flac(data)
        np.testing.assert_array_equal(store.wave(number, rate), wave)
        np.testing.assert_array_equal(store.wave(number, 16000), resample(wave, rate, 16000))
        assert store.rows[rows[number]["utterance_id"]] == number
    assert store.table.drop_columns(["audio_sha256", "defect"]).equals(corpus.drop_columns(["audio"]))


def test_a_copy_is_used_again_until_the_key_changes(corpus: pa.Table, tmp_path: Path) -> None:
    def unread() -> Iterator[pa.RecordBatch]:
        raise AssertionError("the copy is there")
        yield

    ClipStore.create(tmp_path, corpus.slice(0, 5).to_batches(), key="a@1", progress=False)
    again = ClipStore.create(tmp_path, unread(), key="a@1", progress=False)
    assert (len(again), again.key) == (5, "a@1")
    newer = ClipStore.create(tmp_path, corpus.slice(0, 7).to_batches(), key="a@2", progress=False)
    assert (len(newer), newer.key) == (7, "a@2")
    assert len(again) == 5  # who reads the old one goes on reading it


def test_a_copy_appears_whole_or_not_at_all(corpus: pa.Table, tmp_path: Path) -> None:
    def interrupted() -> Iterator[pa.RecordBatch]:
        yield corpus.slice(0, 5).combine_chunks().to_batches()[0]
        raise ConnectionError

    with pytest.raises(ConnectionError):
        ClipStore.create(tmp_path, interrupted(), key="a@1", progress=False)
    with pytest.raises(FileNotFoundError, match="has no clips"):
        ClipStore.open(tmp_path)
    (tmp_path / f".{FILE}.part").write_bytes(b"of a process that was killed")
    (tmp_path / FILE).write_bytes(b"damaged")
    assert len(ClipStore.create(tmp_path, corpus.slice(0, 5).to_batches(), key="a@1", progress=False)) == 5
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


def test_a_process_gets_the_store_by_name(store: ClipStore) -> None:
    store.wave(0, RATE)
    data = pickle.dumps(store)
    assert len(data) < 500
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        heard = pool.apply(pickle.loads(data).wave, (3, 16000))
    np.testing.assert_array_equal(heard, store.wave(3, 16000))


def test_what_is_unusable_is_known_and_said(corpus: pa.Table, tmp_path: Path) -> None:
    rows, said = broken(corpus)
    store = ClipStore.create(tmp_path, rows.to_batches(), key="broken", progress=False)
    for number in range(20):
        if number not in said:
            assert store.defect(number) is None
            continue
        with pytest.raises(CorruptClip, match=said[number]) as caught:
            store.wave(number, 16000)
        assert caught.value.utterance_id == f"lines-{number:05d}"
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_an_empty_corpus(corpus: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(TooSmall, match=r"the corpus \(a@1\) has no utterances"):
        ClipStore.create(tmp_path, corpus.slice(0, 0).to_batches(), key="a@1")


def test_columns_that_differ_between_batches_in_nulls_only(corpus: pa.Table, tmp_path: Path) -> None:
    required = pa.schema([field.with_nullable(False) for field in corpus.schema])
    batches = corpus.slice(0, 6).cast(required).to_batches(max_chunksize=2)
    assert len(ClipStore.create(tmp_path, batches, key="a@1", progress=False)) == 6


def _create(folder: Path, rows: pa.Table) -> int:
    return len(ClipStore.create(folder, rows.to_batches(), key="a@1", progress=False))


def test_two_processes_at_once(corpus: pa.Table, tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.starmap(_create, [(tmp_path, corpus.slice(0, 30))] * 2) == [30, 30]
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


def test_languages_are_codes_of_the_clips_that_are_there(corpus: pa.Table, tmp_path: Path) -> None:
    ids = corpus["utterance_id"].to_pylist()
    silent = ClipStore.create(tmp_path / "silent", corpus.to_batches(), key="a", progress=False)
    assert silent.languages(ids) == []
    codes = ["cs", "en", None, "unknown", "x: y", "zh"] * (len(ids) // 6)
    tagged = ClipStore.create(
        tmp_path / "tagged", corpus.append_column("language", [codes]).to_batches(), key="b", progress=False
    )
    assert tagged.languages([*ids[:5], "gone"]) == ["cs", "en"]
