"""A corpus on a real S3 server: commits, maintenance, and what two writers and a kill leave."""

import itertools
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from storage.claims import CLAIMS, claim, release
from storage.compaction import compact
from storage.copies import upload
from storage.corpus import SCHEMAS, SUPERSEDED, Corpus
from storage.export import export
from storage.judgements import Judgements
from storage.maintenance import forget, history, repair, restore, vacuum
from storage.models import FINISHED, Decision, ModelStore, ModelStoreError
from storage.objects import Place
from storage.requests import add_requests, clear_requests, read_requests
from storage.rows import CorpusError
from storage.sounds import SHAPE, add_sound, read_sounds
from storage.verify import verify
from tests.storage.conftest import Rows, source_id

pytestmark = pytest.mark.slow


@pytest.fixture
def remote(bucket: str) -> Corpus:
    return Corpus.open(f"{bucket}/corpus", create=True)


@pytest.mark.usefixtures("no_card")
def test_a_corpus_is_maintained_like_a_local_one(
    remote: Corpus, make_rows: Callable[..., Rows], tmp_path: Path
) -> None:
    remote.require_writable()
    for name in ("e1", "e2", "e3"):
        assert remote.commit_source(**make_rows(name)) == "committed"
    assert remote.commit_source(**make_rows("e3")) == "unchanged"
    remote.commit_source(**make_rows("e1", kept=5, recipe="recipe-2"))
    past, now = remote.utterances(version=3).to_pylist(), remote.utterances().to_pylist()
    assert (len(past), len(now)) == (9, 11)
    remote.write_speakers([])
    add_requests(remote, [source_id("e1")], fetch=True)
    clear_requests(remote, [source_id("e1")])
    assert read_requests(remote).all == frozenset()
    for twin in ("", source_id("e2")):
        add_sound(remote, source_id("e1"), twin=twin, duration=60.0, bits=np.zeros(SHAPE, np.uint32))
    assert read_sounds(remote)["twin"].tolist() == [source_id("e2").encode()]

    compact(remote)
    assert remote.utterances().to_pylist() == now
    assert remote.utterances(version=3).to_pylist() == past, "earlier versions are read from the shards set aside"
    assert remote.set_aside("utterances")
    restore(remote, 3)
    assert remote.utterances().to_pylist() == past
    assert [change.rows for change in history(remote)][-1] == 9
    compact(remote)
    assert any(SUPERSEDED in file.name for file in vacuum(remote, keep=timedelta(0), dry_run=True))
    vacuum(remote, keep=timedelta(0))
    assert remote.set_aside("utterances") == set()
    report = verify(remote)
    assert report.problems == []
    assert [note for note in report.notes if "sound alike" not in note] == []

    (shard, *_) = remote.shards()
    (remote.place / "utterances").write(shard, b"damaged")
    assert {problem.code for problem in verify(remote).problems} == {"shard_size"}
    assert any("set aside" in step for step in repair(remote))
    assert verify(remote).problems == []
    for name in ("e1", "e2", "e3"):
        remote.commit_source(**make_rows(name))
    assert forget(remote, [source_id("e2")]) == [source_id("e2")]
    export(remote, tmp_path / "out", title="Test", settings={}, threshold=None)
    assert pq.read_table(tmp_path / "out" / "utterances").num_rows == 6
    upload(tmp_path / "out", remote.place.parent / "out", last=["README.md"])
    assert (remote.place.parent / "out").exists("speakers/speakers.parquet")


def test_a_recording_is_claimed_once(remote: Corpus, make_rows: Callable[..., Rows]) -> None:
    kept: set[str] = set()
    assert claim(remote, "m", "one", has=kept.__contains__) is None
    assert claim(remote, "m", "one", has=kept.__contains__) is None, "a writer that starts again has it still"
    assert claim(remote, "m", "two", has=kept.__contains__) == "one"
    remote.place.write(f"{CLAIMS}/m", b'{"source_id": "one", "date": "2020-01-01T00:00:00+00:00"}')
    kept.add("one")
    assert claim(remote, "m", "two", has=kept.__contains__) == "one", "it is old, but what it says is true"
    kept.clear()
    assert claim(remote, "m", "two", has=kept.__contains__) is None, "the claim of a writer that died"
    release(remote, "m", "one")
    assert remote.place.exists(f"{CLAIMS}/m")
    release(remote, "m", "two")
    assert not remote.place.exists(f"{CLAIMS}/m")


def test_judges_on_two_machines_lose_nothing(remote: Corpus) -> None:
    said = {"utterance_id": "u", "verdict": "fits", "recipe": "r", "model": "m", "corpus": "c", "version": 1}
    for number in range(3):
        row = said | {"query": f"q{number}", "judge": "ada", "date": "2026-01-01T00:00:00+00:00"}
        Judgements(remote.location).add(row)
    assert [row["query"] for row in Judgements(remote.location).rows()] == ["q0", "q1", "q2"]


def test_models_are_kept_and_promoted(bucket: str, tmp_path: Path) -> None:
    store = ModelStore.open(f"{bucket}/models")
    names = [store.name("corpus", version, {}) for version in (1, 2)]
    for name in names:
        folder = store.folder(name)
        with store.keeping(name, folder):
            (folder / "weights").write_text(name)
        assert not store.finished(name)
        (folder / FINISHED).write_text("{}")
        store.keep(name, folder)
    assert store.names() == names
    facts: dict[str, Any] = {"reason": "because", "figure": None, "difference": None, "clips": 1, "date": "2026-01-01"}
    store.record(Decision(model=names[0], against=None, promoted=True, **facts))
    with pytest.raises(ModelStoreError, match="is the current one now"):
        store.record(Decision(model=names[1], against=None, promoted=True, **facts))
    store.record(Decision(model=names[1], against=names[0], promoted=True, **facts))
    assert store.to_search_with() == names[1]
    history = (store.root.read("promotions.jsonl") or b"").decode().splitlines()
    assert [Decision.model_validate_json(line).model for line in history] == names


# Two writers, and a kill in each commit

WRITER = """
    import os, pathlib, pickle, signal, sys
    import storage.corpus
    from storage.corpus import Corpus, SourceRows
    location, file, call, before = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "before"
    write, calls = storage.corpus.write_deltalake, []
    def write_or_die(*arguments, **options):
        calls.append(1)
        if len(calls) == call and before:
            os.kill(os.getpid(), signal.SIGKILL)
        write(*arguments, **options)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
    storage.corpus.write_deltalake = write_or_die
    rows = pickle.loads(pathlib.Path(file).read_bytes())
    Corpus.open(location).commit_sources([SourceRows(**one) for one in rows])
"""


def test_two_writers_and_a_kill_in_each_commit_lose_and_double_nothing(
    remote: Corpus, make_rows: Callable[..., Rows], tmp_path: Path
) -> None:
    """Two processes commit each pair at once, and both are killed in it, at every step; then one tries again."""
    points = list(itertools.product((1, 2, 3), ("before", "after")))
    given = {f"e{number}": make_rows(f"e{number}", kept=2) for number in range(2 * len(points))}
    pairs = zip(list(given)[::2], list(given)[1::2], strict=True)
    for pair, point, other in zip(pairs, points, reversed(points), strict=True):
        file = tmp_path / f"{pair[0]}.pickle"
        file.write_bytes(pickle.dumps([given[name] for name in pair]))
        script = [sys.executable, "-c", textwrap.dedent(WRITER), remote.location, str(file)]
        both = [subprocess.Popen([*script, *map(str, at)]) for at in (point, other)]
        statuses = [writer.wait() for writer in both]
        assert -signal.SIGKILL in statuses
        assert set(statuses) <= {-signal.SIGKILL, 0}, "the other may have found all done"
    for rows in given.values():
        remote.commit_source(**rows)
    assert verify(remote).problems == []
    ids = remote.utterances(columns=["utterance_id"])["utterance_id"].to_pylist()
    assert ids == sorted(row["utterance_id"] for rows in given.values() for row in rows["utterances"])
    assert remote.ledger().keys() == {rows["source"]["source_id"] for rows in given.values()}
    assert remote.delta("rejects").to_pyarrow_dataset().count_rows() == 2 * len(given)
    assert {name for name in SCHEMAS if remote.delta(name).version() > 2 * len(given)} == set()


def test_a_store_that_loses_commits_is_refused(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.object_store import BUCKET, nanio

    with nanio(tmp_path_factory.mktemp("careless") / "data") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(CorpusError, match="ignores conditional puts"):
            Corpus.at(f"s3://{BUCKET}-careless/refused").require_writable()
        assert list(Place.at(f"s3://{BUCKET}-careless/refused").list()) == []
