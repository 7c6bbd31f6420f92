"""A corpus is read with no code of ours: the shards by themselves, and an export."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import soundfile
from deltalake import DeltaTable

import storage.corpus
from storage.card import write_card
from storage.corpus import Corpus
from storage.export import export
from storage.rows import CorpusError
from storage.verify import verify


@pytest.fixture(scope="module")
def given(make_rows):
    """What was committed: utterance id -> row."""
    episodes = [make_rows(name, kept=3, emotion="joy") for name in ("e1", "e2", "e3")]
    return {"episodes": episodes, "rows": {u["utterance_id"]: u for e in episodes for u in e["utterances"]}}


@pytest.fixture(scope="module")
def filled(tmp_path_factory, given, make_rows):
    """A corpus in which one episode was replaced, so that its folder holds a shard of the past."""
    corpus = Corpus.open(tmp_path_factory.mktemp("corpus"), create=True)
    corpus.commit_source(**make_rows("e1", kept=5, recipe="old"))
    for episode in given["episodes"]:
        corpus.commit_source(**episode)
    assert len(list((corpus.folder / "utterances").glob("*.parquet"))) == 4
    return corpus


@pytest.fixture(scope="module")
def shards(filled):
    return [str(filled.folder / "utterances" / shard) for shard in filled.shards()]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return str(tmp_path / "cache")


def assert_sounds_the_same(audio, given):
    for utterance_id, content in audio.items():
        heard, rate = soundfile.read(io.BytesIO(content), dtype="int16")
        meant, _ = soundfile.read(io.BytesIO(given["rows"][utterance_id]["audio"]["bytes"]), dtype="int16")
        assert rate == given["rows"][utterance_id]["sample_rate"]
        np.testing.assert_array_equal(heard, meant)
    assert audio.keys() == given["rows"].keys()


def by_id(rows):
    return {row["utterance_id"]: row["audio"]["bytes"] for row in rows}


def test_arrow(shards, given):
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    assert_sounds_the_same(by_id(rows), given)


def test_pandas(shards, given):
    frame = pd.concat([pd.read_parquet(shard) for shard in shards])
    assert_sounds_the_same(by_id(frame.to_dict("records")), given)
    assert set(frame["emotion"]) == {"joy"}


def test_polars(shards, given):
    frame = pl.read_parquet(shards)
    assert_sounds_the_same(by_id(frame.iter_rows(named=True)), given)


def test_duckdb(shards, given):
    rows = duckdb.execute("select utterance_id, audio.bytes from read_parquet(?)", [shards]).fetchall()
    assert_sounds_the_same(dict(rows), given)


def test_datasets_reads_the_shards(shards, given, cache):
    corpus = datasets.load_dataset("parquet", data_files=shards, split="train", cache_dir=cache)
    corpus = corpus.cast_column("audio", datasets.Audio(decode=False))
    assert_sounds_the_same(by_id(corpus), given)


@pytest.mark.usefixtures("quick_plots")
def test_datasets_reads_the_folder_by_its_card(filled, given, cache):
    write_card(filled, title="Test", settings={}, threshold=None, folder=filled.folder)
    corpus = datasets.load_dataset(str(filled.folder), split="train", cache_dir=cache)
    assert corpus.features["audio"] == datasets.Audio(sampling_rate=24_000)
    assert corpus.features["attributes"]["pitch_hz"] == datasets.Value("float32")
    assert_sounds_the_same(by_id(corpus.cast_column("audio", datasets.Audio(decode=False))), given)


def test_a_reader_that_names_other_columns_skips_the_audio(shards):
    group = pq.ParquetFile(shards[0]).metadata.row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    sizes = {column.path_in_schema: column.total_compressed_size for column in columns}
    assert sizes.pop("audio.bytes") > 5 * sum(sizes.values())


# Export


@pytest.fixture(scope="module")
def exported(filled, tmp_path_factory, quick_plots):
    folder = tmp_path_factory.mktemp("export") / "clean"
    export(filled, folder, title="Test", settings={"threshold": 0.65}, threshold=0.65, shard_bytes=100_000)
    return folder


def test_an_export_holds_the_current_version_only(exported, given):
    assert sorted(path.name for path in exported.iterdir()) == [
        "README.md", "card.html", "plots", "rejects", "sources", "speakers", "utterances",
    ]  # fmt: skip
    files = sorted((exported / "utterances").iterdir())
    assert [file.name for file in files] == [f"train-{index:05d}.parquet" for index in range(len(files))]
    assert len(files) > 1
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert [row["utterance_id"] for row in rows] == sorted(given["rows"])
    assert_sounds_the_same(by_id(rows), given)
    assert pq.read_table(exported / "sources").num_rows == 3
    assert pq.read_table(exported / "rejects").num_rows == 6


def test_datasets_knows_the_audio_of_an_export(exported, given, cache):
    files = sorted(str(path) for path in (exported / "utterances").iterdir())
    bare = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    folder = datasets.load_dataset(str(exported), split="train", cache_dir=cache)
    refused = datasets.load_dataset(str(exported), "rejects", split="train", cache_dir=cache)
    for corpus in (bare, folder):
        assert isinstance(corpus.features["audio"], datasets.Audio)
        assert_sounds_the_same(by_id(corpus.cast_column("audio", datasets.Audio(decode=False))), given)
    assert refused.num_rows == 6


def test_an_export_does_not_overwrite(filled, exported):
    with pytest.raises(CorpusError, match="exists: give a new folder"):
        export(filled, exported, title="Test", settings={}, threshold=None)


def test_a_failed_export_leaves_nothing(filled, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("storage.export.write_card", fail)
    with pytest.raises(OSError, match="No space left"):
        export(filled, tmp_path / "clean", title="Test", settings={}, threshold=None)
    assert list(tmp_path.iterdir()) == []


def test_there_must_be_something_to_export(corpus, tmp_path):
    with pytest.raises(CorpusError, match="no utterances to export"):
        export(corpus, tmp_path / "clean", title="Test", settings={}, threshold=None)
    assert verify(corpus).problems == []


# A corpus that two writers write to


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def contended(request, tmp_path, monkeypatch, make_rows):
    """A corpus of which both writers committed every source at the same moment, so that each lost some."""
    root = str(tmp_path / "live") if request.param == "local" else request.getfixturevalue("bucket")
    corpus = Corpus.open(f"{root}/corpus", create=True)
    write = storage.corpus.write_deltalake

    def together(table, *arguments, **options):
        if table.table_uri.rstrip("/").endswith("utterances"):
            with suppress(threading.BrokenBarrierError):  # the one that lost comes again, alone
                both.wait(timeout=2)
        return write(table, *arguments, **options)

    monkeypatch.setattr(storage.corpus, "write_deltalake", together)
    for name in ("e1", "e2"):
        both, rows = threading.Barrier(2), make_rows(name, kept=3, rejected=0)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _, rows=rows: corpus.commit_source(**rows), range(2)))
    return corpus


def test_the_documented_ways_count_right_where_a_raw_glob_does_not(contended, tmp_path, monkeypatch):
    """README.md, "Use the corpus": whoever reads all files of the folder also reads what lost a race."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    uri = contended.uri("utterances")
    raw = [entry.name for entry in (contended.place / "utterances").list() if entry.name.endswith(".parquet")]
    files = [name for name in raw if "/" not in name]
    assert len(files) > len(contended.shards()), "a writer lost a race and left its shard"
    table = DeltaTable(uri)
    lazy = table.to_pyarrow_dataset()
    counts = {
        "deltalake": lazy.count_rows(),
        "pandas": len(table.to_pandas()),
        "polars": pl.scan_delta(uri).select(pl.len()).collect().item(),
        "duckdb": duckdb.sql("select count(*) from lazy").fetchall()[0][0],
        "datasets": datasets.Dataset.from_polars(pl.scan_delta(uri).collect()).num_rows,
        "corpus": contended.utterances(columns=["utterance_id"]).num_rows,
    }
    assert set(counts.values()) == {6}, counts
    assert verify(contended).problems == []
