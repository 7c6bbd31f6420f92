"""A data set in a published layout, with real sound, through import-corpus and all that comes after it."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import soundfile

from flows.import_corpus import import_corpus
from fsclap.data.clips import ClipStore
from fsclap.data.splits import Split
from fsclap.evaluation.run import evaluate_model
from fsclap.media import DecodeSettings, decode
from fsclap.retrieval.build import build_index
from fsclap.retrieval.search import Searcher
from storage.corpus import Corpus
from storage.importers import Columns, ImportSettings
from storage.verify import verify
from storage.versions import CorpusVersion
from tests.flows.trained import Place
from tests.fsclap.conftest import SAMPLES
from tests.fsclap.training.conftest import tiny

RATE = 16_000
PARTS = ("train", "train", "train", "dev", "test")


def miniature(folder: Path) -> Path:
    """60 clips of a real recording; one of them is no sound, and one quotes its transcript."""
    wave = decode(SAMPLES / "crossed-lines/e01.mp4", folder / "raw", sample_rate=RATE, settings=DecodeSettings())
    (folder / "set/clips").mkdir(parents=True)
    rows = []
    for number in range(60):
        clip = wave.mean(axis=0)[int(number * RATE) : int((number + 0.8) * RATE)]
        soundfile.write(folder / f"set/clips/{number}.wav", clip, RATE)
        part = PARTS[number % 5]
        rows.append({
            "file": f"clips/{number}.wav", "split": part, "speaker": f"{part}-{number % 2}", "pitch": "low",
            "caption": json.dumps([f"A low voice, take {number}.", f"Deep, number {number}."]),
            "said": f"sentence number {number} of this film",
        })  # fmt: skip
    (folder / "set/clips/3.wav").write_bytes(b"no sound")
    rows[4]["caption"] = json.dumps(["It says: sentence number 4 of this film."])
    with (folder / "set/rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    lines = [json.dumps(row | {"caption": json.loads(row["caption"])}) for row in rows]
    (folder / "set/rows.csv").rename(folder / "rows.csv")
    (folder / "set/rows.jsonl").write_text("\n".join(lines))
    return folder / "set"


@pytest.mark.slow
def test_an_imported_data_set_is_a_corpus_like_any_other(
    tmp_path: Path, prefect_server: None, quick_plots: None
) -> None:
    root, place = miniature(tmp_path), Place.within(tmp_path)
    settings = ImportSettings(columns=Columns(text=("said",)))
    first = import_corpus("generic", str(root), place.corpus, settings)
    assert (first.utterances, first.new) == (58, True)
    corpus = Corpus.open(place.corpus)
    assert verify(corpus).problems == []
    rows = corpus.utterances(
        columns=["series", "speaker", "style_key", "caption", "utterance_id", "attributes"]
    ).to_pylist()
    assert {row["series"] for row in rows} == {"generic-train", "generic-validation", "generic-test"}
    assert {row["style_key"] for row in rows} == {"pitch=low"}
    assert {row["speaker"] for row in rows} == {
        f"import/generic/{part}-{n}" for part in ("train", "dev", "test") for n in (0, 1)
    }
    assert any(row["attributes"]["pitch_hz"] for row in rows)
    reasons = {row["reason"]: row["detail"] for row in corpus.rejects().to_pylist()}
    assert "rows.jsonl, line 4" in reasons["unreadable_sound"]
    assert "rows.jsonl, line 5: the caption quotes the transcript" in reasons["unusable_row"]
    captions = pq.read_table(Path(place.corpus) / "captions").to_pylist()
    assert sum(row["utterance_id"] == rows[0]["utterance_id"] for row in captions) == 2

    again = import_corpus("generic", str(root), place.corpus, settings)
    assert (again.new, again.version) == (False, first.version)
    (root / "clips/3.wav").write_bytes((root / "clips/2.wav").read_bytes())
    mended = import_corpus("generic", str(root), place.corpus, settings)
    assert (mended.utterances, mended.changed_sources) == (59, 1)  # its block alone

    parts = {"validation_series": ("*-validation",), "test_series": ("*-test",)}
    train = tiny(split={**parts, "min_train_clips": 8, "min_eval_clips": 4}, epochs=1)
    trained = place.train(train).result()
    split = Split.load(Path(trained.model) / "split.json")
    assert (len(split.train), len(split.validation), len(split.test)) == (35, 12, 11)
    (copied,) = (Path(place.work) / "clips").glob("*/v*")
    several = ClipStore.open(copied).column("captions", [rows[0]["utterance_id"]])
    assert several == [[row["caption"] for row in captions if row["utterance_id"] == rows[0]["utterance_id"]]]
    store = ClipStore.create(
        tmp_path / "clips", corpus.dataset(version=trained.version).to_batches(), key="imported", progress=False
    )
    run = evaluate_model(
        Path(trained.model), store, split, "test", cache=tmp_path / "features", corpus="i", version=trained.version
    )
    assert {row.pool for row in run.evaluation.retrieval} == {11}
    version = CorpusVersion.open(place.corpus, trained.version)
    build_index(tmp_path / "index", Path(trained.model), version, progress=False)
    hits = Searcher.open(tmp_path / "index").search("a low voice", top=3)
    assert [hit.caption.split(",")[0] for hit in hits] == ["A low voice"] * 3
