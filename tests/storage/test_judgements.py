"""What people said of clips: kept whatever happens, counted once a judge, and in nobody's way."""

import multiprocessing
import os
import signal
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.corpus import Corpus
from storage.export import export
from storage.judgements import JUDGEMENTS, Judgements
from storage.rows import CorpusError
from storage.schema import JUDGEMENT
from storage.verify import verify

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)

HELD = {"0123456789abcdef-00001": "recipe-1", "other": "recipe-1"}
"""The clips that the corpus has."""


def judgement(**changes: Any) -> dict[str, Any]:
    row = {
        "query": "a weary voice",
        "utterance_id": "0123456789abcdef-00001",
        "recipe": "recipe-1",
        "verdict": "fits",
        "judge": "ada",
        "model": "data/models/m",
        "corpus": "data/corpus",
        "version": 8,
        "date": NOON,
    }
    return row | changes


@pytest.fixture
def judgements(tmp_path: Path) -> Judgements:
    return Judgements(tmp_path)


def test_what_was_added_comes_back_in_order(judgements: Judgements) -> None:
    rows = [judgement(query=f"q{number}") for number in range(3)]
    for row in rows:
        judgements.add(row)
    assert judgements.rows() == rows
    assert pq.read_schema(Path(judgements.path)).equals(JUDGEMENT)


def test_none_yet_is_an_empty_list(judgements: Judgements) -> None:
    assert (judgements.rows(), judgements.graded(HELD)) == ([], [])
    assert not Path(judgements.path).exists()


def test_a_date_is_kept_in_utc(judgements: Judgements) -> None:
    east = timezone(timedelta(hours=8))
    judgements.add(judgement(date=NOON.astimezone(east)))
    judgements.add(judgement(date=NOON.astimezone(east).isoformat()))
    assert [row["date"] for row in judgements.rows()] == [NOON] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verdict": "maybe"}, "verdict is 'maybe', not one of no, partly, fits"),
        ({"query": " "}, "query is ' '; it must not be empty"),
        ({"judge": ""}, "judge is ''"),
        ({"utterance_id": None}, "utterance_id is None"),
        ({"date": "yesterday"}, "date is 'yesterday', not a date and time in ISO 8601"),
        ({"date": "2026-11-23T12:00:00"}, "without an offset from UTC"),
        ({"version": 1.5}, "version does not fit int64"),
        ({"model": None}, "model is null"),
        ({"mood": "good"}, "has the unknown mood"),
    ],
)
def test_a_row_that_is_not_as_it_should_be_is_refused(
    judgements: Judgements, changes: dict[str, Any], message: str
) -> None:
    judgements.add(judgement())
    with pytest.raises(CorpusError, match=message):
        judgements.add(judgement(**changes))
    assert judgements.rows() == [judgement()]


def test_a_row_without_a_column_is_refused(judgements: Judgements) -> None:
    for name in judgement():
        with pytest.raises(CorpusError, match=f"lacks {name}"):
            judgements.add({key: value for key, value in judgement().items() if key != name})


def test_of_a_judge_the_latest_verdict_counts(judgements: Judgements) -> None:
    judgements.add(judgement(verdict="no", date=NOON + timedelta(hours=1)))
    judgements.add(judgement(verdict="fits", date=NOON))  # an earlier one that arrives later
    (row,) = judgements.graded(HELD)
    assert (row["gain"], row["judges"]) == (0, ("ada",))
    judgements.add(judgement(verdict="partly", date=NOON + timedelta(hours=1)))  # at the same moment: as added
    assert judgements.graded(HELD)[0]["gain"] == 1


def test_judges_who_disagree_count_alike(judgements: Judgements) -> None:
    for judge, verdict in (("ada", "fits"), ("bob", "no"), ("cy", "partly"), ("cy", "fits")):
        judgements.add(judgement(judge=judge, verdict=verdict))
    judgements.add(judgement(utterance_id="other", judge="bob", verdict="partly"))
    assert judgements.graded(HELD) == [
        {
            "query": "a weary voice",
            "utterance_id": "0123456789abcdef-00001",
            "gain": pytest.approx(4 / 3),
            "judges": ("ada", "bob", "cy"),
            "gains": (2, 0, 2),
        },
        {"query": "a weary voice", "utterance_id": "other", "gain": 1, "judges": ("bob",), "gains": (1,)},
    ]


def test_a_clip_that_is_gone_or_was_made_anew_is_not_the_one_that_was_heard(judgements: Judgements) -> None:
    judgements.add(judgement())
    judgements.add(judgement(utterance_id="other", recipe="recipe-0"))
    judgements.add(judgement(utterance_id="gone"))
    assert [row["utterance_id"] for row in judgements.graded(HELD)] == ["0123456789abcdef-00001"]


def _add(folder: Path, judge: str, count: int) -> None:
    for number in range(count):
        Judgements(folder).add(judgement(judge=judge, query=f"q{number}"))


def test_processes_that_add_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")  # a fork of a process that ran flows exits with 1
    workers = [context.Process(target=_add, args=(tmp_path, judge, 15)) for judge in ("ada", "bob")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    held = {(row["judge"], row["query"]) for row in Judgements(tmp_path).rows()}
    assert held == {(judge, f"q{number}") for judge in ("ada", "bob") for number in range(15)}


def _add_and_die(folder: Path) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = die  # type: ignore[assignment]  # between the writing and the renaming
    Judgements(folder).add(judgement(query="lost"))


def test_a_kill_loses_the_one_being_added_and_no_more(judgements: Judgements) -> None:
    judgements.add(judgement(query="first"))
    killed = multiprocessing.get_context("spawn").Process(target=_add_and_die, args=(Path(judgements.path).parent,))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    judgements.add(judgement(query="second"))  # the lock went with its holder
    assert [row["query"] for row in judgements.rows()] == ["first", "second"]
    left = {path.name for path in Path(judgements.path).parent.iterdir()} - {JUDGEMENTS}
    assert all(name.startswith(f".{JUDGEMENTS}.") and name.endswith(".tmp") for name in left), "for vacuum to remove"


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def test_a_damaged_file_is_said_and_left_alone(judgements: Judgements) -> None:
    judgements.add(judgement())
    damage(Path(judgements.path))
    held = Path(judgements.path).read_bytes()
    for use in (judgements.rows, lambda: judgements.graded(HELD), lambda: judgements.add(judgement())):
        with pytest.raises(CorpusError, match=rf"{JUDGEMENTS} is damaged .* put a backup in its place"):
            use()
    assert Path(judgements.path).read_bytes() == held


def test_a_file_of_another_kind_is_no_judgements(judgements: Judgements) -> None:
    pq.write_table(pa.table({"a": [1]}), Path(judgements.path))
    with pytest.raises(CorpusError, match="lacks corpus, date"):
        judgements.rows()
    odd = pa.Table.from_pylist([judgement(verdict="maybe", date=NOON)], schema=JUDGEMENT)
    pq.write_table(odd, Path(judgements.path))
    with pytest.raises(CorpusError, match="verdict is 'maybe'"):
        judgements.graded(HELD)


def test_a_folder_that_takes_no_file_is_said(judgements: Judgements, monkeypatch: pytest.MonkeyPatch) -> None:
    judgements.add(judgement())

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("storage.corpus.pq.write_table", full)
    with pytest.raises(CorpusError, match=r"cannot write .*No space left on device; check the disk"):
        judgements.add(judgement(query="another"))
    assert judgements.rows() == [judgement()]


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such folder"):
        Judgements(tmp_path / "nowhere")


# Beside a corpus


@pytest.fixture
def judged(corpus: Corpus, make_rows: Any) -> Corpus:
    corpus.commit_source(**make_rows("e1"))
    Judgements(corpus.folder).add(judgement())
    return corpus


def test_a_corpus_with_judgements_is_whole(judged: Corpus) -> None:
    report = verify(judged)
    assert (report.problems, report.notes) == ([], [])


def test_verify_finds_damaged_judgements(judged: Corpus) -> None:
    damage(judged.folder / JUDGEMENTS)
    (problem,) = verify(judged).problems
    assert (problem.code, problem.sources) == ("judgements_damaged", ())
    assert "put a backup in its place" in problem.message


@pytest.mark.usefixtures("no_card")
def test_an_export_carries_the_judgements(judged: Corpus, tmp_path: Path) -> None:
    files = export(judged, tmp_path / "clean", title="Test", settings={}, threshold=None)
    assert tmp_path / "clean" / JUDGEMENTS in files
    assert Judgements(tmp_path / "clean").rows() == [judgement()]
