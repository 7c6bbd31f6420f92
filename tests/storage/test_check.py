import pytest
from deltalake import DeltaTable, write_deltalake

from storage.check import check


@pytest.fixture
def broken(corpus, make_rows):
    """A corpus of two episodes, one refused, and a way to spoil one of its tables behind its back."""
    corpus.commit_source(**make_rows("e1"))
    corpus.commit_source(**make_rows("e2", kept=0, rejected=0, status="rejected"))
    assert check(corpus) == []

    def spoil(table, *, predicate, **updates):
        held = DeltaTable(corpus.uri(table))
        if updates:
            held.update(predicate=predicate, updates=updates)
        else:
            held.delete(predicate)
        return check(corpus)

    return spoil


def test_a_ledger_that_does_not_add_up_is_found(broken):
    problems = broken("sources", predicate="status = 'kept'", turns_found="turns_found + 1")
    assert problems == [problem for problem in problems if "6 turns found, but 3 kept and 2 rejected" in problem]
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("table", "predicate", "message"),
    [
        ("utterances", "utterance_id like '%00001'", "turns_kept is 3 in the ledger, its rows are 2"),
        ("rejects", "start = 100.0", "turns_rejected is 2 in the ledger, its rows are 1"),
        ("rejects", "start is null", "is rejected, but no row in rejects says why"),
        ("sources", "status = 'kept'", "3 rows in utterances are of source .*, not in the ledger"),
    ],
)
def test_a_lost_row_is_found(broken, table, predicate, message):
    problems = broken(table, predicate=predicate)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError("; ".join(problems))


def test_rows_of_another_recipe_are_found(broken):
    problems = broken("rejects", predicate="start = 100.0", recipe="'recipe-9'")
    assert [problem.split(" of recipe ")[1] for problem in problems] == ["recipe-9, not the ledger's"]


@pytest.mark.parametrize(
    ("table", "message"), [("utterances", "is in the corpus 2 times"), ("sources", "is in the ledger 2 times")]
)
def test_a_row_that_occurs_twice_is_found(corpus, make_rows, table, message):
    corpus.commit_source(**make_rows("e1"))
    rows = getattr(corpus, table)()
    write_deltalake(corpus.uri(table), rows, mode="append")
    assert any(message in problem for problem in check(corpus))


def test_a_lost_shard_is_found(corpus, make_rows):
    corpus.commit_source(**make_rows("e1"))
    (shard,) = corpus.shards()
    moved = (corpus.folder / "utterances" / shard).rename(corpus.folder / "elsewhere")
    # With its shard gone no row can be read, so the check must say so before it reads.
    assert any(f"{shard} is gone" in problem for problem in check(corpus))
    moved.rename(corpus.folder / "utterances" / shard)
    assert check(corpus) == []


def test_the_same_recording_under_two_addresses_is_found(corpus, make_rows):
    for name in ("one", "two"):
        rows = make_rows(name)
        rows["source"]["media_sha256"] = "ab" * 32
        corpus.commit_source(**rows)
    (problem,) = check(corpus)
    assert "ab" * 32 in problem
