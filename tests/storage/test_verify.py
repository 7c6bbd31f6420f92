import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from storage.corpus import SCHEMAS, Corpus
from storage.rows import CorpusError
from storage.schema import UTTERANCE
from storage.verify import verify
from tests.storage.conftest import source_id


def codes(corpus, **options):
    return [problem.code for problem in verify(corpus, **options).problems]


@pytest.fixture
def broken(corpus, make_rows):
    """A corpus of two episodes, one refused, and a way to spoil one of its tables behind its back."""
    corpus.commit_source(**make_rows("e1"))
    corpus.commit_source(**make_rows("e2", kept=0, rejected=0, status="rejected"))
    assert verify(corpus).problems == []

    def spoil(table, *, predicate, **updates):
        held = DeltaTable(corpus.uri(table))
        if updates:
            held.update(predicate=predicate, updates=updates)
        else:
            held.delete(predicate)
        return verify(corpus).problems

    return spoil


def test_a_sound_corpus_is_counted_and_has_no_problem(corpus, make_rows):
    corpus.commit_source(**make_rows("e1", kept=3, emotion="joy"))
    corpus.commit_source(**make_rows("e1", kept=4, recipe="recipe-2"))
    corpus.commit_source(**make_rows("e2", kept=0, rejected=0, status="failed"))
    report = verify(corpus)
    assert (report.problems, report.notes) == ([], [])
    assert (report.sources, report.utterances, report.shards) == (2, 4, 5)


def test_an_empty_corpus_is_sound(corpus):
    assert codes(corpus) == []


def test_no_corpus_is_an_error(tmp_path):
    with pytest.raises(CorpusError, match="there is no such folder"):
        verify(Corpus.at(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("table", "predicate", "updates", "code", "message"),
    [
        (
            "sources",
            "status = 'kept'",
            {"turns_found": "turns_found + 1"},
            "sum",
            "6 turns found, but 3 kept and 2",
        ),
        ("utterances", "utterance_id like '%00001'", {}, "count", "turns_kept is 3 in the ledger, but it has 2 rows"),
        ("rejects", "start = 100.0", {}, "count", "turns_rejected is 2 in the ledger, but it has 1 rows"),
        ("rejects", "start is null", {}, "unexplained", "is rejected, but no row in rejects gives the reason"),
        (
            "sources",
            "status = 'kept'",
            {},
            "orphan",
            "3 rows in utterances belong to source .* not in the ledger",
        ),
        ("rejects", "start = 100.0", {"recipe": "'recipe-9'"}, "recipe", "have recipe recipe-9, not the ledger's"),
        (
            "utterances",
            "utterance_id like '%00001'",
            {"text": "'x'"},
            "altered",
            "rows in utterances .* not",
        ),
        (
            "utterances",
            "utterance_id like '%00001'",
            {"similarity": "0.71"},
            "altered",
            "rows in utterances .* not",
        ),
        ("rejects", "start = 100.0", {"detail": "'x'"}, "altered", "the rows in rejects of source .* are not those"),
        (
            "sources",
            "status = 'kept'",
            {"title": "'x'"},
            "ledger_altered",
            "in the ledger is not the one that",
        ),
        ("utterances", "start = 2.0", {"end": "1.0"}, "times", "goes from 2 to 1 s"),
        ("utterances", "start = 2.0", {"duration": "9.0"}, "times", "its duration is 9"),
        ("utterances", "start = 0.0", {"start": "-1.0"}, "range", "start of .*-00000 is -1, not 0 to inf"),
        (
            "utterances",
            "start = 2.0",
            {"similarity": "1.5"},
            "range",
            "similarity of .*-00001 is 1.5, not -1.001 to",
        ),
        ("utterances", "start = 2.0", {"overlap": "2"}, "range", "overlap of .*-00001 is 2"),
        ("utterances", "start = 2.0", {"utterance_id": "'other-1'"}, "foreign_id", "other-1 does not start with"),
        ("utterances", "start = 2.0", {"sample_rate": "16000"}, "sound", "has 24000 Hz, sample_rate is 16000"),
    ],
)
def test_one_altered_or_lost_row_is_one_problem(broken, table, predicate, updates, code, message):
    (problem,) = broken(table, predicate=predicate, **updates)
    assert problem.code == code
    assert len(problem.sources) == 1
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(problem.message)


def test_timings_are_no_part_of_what_was_committed(broken):
    assert broken("sources", predicate="status = 'kept'", committed_at="now()") == []


@pytest.mark.parametrize(
    ("table", "code"), [("utterances", "count"), ("sources", "ledger_duplicate"), ("rejects", "count")]
)
def test_a_row_that_occurs_twice_is_found(corpus, make_rows, table, code):
    corpus.commit_source(**make_rows("e1"))
    write_deltalake(corpus.uri(table), getattr(corpus, table)(), mode="append")
    assert codes(corpus) == [code]


def test_an_utterance_that_took_the_place_of_another_is_found(corpus, make_rows):
    corpus.commit_source(**make_rows("e1"))
    rows = corpus.utterances()
    doubled = pa.concat_tables([rows.slice(0, 2), rows.slice(0, 1)])
    write_deltalake(corpus.uri("utterances"), doubled, mode="overwrite")
    (problem,) = verify(corpus).problems
    assert problem.code == "utterance_duplicate"


def test_the_same_recording_under_two_addresses_is_found(corpus, make_rows):
    for name in ("one", "two"):
        rows = make_rows(name)
        rows["source"]["media_sha256"] = "ab" * 32
        corpus.commit_source(**rows)
    (problem,) = verify(corpus).problems
    assert problem.code == "recording_duplicate"
    assert len(problem.sources) == 2


def test_people_whom_a_data_set_names_may_be_in_several_sources(corpus, make_rows):
    for name in ("e1", "e2"):
        rows = make_rows(name)
        for row in rows["utterances"]:
            row["speaker"] = "import/expresso/ex01"
        corpus.commit_source(**rows)
    assert verify(corpus).problems == []


def test_a_speaker_belongs_to_one_source(corpus, make_rows):
    """Every file of the feed is called media.mp3, and speakers were named after it."""
    for name in ("e1", "e2", "e3"):
        rows = make_rows(name)
        for row in rows["utterances"]:
            row["speaker"] = row["speaker"].replace("e2", "e1")
        corpus.commit_source(**rows)
    (problem,) = verify(corpus).problems
    assert problem.code == "speaker_shared"
    assert problem.sources == tuple(sorted(source_id(name) for name in ("e1", "e2")))


def test_a_duplicate_has_a_twin(corpus, make_rows):
    kept, duplicate = make_rows("e1"), make_rows("e2", kept=0, rejected=0, status="rejected")
    duplicate["source"]["media_sha256"] = kept["source"]["media_sha256"]
    duplicate["rejects"][0] |= {"stage": "download", "reason": "duplicate"}
    for rows in (kept, duplicate):
        corpus.commit_source(**rows)
    assert codes(corpus) == []
    kept["source"]["media_sha256"] = "ab" * 32  # its file was replaced
    corpus.commit_source(**kept)
    (problem,) = verify(corpus).problems
    assert (problem.code, problem.sources) == ("duplicate_alone", (source_id("e2"),))


def test_an_engine_gives_embeddings_of_one_length(corpus, make_rows):
    for name in ("e1", "e2"):
        corpus.commit_source(**make_rows(name))
    odd = make_rows("e3")
    odd["utterances"][1]["speaker_embedding"] = [0.5] * 9
    other = make_rows("e4")
    for row in other["utterances"]:
        row |= {"speaker_embedding": [0.5] * 9, "diarization_engine": "funasr@1"}
    corpus.commit_source(**odd)
    corpus.commit_source(**other)
    (problem,) = verify(corpus).problems
    assert problem.code == "embedding_length"
    assert problem.sources == (odd["source"]["source_id"],)
    assert "9 numbers in some sources, 8 in most" in problem.message


def test_sound_that_was_never_sound_is_found_unless_it_is_left_out(corpus, make_rows):
    rows = make_rows("e1")
    rows["utterances"][1]["audio"]["bytes"] = b"fLaC" + bytes(500)
    corpus.commit_source(**rows)
    assert codes(corpus) == ["sound"]
    assert codes(corpus, audio=False) == []


def test_numbers_that_the_schema_forbids_are_found(corpus, make_rows):
    corpus.commit_source(**make_rows("e1"))
    rows = corpus.utterances()
    durations = pa.array([np.nan, 1.0, 1.0])
    spoilt = rows.set_column(rows.column_names.index("duration"), UTTERANCE.field("duration"), durations)
    write_deltalake(corpus.uri("utterances"), spoilt, mode="overwrite")
    (problem,) = verify(corpus).problems
    assert problem.code == "shard_damaged"
    assert "duration has NaN" in problem.message


def test_a_corpus_whose_sources_share_shards_is_sound(corpus, make_rows):
    """Another tool may have compacted the table."""
    for index in range(6):
        corpus.commit_source(**make_rows(f"e{index}", kept=2))
    for name in SCHEMAS:
        corpus.delta(name).optimize.compact()
    report = verify(corpus)
    assert (report.problems, report.shards) == ([], 3)


def test_a_source_may_have_several_shards(corpus, make_rows):
    """Delta begins another file when one gets long."""
    for name in ("e1", "e2"):
        corpus.commit_source(**make_rows(name, kept=4))
    rows = corpus.utterances()
    for place in range(0, 8, 2):
        write_deltalake(corpus.uri("utterances"), rows.slice(place, 2), mode="append" if place else "overwrite")
    assert len(corpus.shards()) == 4
    assert verify(corpus).problems == []


def test_a_shard_with_another_number_of_rows_is_found(corpus, make_rows):
    corpus.commit_source(**make_rows("e1"))
    log = corpus.folder / "utterances" / "_delta_log" / f"{1:020d}.json"
    log.write_text(log.read_text().replace('\\"numRecords\\":3', '\\"numRecords\\":4'))
    (problem,) = verify(corpus).problems
    assert problem.code == "shard_rows"
    assert "has 3 rows, not 4 as in the log" in problem.message


def test_rows_without_a_token_are_told_apart(corpus, make_rows):
    committed = Corpus.open(f"{corpus.location}-other", create=True)
    committed.commit_source(**make_rows("e1"))
    for name in SCHEMAS:
        write_deltalake(corpus.uri(name), committed.dataset(name).to_table(), mode="append")
    report = verify(corpus)
    assert report.problems == []
    assert report.notes == ["1 sources have no token, so alterations of their rows cannot be detected"]


def test_files_that_no_version_names_are_noted(corpus, make_rows):
    corpus.commit_source(**make_rows("e1"))
    corpus.commit_source(**make_rows("e1", kept=1, recipe="recipe-2"))
    assert verify(corpus).notes == [], "a shard that was replaced belongs to an earlier version"
    (corpus.folder / "utterances" / "part-9.parquet#1").write_bytes(bytes(2_000_000))
    (note,) = verify(corpus).notes
    assert "1 files in" in note
    assert "(2.0 MB) belong to no version, such as part-9.parquet#1" in note


def test_memory_holds_the_sources_of_one_shard(corpus, make_rows, monkeypatch):
    for index in range(8):
        corpus.commit_source(**make_rows(f"e{index}", kept=4, rejected=0))
    from storage import tallies as module

    held, close = [], module.Contents.close

    def watch(self, name, *, before=None):
        close(self, name, before=before)
        held.append(sum(len(tally.digests) for tally in self.tallies["utterances"].values()))

    monkeypatch.setattr(module.Contents, "close", watch)
    assert verify(corpus).problems == []
    assert max(held) <= 4


def test_other_types_in_the_place_of_a_shard_are_named(corpus, make_rows):
    corpus.commit_source(**make_rows("e1"))
    (shard,) = corpus.shards()
    path = corpus.folder / "utterances" / shard
    size = path.stat().st_size
    table = pq.read_table(path)
    wrong = table.set_column(table.column_names.index("start"), "start", pa.array(["a", "b", "c"])).drop_columns("text")
    pq.write_table(wrong, path, compression="none")
    log = corpus.folder / "utterances" / "_delta_log" / f"{1:020d}.json"
    log.write_text(log.read_text().replace(f'"size":{size}', f'"size":{path.stat().st_size}'))
    (problem,) = verify(corpus).problems
    assert problem.code == "shard_schema"
    assert "missing text; start is string that may be null, not double" in problem.message
    with pytest.raises(CorpusError, match=r"cannot be read: .*fsclap corpus verify"):
        corpus.utterances()
