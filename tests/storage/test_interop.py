"""A corpus in the forms of other tools, read back with these tools: every row, every sample."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import datasets
import lhotse
import numpy as np
import pytest
import soundfile
import webdataset
from huggingface_hub import DatasetCard

from cli.main import main
from storage.card import write_card
from storage.corpus import Corpus
from storage.interop import export_shar, export_webdataset
from storage.judgements import Judgements
from storage.rights import STATED
from storage.rows import CorpusError
from storage.verify import verify


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, make_rows: Any) -> Corpus:
    """A corpus in which one episode was replaced."""
    corpus = Corpus.open(tmp_path_factory.mktemp("corpus"), create=True)
    corpus.commit_source(**make_rows("e1", kept=5, recipe="old"))
    for name, emotion in (("e1", None), ("e2", "joy"), ("e3", None)):
        corpus.commit_source(**make_rows(name, kept=3, emotion=emotion))
    return corpus


@pytest.fixture(scope="module")
def rows(filled: Corpus) -> dict[str, dict[str, Any]]:
    """Utterance id -> its row."""
    return {row["utterance_id"]: row for row in filled.utterances().to_pylist()}


NOTHING_STATED = dict.fromkeys(STATED.names)


def samples(flac: bytes) -> np.ndarray:
    return soundfile.read(io.BytesIO(flac), dtype="int16")[0]


def test_webdataset_reads_every_row_and_sample(filled: Corpus, rows: dict[str, Any], tmp_path: Path) -> None:
    shards = export_webdataset(filled, tmp_path / "shards", shard_bytes=100_000)
    assert [path.name for path in shards] == [f"utterances-{number:06d}.tar" for number in range(len(shards))]
    assert len(shards) > 1
    read = list(webdataset.WebDataset([str(path) for path in shards], shardshuffle=False))
    assert [one["__key__"] for one in read] == sorted(rows)
    for one in read:
        row = dict(rows[one["__key__"]])
        assert one["flac"] == row.pop("audio")["bytes"]
        assert json.loads(one["json"]) == row | NOTHING_STATED


def test_the_same_version_gives_the_same_tar_shards(filled: Corpus, tmp_path: Path) -> None:
    first, second = (export_webdataset(filled, tmp_path / name) for name in ("first", "second"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_lhotse_reads_every_row_and_sample(filled: Corpus, rows: dict[str, Any], tmp_path: Path) -> None:
    files = export_shar(filled, tmp_path / "shar", shard_clips=4)
    assert [path.name for path in files] == [
        *(f"cuts.{number:06d}.jsonl.gz" for number in range(3)),
        *(f"recording.{number:06d}.tar" for number in range(3)),
    ]
    cuts = list(lhotse.CutSet.from_shar(in_dir=tmp_path / "shar"))
    assert [cut.id for cut in cuts] == sorted(rows)
    for cut in cuts:
        row = dict(rows[cut.id])
        wave = cut.load_audio()
        assert cut.sampling_rate == row["sample_rate"]
        np.testing.assert_array_equal(np.round(wave[0] * 32768).astype(np.int16), samples(row.pop("audio")["bytes"]))
        (told,) = cut.supervisions
        assert told.id == row.pop("utterance_id")
        assert (told.text, told.speaker, told.language) == (row.pop("text"), row.pop("speaker"), row.pop("language"))
        assert (told.start, told.duration) == (0, pytest.approx(row.pop("duration"), abs=1e-3))
        assert (told.caption, told.attributes) == (row["caption"], row["attributes"])
        assert told.custom == row | NOTHING_STATED
    assert {cut.supervisions[0].emotion for cut in cuts} == {None, "joy"}


def test_without_lhotse_the_command_that_installs_it_is_said(
    filled: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lhotse.shar", None)
    with pytest.raises(CorpusError, match=r"pip install .* -e '.\[interop\]'"):
        export_shar(filled, tmp_path / "shar")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("export", [export_webdataset, export_shar])
def test_an_export_is_whole_or_not_there(
    filled: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export: Any
) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(CorpusError, match="exists: give a new folder"):
        export(filled, tmp_path / "mine")
    with pytest.raises(CorpusError, match="no utterances to export"):
        export(Corpus.open(tmp_path / "empty", create=True), tmp_path / "none")

    def fail(corpus: Corpus) -> Any:
        yield filled.utterances()
        raise OSError("No space left on device")

    monkeypatch.setattr("storage.interop.ordered_tables", fail)
    with pytest.raises(OSError, match="No space left"):
        export(filled, tmp_path / "half")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine"]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ([], "utterances/train-00000.parquet"),
        (["--format", "webdataset"], "utterances-000000.tar"),
        (["--format", "shar"], "cuts.000000.jsonl.gz"),
    ],
)
@pytest.mark.usefixtures("no_card")
def test_the_command_exports_each_format(
    filled: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str], chosen: list[str], expected: str
) -> None:
    folder = tmp_path / "out"
    assert main(["corpus", "export", filled.location, str(folder), *chosen]) == 0
    assert (folder / expected).is_file()
    assert str(folder / expected) in capsys.readouterr().out.splitlines()
    assert main(["corpus", "export", filled.location, str(folder), *chosen]) == 1


# The hub's own readers, over the folder of a corpus as it lies there


@pytest.fixture(scope="module")
def used(filled: Corpus, quick_plots: None) -> Corpus:
    """A corpus with its card, that was worked with: judgements and the files of locks are in its folder."""
    write_card(
        filled,
        title="A test: 'quoted', with #signs",
        settings={"threshold": 0.65},
        threshold=0.65,
        folder=filled.folder,
    )
    with filled.lock():
        Judgements(filled.folder).add(
            {
                "query": "q", "utterance_id": "u", "recipe": "r", "verdict": "no", "judge": "ada", "model": "m",
                "corpus": "c", "version": 1, "date": "2026-11-23T12:00:00+00:00",
            }
        )  # fmt: skip
    assert {".lock", "judgements.parquet"} <= {path.name for path in filled.folder.iterdir()}
    return filled


def test_datasets_reads_a_corpus_that_was_judged(
    used: Corpus, rows: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    read = datasets.load_dataset(str(used.folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(read["utterance_id"]) == sorted(rows)
    assert datasets.get_dataset_config_names(str(used.folder)) == ["utterances"]
    assert verify(used).problems == []


def test_the_card_of_a_corpus_is_one_of_the_hub(used: Corpus) -> None:
    card = DatasetCard.load(used.folder / "README.md")
    assert card.data.pretty_name == "A test: 'quoted', with #signs"
    assert (card.data.license, card.data.language) == ("other", ["en"])
    assert card.data.to_dict()["configs"][0]["config_name"] == "utterances"
    assert DatasetCard(str(card)).data.to_dict() == card.data.to_dict(), "it is written as it was read"
    assert card.text.strip().startswith("# ")
