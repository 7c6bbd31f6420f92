"""Checks the rows of a commit for consistency, and computes their tokens."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from storage.rows import CorpusError, build_table, content_token, token_of
from storage.schema import REJECT, SOURCE, UTTERANCE

STATUSES = ("kept", "rejected", "failed")
TIMINGS = frozenset({"committed_at", "stage_seconds"})
"""Columns of the ledger in which two runs with equal results differ."""

NOTHING = token_of([])
"""The token of a source without rows in a table."""

_SOURCE_ID = re.compile(r"[0-9a-f]{8,64}")


def validated(
    source: Mapping[str, Any],
    *,
    utterances: Iterable[Mapping[str, Any]] | pa.Table,
    rejects: Iterable[Mapping[str, Any]],
) -> dict[str, pa.Table]:
    """Check the rows of one source and return them by table, with `committed_at` set to now.

    Args:
        source: A row of the ledger without `committed_at`.
        utterances: Its utterances, as rows or as a table of that schema.
        rejects: Its rejects.

    Raises:
        CorpusError: A row does not fit its schema, belongs to another source or recipe, occurs
            twice, or the counts in the ledger are not those of the rows.
    """
    if "committed_at" in source:
        raise CorpusError("sources: committed_at is set by the commit; leave it out")
    tables = {
        "rejects": build_table(rejects, schema=REJECT, name="rejects"),
        "utterances": build_table(utterances, schema=UTTERANCE, name="utterances"),
        "sources": build_table([{**source, "committed_at": datetime.now(UTC)}], schema=SOURCE, name="sources"),
    }
    _check_source(source)
    for name in ("utterances", "rejects"):
        _check_owner(source, tables[name], name=name)
    _check_ids(source, tables["utterances"])
    _check_counts(source, tables)
    return tables


def tokens_of(tables: Mapping[str, pa.Table]) -> dict[str, int]:
    """Compute the token of each table's rows.

    The ledger's token leaves out the timings and covers the tokens of the other two tables.
    """
    rejects, utterances = content_token(tables["rejects"]), content_token(tables["utterances"])
    ledger = tables["sources"].drop_columns(list(TIMINGS))
    return {"rejects": rejects, "utterances": utterances, "sources": content_token(ledger, rejects, utterances)}


def _check_source(source: Mapping[str, Any]) -> None:
    source_id, status = source["source_id"], source["status"]
    if not _SOURCE_ID.fullmatch(source_id):
        raise CorpusError(f"sources: source_id {source_id!r} is not 8 to 64 lower-case hexadecimal digits")
    if status not in STATUSES:
        raise CorpusError(f"sources: status of {source_id} is {status!r}, not one of {', '.join(STATUSES)}")


def _check_owner(source: Mapping[str, Any], rows: pa.Table, *, name: str) -> None:
    for field in ("source_id", "recipe"):
        foreign = sorted(set(rows[field].to_pylist()) - {source[field]})
        if foreign:
            raise CorpusError(f"{name}: {field} {foreign[0]!r} is not that of the source, {source[field]!r}")


def _check_ids(source: Mapping[str, Any], utterances: pa.Table) -> None:
    seen: set[str] = set()
    for utterance_id in utterances["utterance_id"].to_pylist():
        if not utterance_id.startswith(f"{source['source_id']}-"):
            raise CorpusError(f"utterances: utterance_id {utterance_id!r} does not start with its source_id")
        if utterance_id in seen:
            raise CorpusError(f"utterances: utterance_id {utterance_id!r} occurs twice")
        seen.add(utterance_id)


def _check_counts(source: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> None:
    source_id, rejects = source["source_id"], tables["rejects"]
    counts = {
        "turns_kept": tables["utterances"].num_rows,
        "turns_rejected": rejects.num_rows - rejects["start"].null_count,
    }
    for field, count in counts.items():
        if source[field] != count:
            raise CorpusError(f"sources: {field} of {source_id} is {source[field]}, but it has {count} rows")
    if source["turns_found"] != sum(counts.values()):
        raise CorpusError(
            f"sources: turns_found of {source_id} is {source['turns_found']}, but "
            f"{counts['turns_kept']} were kept and {counts['turns_rejected']} rejected"
        )
    if source["status"] != "kept" and (counts["turns_kept"] or not rejects.num_rows):
        raise CorpusError(
            f"sources: status of {source_id} is {source['status']!r}, so it must have no utterances and at least one "
            "row in rejects that gives the reason"
        )
