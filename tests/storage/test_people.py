"""A person who is taken out is gone from every source and version, and the other speakers' rows are as they were."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import storage.erasure
import storage.people
import storage.rewriting
from cli import main as cli
from storage.captions import read_captions, write_captions
from storage.compaction import compact
from storage.corpus import Corpus
from storage.erasure import ERASING
from storage.judgements import Judgements
from storage.left_out import LEFT_OUT, Gaps, LeftOut, add_left_out, leaving, merged, mostly_within, read_left_out
from storage.maintenance import history, restore
from storage.models import FINISHED, ModelStore
from storage.people import forget_speakers, one_speaker, speakers_of
from storage.rows import CorpusError
from storage.verify import verify
from storage.work import Step, WorkStore
from tests.storage.conftest import Rows, rows_of, source_id
from tests.storage.test_erasure import contents

Shown = pytest.CaptureFixture[str]
HERS, ALSO_HERS = "series-a/e1/S00", "series-a/e2/S00"
HER_CLIPS = {f"{source_id(name)}-{index:05d}" for name in ("e1", "e2") for index in (0, 2)}


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "corpus") if request.param == "local" else f"{request.getfixturevalue('bucket')}/corpus"


def episode(name: str, *, others_first: bool = False, **how: Any) -> Rows:
    """An episode in which she says the even turns; with `others_first`, diarization calls her S01."""
    rows = rows_of(name, **how)
    for row in (*rows["utterances"], *rows["rejects"]):
        said_by = row["speaker"][-1]
        if others_first:
            row["speaker"] = f"{row['speaker'][:-1]}{'10'[int(said_by)]}"
        row["text"] = f"{'secret' if said_by == '0' and name in ('e1', 'e2') else 'open'} {name} {row['start']:.0f}"
    return rows


def fill(location: str) -> Corpus:
    """A corpus in which a source of hers was replaced, and written together with others."""
    corpus = Corpus.open(location, create=True)
    corpus.commit_source(**episode("e1", kept=4))
    corpus.commit_source(**episode("e2", kept=4, recipe="old", others_first=True))
    corpus.commit_source(**episode("e3", kept=2))
    corpus.commit_source(**episode("e2", kept=3))
    compact(corpus)
    corpus.commit_source(**episode("e4", kept=2))
    corpus.write_speakers(
        {
            "speaker": speaker, "linked_speaker": person, "series": "series-a", "episode": "?", "clips": 2,
            "seconds": 2.0, "similarity": None,
        }
        for speaker, person in ((HERS, HERS), (ALSO_HERS, HERS), ("series-a/e3/S00", "series-a/e3/S00"))
    )  # fmt: skip
    said = {"query": "q", "recipe": "r", "verdict": "fits", "judge": "ada", "model": "m", "corpus": "c", "version": 1}
    for clip in (f"{source_id('e1')}-00000", f"{source_id('e1')}-00001"):
        Judgements(location).add(said | {"utterance_id": clip, "date": "2026-01-01T00:00:00+00:00"})
    write_captions(corpus, source_id("e1"), {f"{source_id('e1')}-{n:05d}": ["one", "two"] for n in (0, 1)})
    return corpus


def rows_at(corpus: Corpus, version: int | None = None) -> list[tuple[str, str, str]]:
    table = corpus.utterances(version=version, columns=["utterance_id", "recipe", "text"])
    return [(row["utterance_id"], row["recipe"], row["text"]) for row in table.to_pylist()]


def others(rows: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    return [row for row in rows if not row[2].startswith("secret")]


def places(tmp_path: Path) -> list[str]:
    return [
        argument
        for name in ("models", "index", "work")
        for argument in (f"--{name}", str(tmp_path / name))
    ]  # fmt: skip


def her_sound() -> list[bytes]:
    rows = [row for name in ("e1", "e2") for row in episode(name, kept=4)["utterances"]]
    return [row["audio"]["bytes"][100:160] for row in rows if row["text"].startswith("secret")]


def test_nothing_is_left_of_a_person_and_all_of_the_others(location: str, tmp_path: Path, capsys: Shown) -> None:
    corpus = fill(location)
    before = [others(rows_at(corpus, change.number)) for change in history(corpus)]
    now = [row for row in corpus.utterances().to_pylist() if not row["text"].startswith("secret")]
    traces = [b"secret e1", b"secret e2", HERS.encode(), *(clip.encode() for clip in HER_CLIPS), *her_sound()]
    assert all(any(trace in content for _, content in contents(corpus)) for trace in traces)
    fill_beside(tmp_path, corpus.location)

    command = ["corpus", "forget", corpus.location, "--person", ALSO_HERS, "--erase", *places(tmp_path)]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "2 speakers taken out of 2 sources: 4 clips, 4 refused turns" in shown
    assert "the weights of first, which learnt from these clips" in shown
    assert shown.count(" files searched, 0 have a trace") == 4
    found = {name for name, content in contents(corpus) if any(trace in content for trace in traces)}
    for path in tmp_path.rglob("*"):
        if path.is_file() and any(trace in path.read_bytes() for trace in traces):
            found.add(str(path))
    assert found == set()

    assert corpus.utterances().to_pylist() == now
    assert [rows_at(corpus, number) for number in range(len(before))] == before, "every version has the others' rows"
    report = verify(corpus)
    assert report.problems == report.notes == []
    assert {row["speaker"] for row in corpus.speakers().to_pylist()} == {"series-a/e3/S00"}
    assert [row["utterance_id"][-5:] for row in Judgements(location).rows()] == ["00001"]
    assert list(read_captions(corpus)) == [f"{source_id('e1')}-00001"]
    for version in (2, 3, 4):
        assert restore(corpus, version) == [], "the tokens of an earlier version fit the rows that are left"
        assert rows_at(corpus) == before[version]
        assert verify(corpus).problems == []


def fill_beside(tmp_path: Path, location: str, *, voice: tuple[str, ...] = (HERS,)) -> None:
    """Models of two versions, an index and work files."""
    store = ModelStore.open(tmp_path / "models")
    hers, kept = f"{source_id('e1')}-00000", f"{source_id('e1')}-00001"
    for name, train in (("first", [hers, kept]), ("second", [kept])):
        voices = [{"part": "train", "speakers": list(voice)}] if name == "first" else []
        files = {
            "split.json": json.dumps({"train": train, "removed": {}, "voices": voices}),
            "run.json": json.dumps({"corpus": location, "version": 2}),
            FINISHED: "{}",
            "evaluation/c-v2/report.html": "with sound",
        }
        for file, text in files.items():
            store.root.write(f"{name}/{file}", text.encode())
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "rows.arrow").write_bytes(hers.encode())
    work = WorkStore(tmp_path / "work")
    with work.write(Step("download", 1, "", {}, [source_id("e1")])) as folder:
        (folder / "file").write_bytes(her_sound()[0])
    (tmp_path / "work" / "clips").mkdir()
    (tmp_path / "work" / "clips" / "clips.arrow").write_bytes(her_sound()[0])


def test_lists_of_models_lose_the_person_alone(tmp_path: Path) -> None:
    corpus = fill(str(tmp_path / "corpus"))
    fill_beside(tmp_path, corpus.location, voice=(HERS, f"{HERS}1"))
    cli.main(["corpus", "forget", corpus.location, "--person", HERS, "--erase", *places(tmp_path)])
    split = json.loads((tmp_path / "models" / "first" / "split.json").read_text())
    assert split["train"] == [f"{source_id('e1')}-00001"]
    assert split["voices"][0]["speakers"] == [f"{HERS}1"], "a longer name is another speaker's"
    assert not (tmp_path / "models" / "first" / "evaluation").exists() or not list(
        (tmp_path / "models" / "first" / "evaluation").rglob("*.html")
    )
    assert list((tmp_path / "models" / "second" / "evaluation").rglob("*.html"))


def test_a_model_of_an_earlier_version_loses_the_clip_that_had_the_id_then(tmp_path: Path) -> None:
    """The ids that she had in the old version of e2 are those of the other speaker's clips now."""
    corpus = Corpus.open(tmp_path / "corpus", create=True)
    old = episode("e2", kept=4, recipe="old")
    for row in old["utterances"]:
        number = int(row["utterance_id"][-5:]) ^ 1
        row["utterance_id"] = f"{source_id('e2')}-{number:05d}"
    corpus.commit_source(**old)
    corpus.commit_source(**episode("e2", kept=4))
    version = corpus.version()
    store = ModelStore.open(tmp_path / "models")
    ids = [f"{source_id('e2')}-{number:05d}" for number in range(4)]
    for name, of in (("old", version - 1), ("new", version)):
        store.root.write(f"{name}/split.json", json.dumps({"train": ids}).encode())
        store.root.write(f"{name}/run.json", json.dumps({"corpus": corpus.location, "version": of}).encode())
    cli.main(["corpus", "forget", corpus.location, "--speaker", ALSO_HERS, "--erase", *places(tmp_path)])
    lists = {name: json.loads(store.root.read(f"{name}/split.json") or b"")["train"] for name in ("old", "new")}
    assert lists == {"old": [ids[0], ids[2]], "new": [ids[1], ids[3]]}
    assert others(rows_at(corpus, version - 1)) == rows_at(corpus, version - 1)


def test_forgetting_makes_a_version_and_can_be_erased_later(tmp_path: Path, capsys: Shown) -> None:
    corpus = fill(str(tmp_path / "corpus"))
    version = corpus.version()
    assert cli.main(["corpus", "forget", corpus.location, "--person", HERS]) == 0
    assert "No build of these sources brings them back" in capsys.readouterr().out
    assert verify(corpus).problems == []
    assert {row[0] for row in rows_at(corpus, version)} >= HER_CLIPS, "earlier versions still have the rows"
    content = (corpus.place.read(LEFT_OUT) or b"").decode()
    assert "S00" not in content
    assert json.loads(content)["sources"][source_id("e1")]["seconds"][-1] == [100.0, 102.0], "refused turns count, too"

    rest = episode("e1", kept=4)
    theirs = [row for row in rest["utterances"] if row["text"].startswith("open")]
    rest["source"] |= {"turns_found": 2, "turns_kept": 2, "turns_rejected": 0}
    assert corpus.commit_source(rest["source"], utterances=theirs) == "unchanged", "what a build makes of the rest"

    assert cli.main(["corpus", "forget", corpus.location, "--erase", *places(tmp_path)]) == 0
    assert "0 have a trace" in capsys.readouterr().out
    assert not any(b"secret e1" in content for _, content in contents(corpus))
    assert cli.main(["corpus", "forget", corpus.location, source_id("e1"), "--erase", *places(tmp_path)]) == 0
    assert source_id("e1") not in read_left_out(corpus).sources, "of an erased source not even the seconds are kept"


def test_rows_of_another_recording_go_as_a_whole_from_earlier_versions(tmp_path: Path) -> None:
    corpus = Corpus.open(tmp_path / "corpus", create=True)
    other = episode("e1", kept=4)
    other["source"]["media_sha256"] = "0" * 64
    corpus.commit_source(**other)
    corpus.commit_source(**episode("e2", kept=2))
    corpus.commit_source(**episode("e1", kept=3))
    cli.main(["corpus", "forget", corpus.location, "--person", HERS, "--erase", *places(tmp_path)])
    assert [row[0][:16] for row in rows_at(corpus, 1)] == [], "which seconds were hers then is unknown"
    assert [row[2] for row in rows_at(corpus, 2)] == ["secret e2 0", "open e2 2"]
    assert [row[2] for row in rows_at(corpus) if row[0].startswith(source_id("e1"))] == ["open e1 2"]
    assert verify(corpus).problems == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "step",
    [
        "people._commit_rest",
        "rewriting._changed",
        "rewriting._write",
        "rewriting._action",
        "rewriting.leftovers",
        "erasure._erase_beside",
    ],
)
def test_what_a_kill_left_is_finished_by_the_next(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = fill(str(tmp_path / "corpus"))
    before = [others(rows_at(corpus, change.number)) for change in history(corpus)]
    command = ["corpus", "forget", corpus.location, "--person", HERS, "--erase", *places(tmp_path)]
    name, _, function = step.partition(".")
    module: Any = getattr(storage, name)
    work: Callable[..., Any] = getattr(module, function)
    calls = []

    def killed(*arguments: Any) -> Any:
        calls.append(step)
        if len(calls) == {"_erase_beside": 1, "_write": 12, "_action": 73}.get(function, 2):
            raise KeyboardInterrupt
        return work(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, function, killed)
        with pytest.raises(KeyboardInterrupt):
            cli.main(command)
    if function != "_commit_rest":
        assert sorted(rows_at(corpus)) == sorted(before[-1]), "it can be read in between"
        assert corpus.place.exists(ERASING)
        command = [each for each in command if each not in ("--person", HERS)]
    assert cli.main(command) == 0
    traces = [b"secret e1", b"secret e2", HERS.encode(), *(clip.encode() for clip in HER_CLIPS), *her_sound()]
    assert not {name for name, content in contents(corpus) if any(trace in content for trace in traces)}
    assert [rows_at(corpus, number) for number in range(len(before))] == before
    assert verify(corpus).problems == []
    assert restore(corpus, 2) == []


def test_published_speakers_go_by_name(tmp_path: Path) -> None:
    corpus = Corpus.open(tmp_path / "corpus", create=True)
    for name in ("e1", "e2"):
        rows = episode(name, kept=3, rejected=0)
        for number, row in enumerate(rows["utterances"]):
            row |= {"speaker": f"import/set/{(1, 12, 1)[number]}", "start": 0.0, "end": row["duration"]}
        rows["source"]["media_sha256"] = None
        corpus.commit_source(**rows)
    cli.main(["corpus", "forget", corpus.location, "--person", "import/set/1", "--erase", *places(tmp_path)])
    assert corpus.utterances(columns=["speaker"])["speaker"].to_pylist() == ["import/set/12"] * 2
    left_out = read_left_out(corpus)
    assert (left_out.has_speaker("import/set/1"), left_out.has_speaker("import/set/12")) == (True, False)
    assert b'import/set/1"' not in (corpus.place.read(LEFT_OUT) or b"")
    assert verify(corpus).problems == []


def test_a_name_that_nobody_has_is_refused(tmp_path: Path, capsys: Shown) -> None:
    corpus = fill(str(tmp_path / "corpus"))
    with pytest.raises(
        CorpusError, match=r"no speaker of .* is called 'series-a/e1/S0'; close to it are .*series-a/e1/S00"
    ):
        one_speaker(corpus, "series-a/e1/S0")
    assert speakers_of(corpus, ALSO_HERS) == {HERS, ALSO_HERS}
    assert one_speaker(corpus, ALSO_HERS) == {ALSO_HERS}
    version = corpus.version()
    assert cli.main(["corpus", "forget", corpus.location, "--person", "nobody"]) != 0
    assert cli.main(["corpus", "forget", corpus.location]) == 2
    assert "name a source, or a --person" in capsys.readouterr().err
    assert corpus.version() == version


def test_who_speaks_mostly_within_the_seconds_is_left_out() -> None:
    seconds = merged([(1.0, 2.0), (1.5, 3.0), (10.0, 12.0)])
    assert seconds == ((1.0, 3.0), (10.0, 12.0))
    turns = [(1.0, 3.0, "a"), (20.0, 21.0, "a"), (2.0, 5.0, "b"), (10.5, 11.0, "b"), (11.5, 13.5, "b"), (0.0, 0.0, "c")]
    turns += [(1.2, 2.0, None), (1.0, 3.0, None)]
    starts, ends, speakers = zip(*turns, strict=True)
    within, theirs = mostly_within(starts, ends, speakers, seconds)
    assert within.tolist() == [True, False, False, True, False, False, True, True]
    assert theirs == {"a"}, "also where the old diarization heard nobody; nobody is no speaker"
    rng = np.random.default_rng(0)
    edges = np.sort(rng.uniform(0, 100, 40)).round(3)
    spans = merged(edges.reshape(-1, 2).tolist())
    starts = rng.uniform(0, 100, 200)
    ends = starts + rng.uniform(0.1, 9, 200)
    slow = [
        sum(max(0.0, min(e, y) - max(s, x)) for x, y in spans) / (e - s) > 0.5
        for s, e in zip(starts, ends, strict=True)
    ]
    assert mostly_within(starts.tolist(), ends.tolist(), range(200), spans)[0].tolist() == slow


def test_speech_that_became_no_turn_goes_if_it_lies_in_the_seconds() -> None:
    left_out = LeftOut({"s": Gaps(frozenset(), ((1.0, 3.0),))})
    rows = [("s", None, 1.5, 2.5), ("s", None, 7.0, 8.0), ("s", None, None, None), ("s", "other", 8.0, 9.0)]
    columns = zip(("source_id", "speaker", "start", "end"), zip(*rows, strict=True), strict=True)
    table = pa.table({name: list(values) for name, values in columns})
    assert leaving(left_out, table).tolist() == [True, False, False, False]


def test_others_who_are_drowned_out_go_as_well(tmp_path: Path) -> None:
    corpus = Corpus.open(tmp_path / "corpus", create=True)
    rows = episode("e1", kept=4, rejected=0)
    rows["utterances"][1] |= {"start": 0.1, "end": 0.3, "duration": 0.2}  # within her first turn
    corpus.commit_source(**rows)
    done = forget_speakers(corpus, {HERS})
    assert (done.clips, done.of_others) == (3, 1)
    add_left_out(corpus, {source_id("e1"): Gaps(frozenset({"x"}), ((50.0, 51.0),))})
    gaps = read_left_out(corpus).sources[source_id("e1")]
    assert len(gaps.recordings) == 2
    assert gaps.seconds[-1] == (50.0, 51.0)
    assert pa.table(corpus.utterances())["utterance_id"].to_pylist() == [f"{source_id('e1')}-00003"]
