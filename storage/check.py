"""Accounting: does every turn and every source that went into a corpus come out of it, once."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from storage.corpus import Corpus
from storage.rows import CorpusError


def check(corpus: Corpus) -> list[str]:
    """What is wrong with a corpus, one sentence each; nothing in a sound one. Reads no audio.

    To be run when no worker is writing: a source that is being committed is reported as not in the ledger.
    """
    lost = _missing_shards(corpus)
    if lost:  # then the rows can't be counted
        return lost
    sources = corpus.sources().to_pylist()
    kept = corpus.utterances(columns=["utterance_id", "source_id", "recipe"])
    rejects = corpus.rejects().select(["source_id", "recipe", "start"])
    problems = list(_repeated(sources, kept))
    ledger = {row["source_id"]: row for row in sources}
    for row in ledger.values():
        problems += _source_problems(row)
    problems += _count_problems(ledger, field="turns_kept", counted=_count(kept))
    turns = rejects.filter(rejects["start"].is_valid())
    problems += _count_problems(ledger, field="turns_rejected", counted=_count(turns))
    for name, table in (("utterances", kept), ("rejects", rejects)):
        problems += _foreign_rows(ledger, table, name=name)
    explained = set(rejects["source_id"].to_pylist())
    problems += [
        f"source {source_id} is {row['status']}, but no row in rejects says why"
        for source_id, row in ledger.items()
        if row["status"] != "kept" and source_id not in explained
    ]
    return problems


def _count(table: pa.Table) -> Counter[str]:
    return Counter(table["source_id"].to_pylist())


def _repeated(sources: list[dict[str, Any]], kept: pa.Table) -> Iterator[str]:
    for source_id, count in Counter(row["source_id"] for row in sources).items():
        if count > 1:
            yield f"source {source_id} is in the ledger {count} times"
    media = Counter(row["media_sha256"] for row in sources if row["status"] == "kept" and row["media_sha256"])
    for sha256, count in media.items():
        if count > 1:
            yield f"the recording with SHA-256 {sha256} is in the corpus {count} times, under different addresses"
    for utterance_id, count in Counter(kept["utterance_id"].to_pylist()).items():
        if count > 1:
            yield f"utterance {utterance_id} is in the corpus {count} times"


def _source_problems(row: Mapping[str, Any]) -> Iterator[str]:
    accounted = row["turns_kept"] + row["turns_rejected"]
    if row["turns_found"] != accounted:
        yield (
            f"source {row['source_id']}: {row['turns_found']} turns found, but {row['turns_kept']} kept and "
            f"{row['turns_rejected']} rejected"
        )


def _count_problems(ledger: Mapping[str, Mapping[str, Any]], *, field: str, counted: Counter[str]) -> Iterator[str]:
    for source_id, row in ledger.items():
        if row[field] != counted[source_id]:
            rows = counted[source_id]
            yield f"source {source_id}: {field} is {row[field]} in the ledger, its rows are {rows}"


def _foreign_rows(ledger: Mapping[str, Mapping[str, Any]], table: pa.Table, *, name: str) -> Iterator[str]:
    rows = Counter(zip(table["source_id"].to_pylist(), table["recipe"].to_pylist(), strict=True))
    for (source_id, recipe), count in rows.items():
        if source_id not in ledger:
            yield f"{count} rows in {name} are of source {source_id}, not in the ledger: build it again"
        elif ledger[source_id]["recipe"] != recipe:
            yield f"{count} rows in {name} of source {source_id} are of recipe {recipe}, not the ledger's"


def _missing_shards(corpus: Corpus) -> list[str]:
    try:
        folder = corpus.folder / "utterances"
    except CorpusError:
        return []  # an object store: the log is all there is to look at without reading every shard
    return [
        f"shard {folder / shard} is gone: restore it, or build its sources again"
        for shard in corpus.shards()
        if not (folder / shard).is_file()
    ]
