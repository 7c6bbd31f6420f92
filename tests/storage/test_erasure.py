"""Nothing is left of a source that was erased, in any file or version; all other rows stay as they were."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import storage.erasure
import storage.rewriting
from storage.build_record import change_build, read_build
from storage.card import write_card
from storage.compaction import compact
from storage.corpus import Corpus
from storage.erasure import ERASING, erase, erased_digest, read_erased
from storage.judgements import Judgements
from storage.maintenance import forget, history, restore
from storage.models import FINISHED, ModelStore
from storage.objects import Place
from storage.requests import add_requests
from storage.sought import Sought
from storage.sounds import SHAPE, add_sound
from storage.traces import erase_from_models, erase_from_work, erase_index
from storage.verify import verify
from storage.work import Step, WorkStore
from tests.storage.conftest import Rows, source_id

GONE = source_id("gone")
MakeRows = Callable[..., Rows]


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "corpus") if request.param == "local" else f"{request.getfixturevalue('bucket')}/corpus"


def fill(location: str, make_rows: MakeRows) -> Corpus:
    """A corpus in which a source was added, replaced, compacted with others, and talked about in every file."""
    corpus = Corpus.open(location, create=True)
    corpus.commit_source(**make_rows("e1", kept=2))
    corpus.commit_source(**make_rows("gone", kept=4, recipe="old"))
    corpus.commit_source(**make_rows("gone", kept=3))
    corpus.commit_source(**make_rows("e2", kept=2))
    compact(corpus)
    corpus.commit_source(**make_rows("e3", kept=2))
    corpus.write_speakers(
        {
            "speaker": speaker, "linked_speaker": "series-a/gone/S00", "series": "series-a", "episode": "?", "clips": 2,
            "seconds": 2.0, "similarity": None,
        }
        for speaker in ("series-a/gone/S00", "series-a/e1/S00")
    )  # fmt: skip
    said = {"query": "q", "recipe": "r", "verdict": "fits", "judge": "ada", "model": "m", "corpus": "c", "version": 1}
    for name in ("gone", "e1"):
        date = "2026-01-01T00:00:00+00:00"
        Judgements(location).add(said | {"utterance_id": f"{source_id(name)}-00000", "date": date})
        add_sound(corpus, source_id(name), twin=GONE, duration=1.0, bits=np.zeros(SHAPE, np.uint32))
    add_requests(corpus, [GONE], fetch=True)
    sources = ["https://example.org/gone.mp4", "https://example.org/e1.mp4"]
    change_build(corpus, lambda _: {"sources": sources, "work": "w", "settings": {}})
    return corpus


def contents(corpus: Corpus) -> Iterator[tuple[str, bytes]]:
    """Every file, and every value of every column of the Parquet files."""
    for entry in corpus.place.list():
        content = corpus.place.read(entry.name) or b""
        yield entry.name, content
        if entry.name.endswith(".parquet"):
            rows = pq.read_table(pa.BufferReader(content)).to_pylist()
            yield entry.name, repr(rows).encode()
            yield from ((entry.name, row["audio"]["bytes"]) for row in rows if "audio" in row)


def traces(corpus: Corpus, texts: list[bytes]) -> set[str]:
    return {name for name, content in contents(corpus) if any(text in content for text in texts)}


def past(corpus: Corpus) -> list[list[str]]:
    """The utterances of every version without those of the source."""
    columns = ["utterance_id", "recipe", "text"]
    return [
        [repr(row) for row in corpus.utterances(version=change.number, columns=columns).to_pylist()]
        for change in history(corpus)
    ]


def test_nothing_is_left_of_a_source_and_all_of_the_others(location: str, make_rows: MakeRows) -> None:
    corpus = fill(location, make_rows)
    sounds = [row["audio"]["bytes"][100:160] for row in make_rows("gone", kept=4)["utterances"]]
    texts = [GONE.encode(), b"gone.mp4", b"series-a/gone", b"Episode gone", *sounds]
    assert {name.split("/")[0] for name in traces(corpus, texts)} == {
        "utterances", "rejects", "sources", "speakers.parquet", "judgements.parquet", "sounds.bin", "again.json",
        "build.json", *(["sounds.bin.d", "claims"] if not corpus.is_local else []),
    } - {"claims"} - ({"sounds.bin"} if not corpus.is_local else set())  # fmt: skip
    before = [[row for row in rows if GONE not in row] for rows in past(corpus)]
    version, table = corpus.version(), corpus.delta("utterances").metadata().id
    now = [row for row in corpus.utterances().to_pylist() if row["source_id"] != GONE]

    erased = erase(corpus, [GONE])
    assert (erased.sources, erased.search.traces) == ((GONE,), ())
    assert traces(corpus, texts) == set()
    assert corpus.utterances().to_pylist() == now
    assert past(corpus)[: version + 1] == before, "every version has what it had of the other sources"
    assert corpus.delta("utterances").metadata().id == table
    report = verify(corpus)
    assert report.problems == report.notes == []
    assert [row["linked_speaker"] for row in corpus.speakers().to_pylist()] == ["series-a/e1/S00"]
    assert len(Judgements(location).rows()) == 1
    build = read_build(corpus)
    assert build is not None
    assert build["sources"] == ["https://example.org/e1.mp4"]
    assert read_erased(corpus) == {erased_digest(GONE)}, "a build knows it, and nobody finds it"

    corpus.commit_source(**make_rows("e4", kept=2))
    restore(corpus, 1)
    assert verify(corpus).problems == []
    assert erase(corpus, [GONE]).sources == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", ["rewriting._changed", "rewriting._action", "rewriting.leftovers", "erasure._erase_beside"]
)
def test_what_a_kill_left_is_finished_by_the_next(
    step: str, tmp_path: Path, make_rows: MakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = fill(str(tmp_path / "corpus"), make_rows)
    now = [row for row in corpus.utterances().to_pylist() if row["source_id"] != GONE]
    name, _, function = step.partition(".")
    module = getattr(storage, name)
    work, calls = getattr(module, function), []

    def killed(*arguments: Any) -> Any:
        calls.append(step)
        if len(calls) == {"_erase_beside": 1, "_action": 12}.get(function, 2):
            raise KeyboardInterrupt
        return work(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, function, killed)
        with pytest.raises(KeyboardInterrupt):
            erase(corpus, [GONE])
    assert corpus.place.exists(ERASING)
    forget(corpus, [])
    erase(corpus, [])
    assert traces(corpus, [GONE.encode(), b"gone.mp4", b"series-a/gone"]) == set()
    assert corpus.utterances().to_pylist() == now
    assert verify(corpus).problems == []


@pytest.mark.usefixtures("quick_plots")
def test_the_card_goes_with_its_examples(tmp_path: Path, make_rows: MakeRows) -> None:
    corpus = Corpus.open(tmp_path / "corpus", create=True)
    corpus.commit_source(**make_rows("gone"))
    write_card(corpus, title="Test", settings={}, threshold=None, folder=corpus.folder)
    erase(corpus, [GONE])
    assert sorted(path.name for path in corpus.folder.iterdir() if path.is_file()) == ["erased.json"]


def test_models_index_and_work_files_lose_it_too(tmp_path: Path) -> None:
    store = ModelStore.open(tmp_path / "models")
    kept, gone = f"{source_id('e1')}-00000", f"{GONE}-00000"
    split = {"train": [kept, gone], "removed": {gone: "short"}, "voices": [{"speakers": [gone]}]}
    files = {
        "one/split.json": json.dumps(split),
        "one/rejected.jsonl": "".join(json.dumps({"utterance_id": each}) + "\n" for each in (gone, kept)),
        f"one/{FINISHED}": "{}",
        "one/evaluation/c-v1/report.html": "with sound",
        "two/split.json": json.dumps({"train": [kept]}),
        "two/evaluation/c-v1/report.html": "of others",
    }
    for name, text in files.items():
        store.root.write(name, text.encode())
    assert erase_from_models(store, Sought(sources=frozenset({GONE}))) == ["one"]
    assert json.loads(store.root.read("one/split.json") or b"") == {
        "train": [kept], "removed": {}, "voices": [{"speakers": []}],
    }  # fmt: skip
    assert kept in (store.root.read("one/rejected.jsonl") or b"").decode()
    assert all(gone.encode() not in (store.root.read(entry.name) or b"") for entry in store.root.list())
    assert [e.name for e in store.root.list() if "evaluation" in e.name] == ["two/evaluation/c-v1/report.html"]

    index = Place.at(tmp_path / "index")
    index.write("build/rows.arrow", b"rows")
    assert (erase_index(index), erase_index(index)) == (True, False)

    work = WorkStore(tmp_path / "work")
    steps = {}
    for name in ("gone", "e1"):
        media = name.encode() * 10
        download = Step("download", 1, "", {}, [source_id(name), "fingerprint"])
        separation = Step("separation", 1, "", {}, [hashlib.sha256(media).hexdigest()])
        turns = Step("diarization", 1, "", {}, [separation.key])
        for step in (download, separation, turns):
            with work.write(step) as folder:
                (folder / "file").write_bytes(media if step is download else step.key.encode())
        steps[name] = (download, separation, turns)
    assert erase_from_work(work.root, [GONE]) == 3
    assert [work.folder(step) for step in steps["gone"]] == [None] * 3
    assert all(work.folder(step) for step in steps["e1"])
