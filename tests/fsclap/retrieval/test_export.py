"""Search results, exported in each format and read back with common tools."""

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from fsclap.retrieval.export import export_hits
from fsclap.retrieval.hits import Hit
from fsclap.retrieval.index import SearchError
from fsclap.retrieval.search import Searcher
from storage.rows import CorpusError
from storage.versions import CorpusVersion

QUERY = "a low voice,\nspeaking slowly"


@pytest.fixture(scope="module")
def hits(searcher: Searcher) -> list[Hit]:
    """More than are read at once would be 64; the corpus has 40."""
    return searcher.search(QUERY, top=12)


@pytest.fixture(scope="module")
def flacs(hits: list[Hit], version: CorpusVersion) -> dict[str, bytes]:
    return dict(version.audio([hit.utterance_id for hit in hits]))


def check_prompts(lines: str, hits: list[Hit]) -> list[str]:
    """Check that each line describes its clip; returns the file names."""
    prompts = [json.loads(line) for line in lines.splitlines()]
    assert len(prompts) == len(hits)
    for number, (prompt, hit) in enumerate(zip(prompts, hits, strict=True), start=1):
        assert prompt.pop("audio") == f"{number:02d}-{hit.utterance_id}.flac"
        assert (prompt.pop("query"), prompt.pop("rank"), prompt.pop("match")) == (QUERY, number, None)
        assert prompt.pop("score") == pytest.approx(hit.score)
        assert set(prompt) == {
            "text", "caption", "emotion", "speaker", "language", "duration", "utterance_id", "url", "start", "end",
        }  # fmt: skip
        assert prompt == {name: hit.row[name] for name in prompt}
    return [json.loads(line)["audio"] for line in lines.splitlines()]


def check_playlist(text: str, hits: list[Hit], names: list[str], *, prefix: str = "") -> None:
    head, rest = text.splitlines()[:3], text.splitlines()[3:]
    assert head == ["#EXTM3U", "#EXTENC:UTF-8", "#PLAYLIST:a low voice, speaking slowly"]
    assert rest[1::2] == [prefix + name for name in names]
    assert rest[::2] == [f"#EXTINF:{hit.row['duration']:.3f},{hit.caption}" for hit in hits]


def assert_sounds(content: bytes, flac: bytes, hit: Hit) -> None:
    heard, rate = soundfile.read(io.BytesIO(content), dtype="int16")
    meant, _ = soundfile.read(io.BytesIO(flac), dtype="int16")
    np.testing.assert_array_equal(heard, meant)
    assert len(heard) / rate == pytest.approx(hit.row["duration"], abs=1e-3)


def test_a_folder(hits: list[Hit], flacs: dict[str, bytes], version: CorpusVersion, tmp_path: Path) -> None:
    folder = export_hits(hits, version.audio, tmp_path / "found", query=QUERY)
    names = check_prompts((folder / "prompts.jsonl").read_text(encoding="utf-8"), hits)
    assert {path.name for path in folder.iterdir()} == {*names, "prompts.jsonl", "found.m3u8"}
    check_playlist((folder / "found.m3u8").read_text(encoding="utf-8"), hits, names)
    for name, hit in zip(names, hits, strict=True):
        assert_sounds((folder / name).read_bytes(), flacs[hit.utterance_id], hit)
    assert [path.name for path in tmp_path.iterdir()] == ["found"]


def test_a_zip(hits: list[Hit], flacs: dict[str, bytes], version: CorpusVersion, tmp_path: Path) -> None:
    file = export_hits(hits, version.audio, tmp_path / "weary.zip", query=QUERY)
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        content = {name: archive.read(name) for name in archive.namelist()}
    assert {name.split("/")[0] for name in content} == {"weary"}
    names = check_prompts(content["weary/prompts.jsonl"].decode(), hits)
    assert len(content) == len(names) + 2
    check_playlist(content["weary/found.m3u8"].decode(), hits, names)
    for name, hit in zip(names, hits, strict=True):
        assert_sounds(content[f"weary/{name}"], flacs[hit.utterance_id], hit)
    assert [path.name for path in tmp_path.iterdir()] == ["weary.zip"]


@pytest.mark.parametrize("suffix", [".m3u", ".m3u8", ".M3U8"])
def test_a_playlist(
    hits: list[Hit], flacs: dict[str, bytes], version: CorpusVersion, tmp_path: Path, suffix: str
) -> None:
    file = export_hits(hits, version.audio, tmp_path / f"#1 weary{suffix}", query=QUERY)
    names = check_prompts((tmp_path / "#1 weary" / "prompts.jsonl").read_text(encoding="utf-8"), hits)
    text = file.read_text(encoding="utf-8")
    check_playlist(text, hits, names, prefix="./#1 weary/")
    played = [line for line in text.splitlines() if not line.startswith("#")]
    for path, hit in zip(played, hits, strict=True):
        assert_sounds((tmp_path / path).read_bytes(), flacs[hit.utterance_id], hit)
    assert {path.name for path in tmp_path.iterdir()} == {file.name, "#1 weary"}


def test_parquet(
    hits: list[Hit],
    flacs: dict[str, bytes],
    version: CorpusVersion,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fsclap.retrieval.export._CLIPS_AT_A_TIME", 5)  # so that it takes three
    file = export_hits(hits, version.audio, tmp_path / "found.parquet", query=QUERY)
    rows = pq.read_table(file).to_pylist()
    assert [row["utterance_id"] for row in rows] == [hit.utterance_id for hit in hits]
    for number, (row, hit) in enumerate(zip(rows, hits, strict=True), start=1):
        assert_sounds(row["audio"]["bytes"], flacs[hit.utterance_id], hit)
        assert row["audio"]["path"] == f"{number:02d}-{hit.utterance_id}.flac"
        assert (row["rank"], row["match"], row["query"]) == (number, None, QUERY)
        assert row["score"] == pytest.approx(hit.score)
        assert {name: row[name] for name in hit.row} == hit.row
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    loaded = datasets.load_dataset("parquet", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(loaded.features["audio"], datasets.Audio)
    bare = loaded.cast_column("audio", datasets.Audio(decode=False))
    assert [row["bytes"] for row in bare["audio"]] == [flacs[hit.utterance_id] for hit in hits]


def test_matches_of_a_reranked_search_are_kept(hits: list[Hit], version: CorpusVersion, tmp_path: Path) -> None:
    found = [replace(hit, match=1.5) if hit.rank == 1 else hit for hit in hits[:3]]
    export_hits(found, version.audio, tmp_path / "found.parquet", query=QUERY)
    assert pq.read_table(tmp_path / "found.parquet")["match"].to_pylist() == [1.5, None, None]


@pytest.mark.parametrize("name", ["found", "found.zip", "found.m3u8", "found.parquet"])
def test_nothing_is_overwritten(hits: list[Hit], version: CorpusVersion, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(SearchError, match="exists: name another destination"):
        export_hits(hits, version.audio, tmp_path / name, query=QUERY)
    assert (tmp_path / name).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_playlist_does_not_take_an_existing_folder(hits: list[Hit], version: CorpusVersion, tmp_path: Path) -> None:
    (tmp_path / "found").mkdir()
    with pytest.raises(SearchError, match="found exists"):
        export_hits(hits, version.audio, tmp_path / "found.m3u", query=QUERY)
    assert [path.name for path in tmp_path.iterdir()] == ["found"]


@pytest.mark.parametrize("name", ["found", "found.zip", "found.m3u8", "found.parquet"])
def test_an_export_that_fails_leaves_nothing(
    hits: list[Hit], version: CorpusVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("fsclap.retrieval.export._CLIPS_AT_A_TIME", 2)
    gone = replace(hits[3], row=hits[3].row | {"utterance_id": f"{hits[3].row['source_id']}-99999"})
    with pytest.raises(CorpusError, match="has no utterance"):
        export_hits([*hits[:3], gone], version.audio, tmp_path / name, query=QUERY)
    with pytest.raises(SearchError, match=f"no sound for {hits[1].utterance_id}"):
        export_hits(hits[:3], lambda ids: version.audio(ids[:1]), tmp_path / name, query=QUERY)
    assert list(tmp_path.iterdir()) == []


def test_an_impossible_export_says_why(hits: list[Hit], version: CorpusVersion, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"a folder \(no suffix\), .zip, .m3u, .m3u8 or .parquet, not to .rar"):
        export_hits(hits, version.audio, tmp_path / "found.rar", query=QUERY)
    with pytest.raises(SearchError, match="no clips to export"):
        export_hits([], version.audio, tmp_path / "found", query=QUERY)
    with pytest.raises(SearchError, match="nowhere does not exist"):
        export_hits(hits, version.audio, tmp_path / "nowhere" / "found.zip", query=QUERY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["found", "found.zip", "found.m3u8", "found.parquet"])
def test_names_are_safe_whatever_the_ids_hold(
    hits: list[Hit], flacs: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    strange = ["../../etc/passwd", "a/b\\c:d*e?\x00\n", "é" * 300, "#EXTM3U\n/evil"]
    found = [
        replace(hit, row=hit.row | {"utterance_id": id_, "caption": "two\r\nlines\u2028here"})
        for hit, id_ in zip(hits, strange, strict=False)
    ]
    flac = next(iter(flacs.values()))
    export_hits(found, lambda ids: [(id_, flac) for id_ in ids], tmp_path / name, query="q\n#x")
    for path in tmp_path.rglob("*"):
        assert path.resolve().is_relative_to(tmp_path)
    written = list(tmp_path.rglob("*.flac"))
    if name.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / name) as archive:
            archive.extractall(tmp_path / "out")
        written = list((tmp_path / "out" / "found").glob("*.flac"))
    if name.endswith(".parquet"):
        written = [Path(row["path"]) for row in pq.read_table(tmp_path / name)["audio"].to_pylist()]
    assert sorted(path.name for path in written) == [
        "01-.._.._etc_passwd.flac", "02-a_b_c_d_e___.flac", f"03-{'_' * 120}.flac", "04-_EXTM3U__evil.flac",
    ]  # fmt: skip
    for playlist in tmp_path.rglob("*.m3u8"):
        lines = playlist.read_text(encoding="utf-8").split("\n")
        assert len(lines) == 3 + 2 * len(found) + 1
        assert len(playlist.read_text(encoding="utf-8").splitlines()) == 3 + 2 * len(found)
