"""A block of a data set becomes a source of a corpus, without a server: its rows, and all captions of its clips."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from storage.captions import captions_digest, read_captions, with_captions
from storage.corpus import Corpus
from storage.export import export
from storage.importers import PRESETS, ImportSettings
from tasks.importing import blocks, import_block
from tasks.outcomes import Committed

RATE = 16_000
PRESET, SETTINGS = PRESETS["generic"], ImportSettings()


def write(root: Path, captions: dict[str, list[str]]) -> None:
    root.mkdir(exist_ok=True)
    for number, name in enumerate(captions):
        soundfile.write(root / f"{name}.wav", 0.1 * np.sin(np.arange(RATE // 2) * (0.05 + 0.01 * number)), RATE)
    lines = (json.dumps({"file": f"{name}.wav", "caption": several}) for name, several in captions.items())
    (root / "train.jsonl").write_text("\n".join(lines))


def imported(root: Path, corpus: Corpus) -> list[Committed | None]:
    return [
        import_block.fn(block, str(root), corpus.location, SETTINGS) for block in blocks(str(root), PRESET, SETTINGS)
    ]


def test_a_block_is_a_source_with_all_captions_of_its_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.export.write_card", lambda *_, **__: None)  # its plots take longer than the rest
    root, corpus = tmp_path / "set", Corpus.open(tmp_path / "corpus", create=True)
    write(root, {"a": ["A low voice.", "Deep."], "b": ["A high voice."]})
    (first,) = imported(root, corpus)
    assert first is not None
    assert (first.series, first.kept, first.rejected) == ("generic-train", 2, 0)
    rows = corpus.utterances(columns=["utterance_id", "caption"]).to_pylist()
    own = {row["caption"]: row["utterance_id"] for row in rows}
    assert read_captions(corpus) == {
        own["A low voice."]: ["A low voice.", "Deep."],
        own["A high voice."]: ["A high voice."],
    }
    (batch,) = with_captions(corpus.utterances(columns=["utterance_id"]).to_batches(), read_captions(corpus))
    assert sorted(batch["captions"].to_pylist()) == [["A high voice."], ["A low voice.", "Deep."]]
    assert imported(root, corpus) == [None], "nothing has changed"

    digest = captions_digest(corpus)
    assert digest is not None
    files = export(corpus, tmp_path / "copy", title="A copy", settings={}, threshold=None)
    (copied,) = (file for file in files if file.parent.name == "captions")
    assert pq.read_table(copied).num_rows == 3

    write(root, {"a": ["A low voice."], "b": ["A high voice."]})
    (again,) = imported(root, corpus)
    assert again is not None
    assert read_captions(corpus) == {}
    assert captions_digest(corpus) is None
