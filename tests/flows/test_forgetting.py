"""A real corpus: a speaker is erased, the recording built again by other settings, and nothing of them is there."""

from pathlib import Path

import pytest

from cli import main as cli
from storage.corpus import Corpus
from storage.left_out import mostly_within, read_left_out
from storage.verify import verify
from tests.flows.built import Built
from tests.storage.test_erasure import contents


@pytest.mark.slow
def test_an_erased_speaker_stays_away_from_a_build_by_other_settings(built: Built, tmp_path: Path) -> None:
    corpus = Corpus.open(built.corpus)
    rows = corpus.utterances().to_pylist()
    speaker = rows[0]["speaker"]
    hers, others = ([row for row in rows if (row["speaker"] == speaker) == own] for own in (True, False))
    assert hers
    assert others
    traces = [text for row in hers for text in (row["utterance_id"].encode(), row["audio"]["bytes"][100:160])]
    traces.append(speaker.encode())
    command = ["corpus", "forget", built.corpus, "--speaker", speaker, "--erase", "--work", built.work]
    assert cli.main([*command, "--models", str(tmp_path / "models"), "--index", str(tmp_path / "index")]) == 0
    assert not {name for name, content in contents(corpus) if any(trace in content for trace in traces)}
    for path in Path(built.work).rglob("*"):
        assert not path.is_file() or not any(trace in path.read_bytes() for trace in traces), path
    assert [row["utterance_id"] for row in others] == corpus.utterances(columns=["utterance_id"])[
        "utterance_id"
    ].to_pylist()

    built.build(consistency={"threshold": 0.05})
    again = corpus.utterances().to_pylist()
    seconds = read_left_out(corpus).sources[hers[0]["source_id"]].seconds
    assert {row["recipe"] for row in again}.isdisjoint(row["recipe"] for row in rows)
    assert {row["utterance_id"] for row in others} <= {row["utterance_id"] for row in again}
    assert not {row["utterance_id"] for row in again}.intersection(row["utterance_id"] for row in hers)
    own = [row for row in again if row["source_id"] == hers[0]["source_id"]]
    starts, ends, names = ([row[name] for row in own] for name in ("start", "end", "speaker"))
    within, theirs = mostly_within(starts, ends, names, seconds)
    assert (within.any(), theirs) == (False, frozenset())
    assert verify(corpus).problems == []
