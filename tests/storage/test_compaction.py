"""A compacted corpus has the same rows, tokens and past in fewer files, also after a kill at any step."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from deltalake import DeltaTable

from storage import compaction
from storage.build_record import read_announced, write_announced
from storage.checkpoints import EVERY, thin_checkpoints
from storage.compaction import compact
from storage.corpus import SCHEMAS, SUPERSEDED, Corpus
from storage.maintenance import forget, history, restore, vacuum
from storage.objects import Place
from storage.verify import verify
from tests.storage.conftest import Rows, source_id
from tests.storage.test_maintenance import everything

NAMES = ("e1", "e2", "e3")


@pytest.fixture
def many(corpus: Corpus, make_rows: Callable[..., Rows]) -> Corpus:
    for name in NAMES:
        corpus.commit_source(**make_rows(name, kept=1, rejected=1))
    corpus.commit_source(**make_rows("e1", kept=2, rejected=1, recipe="recipe-2"))
    corpus.commit_source(**make_rows("e4", kept=0, rejected=0, status="rejected"))
    return corpus


def plain_rows(corpus: Corpus) -> list[str]:
    """What pandas finds in the folder, as the README reads it."""
    return sorted(pd.read_parquet(corpus.folder / "utterances").utterance_id)


def test_rows_tokens_and_past_stay(many: Corpus, make_rows: Callable[..., Rows]) -> None:
    before, past = everything(many), many.utterances(version=3).to_pylist()
    done = compact(many)
    assert [(table.table, table.after) for table in done] == [(name, 1) for name in SCHEMAS]
    assert everything(many) == before
    assert plain_rows(many) == sorted(row["utterance_id"] for row in before[0])
    assert verify(many).problems == verify(many).notes == []
    assert many.utterances(version=3).to_pylist() == past
    assert all(change.readable for change in history(many))
    assert many.commit_source(**make_rows("e2", kept=1, rejected=1)) == "unchanged"
    assert many.commit_source(**make_rows("e2", kept=3, rejected=0, recipe="recipe-2")) == "committed"
    assert verify(many).problems == []


def test_compacting_again_does_nothing(many: Corpus) -> None:
    compact(many)
    versions = [many.delta(name).version() for name in SCHEMAS]
    assert [(table.before, table.after, table.aside) for table in compact(many)] == [(1, 1, 0)] * 3
    assert [many.delta(name).version() for name in SCHEMAS] == versions


def test_a_damaged_shard_of_many_sources_is_one_problem(many: Corpus) -> None:
    compact(many)
    (shard,) = many.shards()
    (many.folder / "utterances" / shard).write_bytes(b"damaged")
    (problem,) = verify(many).problems
    assert problem.code == "shard_size"
    assert set(problem.sources) == {row["source_id"] for row in many.ledger().values() if row["turns_kept"]}


def test_an_earlier_version_can_be_restored_and_vacuumed(many: Corpus) -> None:
    past = many.utterances(version=2).to_pylist()
    compact(many)
    restore(many, 2)
    assert many.utterances().to_pylist() == past
    assert verify(many).problems == []
    compact(many)
    forget(many, [source_id("e2")])
    assert plain_rows(many) != []
    vacuum(many, keep=timedelta(0))
    assert [path for name in SCHEMAS for path in (many.folder / name / SUPERSEDED).iterdir()] == []
    assert verify(many).problems == verify(many).notes == []


@pytest.mark.parametrize("step", ["create_checkpoint", "_move_aside", "thin_checkpoints", "_announce"])
def test_what_a_kill_left_is_finished_by_the_next(many: Corpus, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(many)
    write_announced(many, many.version())

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DeltaTable if step == "create_checkpoint" else compaction, step, killed)
        with pytest.raises(KeyboardInterrupt):
            compact(many)
    assert everything(many) == before
    assert verify(many).problems == []
    compact(many)
    assert everything(many) == before
    assert plain_rows(many) == sorted(row["utterance_id"] for row in before[0])
    assert read_announced(many) == many.version(), "the same rows are no news to train on"


def test_what_was_not_announced_stays_to_be_announced(many: Corpus) -> None:
    write_announced(many, many.version() - 1)
    compact(many)
    assert read_announced(many) == many.version() - 2


def test_few_checkpoints_stay(tmp_path: Path) -> None:
    log = tmp_path / "_delta_log"
    log.mkdir()
    for version in range(EVERY, 100 * EVERY + 1, EVERY):
        (log / f"{version:020d}.checkpoint.parquet").write_bytes(b"")
        thin_checkpoints(Place(str(tmp_path.parent)), tmp_path.name)
    kept = sorted(int(path.name[:20]) // EVERY for path in log.iterdir())
    assert kept == [1, 2, 4, 8, 16, 32, 64, 99, 100]
