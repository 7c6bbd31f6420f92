"""A corpus under damage: what `verify` says, and that the documented repair brings back the same rows."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

import storage.corpus
from storage.corpus import Corpus
from storage.maintenance import repair
from storage.rows import CorpusError
from storage.validation import TIMINGS
from storage.verify import verify

EPISODES = [f"e{index}" for index in range(5)]
CHECKPOINT_INTERVAL = "4"
"""There is a checkpoint, and there are entries of the log after it."""


@pytest.fixture(scope="module")
def episodes(make_rows):
    return [make_rows(name, kept=2, rejected=1, emotion="joy") for name in EPISODES]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, episodes):
    with pytest.MonkeyPatch.context() as sooner:
        sooner.setitem(storage.corpus._CONFIGURATION, "delta.checkpointInterval", CHECKPOINT_INTERVAL)
        corpus = Corpus.open(tmp_path_factory.mktemp("whole") / "corpus", create=True)
    for rows in episodes:
        corpus.commit_source(**rows)
    corpus.write_speakers([])
    return corpus


@pytest.fixture(scope="module")
def intact(whole):
    return everything(whole)


@pytest.fixture
def damaged(whole, tmp_path):
    """A copy to be damaged."""
    shutil.copytree(whole.folder, tmp_path / "corpus")
    return Corpus.at(tmp_path / "corpus")


def everything(corpus: Corpus) -> list:
    return [
        corpus.utterances().to_pylist(),
        corpus.rejects().to_pylist(),
        corpus.sources().drop_columns(list(TIMINGS)).to_pylist(),
    ]


def build(corpus: Corpus, episodes: list) -> None:
    """What a build does: commit what the ledger does not have."""
    Corpus.open(corpus.location, create=True)
    ledger = corpus.ledger()
    for rows in episodes:
        if rows["source"]["source_id"] not in ledger:
            corpus.commit_source(**rows)


# Damage


def shard_of(corpus: Corpus, table: str = "utterances") -> Path:
    paths = [Path(uri.removeprefix("file://")) for uri in DeltaTable(corpus.uri(table)).file_uris()]
    return corpus.folder / table / sorted(path.name for path in paths)[3]


def entry(corpus: Corpus, number: int, table: str = "utterances") -> Path:
    return corpus.folder / table / "_delta_log" / f"{number:020d}.json"


def cut(path: Path, *, keep: float) -> None:
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * keep)])


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 8
    path.write_bytes(data)


def flip_column(corpus: Corpus, column: str) -> None:
    path = shard_of(corpus)
    group = pq.ParquetFile(path).metadata.row_group(0)
    (found,) = (group.column(at) for at in range(group.num_columns) if group.column(at).path_in_schema == column)
    first = found.dictionary_page_offset if found.has_dictionary_page else found.data_page_offset
    flip(path, first + round(found.total_compressed_size * 0.7))


def swap(corpus: Corpus) -> None:
    """Another corpus's shard in the place of the newest, and a log that knows its size."""
    (added,) = (json.loads(line)["add"] for line in last(corpus).read_text().splitlines() if line.startswith('{"add"'))
    path = corpus.folder / "utterances" / added["path"]
    rows = pq.read_table(path)
    for name, value in (("source_id", "f" * 16), ("utterance_id", "f" * 16 + "-00000")):
        at = rows.column_names.index(name)
        rows = rows.set_column(at, rows.field(at), pa.array([value] * len(rows)))
    pq.write_table(rows, path)
    last(corpus).write_text(
        last(corpus).read_text().replace(f'"size":{added["size"]}', f'"size":{path.stat().st_size}')
    )


def double(corpus: Corpus, table: str = "utterances") -> None:
    rows = corpus.dataset(table).to_table().slice(1, 1)
    write_deltalake(corpus.uri(table), rows, mode="append")


def drop(corpus: Corpus, table: str) -> None:
    (source_id, *_) = corpus.ledger()
    DeltaTable(corpus.uri(table)).delete(f"source_id = '{source_id}'")


def last(corpus: Corpus, table: str = "utterances") -> Path:
    return entry(corpus, DeltaTable(corpus.uri(table)).version(), table)


def checkpoint(corpus: Corpus) -> Path:
    (path,) = (corpus.folder / "utterances" / "_delta_log").glob("*.checkpoint.parquet")
    return path


DAMAGE: dict[str, tuple[Callable[[Corpus], object], set[str]]] = {
    "shard deleted": (lambda c: shard_of(c).unlink(), {"shard_missing"}),
    "shard of the rejects deleted": (lambda c: shard_of(c, "rejects").unlink(), {"shard_missing"}),
    "shard of the ledger deleted": (lambda c: shard_of(c, "sources").unlink(), {"shard_missing"}),
    "shard truncated": (lambda c: cut(shard_of(c), keep=0.6), {"shard_size"}),
    "shard empty": (lambda c: cut(shard_of(c), keep=0), {"shard_size"}),
    "shard overwritten": (lambda c: shard_of(c).write_bytes(bytes(shard_of(c).stat().st_size)), {"shard_damaged"}),
    "footer damaged": (lambda c: flip(shard_of(c), -6), {"shard_damaged"}),
    "bit flipped in the sound": (lambda c: flip_column(c, "audio.bytes"), {"shard_damaged", "sound"}),
    "bit flipped in a text": (lambda c: flip_column(c, "text"), {"shard_damaged", "altered"}),
    "bit flipped in an embedding": (
        lambda c: flip_column(c, "speaker_embedding.list.element"),
        {"shard_damaged", "altered"},
    ),
    "shard of another corpus": (swap, {"count", "orphan"}),
    "table's last entry truncated": (lambda c: cut(last(c), keep=0.5), {"log_cut"}),
    "table's last entry empty": (lambda c: cut(last(c), keep=0), {"log_cut"}),
    "ledger's last entry empty": (lambda c: cut(last(c, "sources"), keep=0), {"log_cut"}),
    "table's last entry gone": (lambda c: last(c).unlink(), {"count"}),
    "ledger's last entry gone": (lambda c: last(c, "sources").unlink(), {"orphan"}),
    "checkpoint truncated": (lambda c: cut(checkpoint(c), keep=0.7), {"checkpoint_damaged"}),
    "checkpoint gone": (lambda c: checkpoint(c).unlink(), {"checkpoint_damaged"}),
    "row of the ledger removed": (lambda c: drop(c, "sources"), {"orphan"}),
    "rows of the rejects removed": (lambda c: drop(c, "rejects"), {"count"}),
    "rows of the utterances removed": (lambda c: drop(c, "utterances"), {"count"}),
    "utterance doubled": (double, {"count"}),
    "row of the ledger doubled": (lambda c: double(c, "sources"), {"ledger_duplicate"}),
    "folder of the ledger deleted": (lambda c: shutil.rmtree(c.uri("sources")), {"table_missing"}),
    "folder of the utterances deleted": (lambda c: shutil.rmtree(c.uri("utterances")), {"table_missing"}),
    "speakers.parquet truncated": (lambda c: cut(c.folder / "speakers.parquet", keep=0.5), {"speakers_damaged"}),
}


# Much like another case of the same kind.
SIMILAR = {
    "shard of the rejects deleted",
    "shard empty",
    "bit flipped in an embedding",
    "ledger's last entry empty",
    "ledger's last entry gone",
    "rows of the rejects removed",
    "folder of the ledger deleted",
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SIMILAR else ()) for name in DAMAGE]
)
def test_damage_is_found_and_repaired(damaged, intact, episodes, name):
    spoil, expected = DAMAGE[name]
    spoil(damaged)
    problems = verify(damaged).problems
    assert problems, "nothing was found"
    assert {problem.code for problem in problems} <= expected
    assert repair(damaged)
    assert verify(damaged).problems == [], "what is left after the repair is sound"
    build(damaged, episodes)
    assert verify(damaged).problems == []
    assert everything(damaged) == intact


HARMLESS: dict[str, Callable[[Corpus], object]] = {
    "foreign file": lambda c: (c.folder / "utterances" / "foreign.parquet").write_bytes(b"foreign"),
    "pointer to the checkpoint damaged": lambda c: cut(checkpoint(c).with_name("_last_checkpoint"), keep=0.5),
    "entry before the checkpoint gone": lambda c: entry(c, 2).unlink(),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_harms_no_row_is_no_problem(damaged, intact, name):
    HARMLESS[name](damaged)
    report = verify(damaged)
    assert report.problems == []
    assert bool(report.notes) == (name != "pointer to the checkpoint damaged")
    assert everything(damaged) == intact


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: cut(path, keep=0.5)], ids=["gone", "cut"])
@pytest.mark.parametrize("table", ["utterances", "sources"])
def test_a_log_with_a_hole_is_replaced_by_hand(damaged, intact, episodes, table, spoil):
    """Nobody knows what the entry said: the repair refuses, and says what to do. That is done here."""
    spoil(entry(damaged, 4, table))
    (problem,) = verify(damaged).problems
    assert problem.code == "log_unreadable"
    assert f"entry 4 is {'missing' if spoil is Path.unlink else 'incomplete'}" in problem.message
    assert f"move the folder {damaged.uri(table)} away" in problem.message
    with pytest.raises(CorpusError, match="cannot read the table"):
        repair(damaged)
    shutil.move(damaged.uri(table), f"{damaged.location}-aside")
    assert repair(damaged)
    build(damaged, episodes)
    assert verify(damaged).problems == []
    assert everything(damaged) == intact


def test_a_repair_keeps_what_is_sound(damaged):
    shard = shard_of(damaged)
    before = set(damaged.ledger())
    cut(shard, keep=0.5)
    repair(damaged)
    (lost,) = before - set(damaged.ledger())
    assert damaged.utterances(columns=["source_id"]).num_rows == 2 * (len(EPISODES) - 1)
    assert shard.with_name(f"{shard.name}.damaged").exists(), "set aside, not deleted"
    assert repair(damaged) == []
    assert lost not in damaged.utterances(columns=["source_id"])["source_id"].to_pylist()


def test_there_must_be_something_to_repair(tmp_path):
    with pytest.raises(CorpusError, match="none of its tables"):
        repair(Corpus.at(tmp_path))
    assert list(tmp_path.iterdir()) == []


# Disks


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 12 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk takes root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path, *, leave: int) -> Path:
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - leave))
    return filler


def test_a_full_disk_is_noticed_before_anything_is_written(small_disk, make_rows):
    corpus = Corpus.open(small_disk / "corpus", create=True)
    first, second = make_rows("e1"), make_rows("e1", kept=6, rejected=4, recipe="recipe-2")
    corpus.commit_source(**first)
    before = everything(corpus)
    filler = fill(small_disk, leave=2_000_000)
    with pytest.raises(CorpusError, match=r"no room in .*: 4\.\d MB are needed, .* free some space, then run again"):
        corpus.commit_source(**second)
    assert everything(corpus) == before
    assert verify(corpus).problems == []
    filler.unlink()
    assert corpus.commit_source(**second) == "committed"
    assert verify(corpus).problems == []


@pytest.mark.parametrize("leave", [0, 8_192, 100_000])
def test_a_disk_that_fills_up_meanwhile_leaves_the_utterances_readable(small_disk, make_rows, monkeypatch, leave):
    corpus = Corpus.open(small_disk / "corpus", create=True)
    first, second = make_rows("e1"), make_rows("e1", kept=6, rejected=4, recipe="recipe-2")
    corpus.commit_source(**first)
    utterances, ledger = corpus.utterances().to_pylist(), corpus.sources().to_pylist()
    filler = fill(small_disk, leave=leave)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Corpus, "_check_room", lambda *_: None)  # there was room when it looked
        with pytest.raises(CorpusError, match=r"cannot write to .*: .*No space left.* then run again"):
            corpus.commit_source(**second)
    assert corpus.utterances().to_pylist() == utterances
    assert corpus.sources().to_pylist() == ledger
    filler.unlink()
    assert corpus.commit_source(**second) == "committed"
    report = verify(corpus)
    assert report.problems == []


def test_a_read_only_corpus_can_be_read_and_verified(small_disk, make_rows):
    corpus = Corpus.open(small_disk / "corpus", create=True)
    corpus.commit_source(**make_rows("e1"))
    before = everything(corpus)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert everything(Corpus.open(corpus.location)) == before
    assert verify(corpus).problems == []
    with pytest.raises(CorpusError, match=r"Read-only file system.*permissions of the folder, then run again"):
        corpus.commit_source(**make_rows("e2"))
    assert everything(corpus) == before
