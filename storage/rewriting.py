"""Write the past of a table again: every shard, of whatever version, and every entry of the log.

Versions keep their numbers, and the table its id. First new shards are written, then the log, then the old shards
go: an interruption leaves a table that can be read, and the next call finishes. The log is written in two rounds,
because its entries can't be written at once: first an entry that removes a shard removes it under either name, then
entries get the new names, from the first to the last.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError

from storage.corpus import SHARD_GROUP_ROWS, SUPERSEDED, Corpus, parquet, plain
from storage.deltalog import FOLDER, entries, leftovers
from storage.objects import Place
from storage.rows import CorpusError


class Rule(Protocol):
    """How the past is to be."""

    def concerns(self, first: str, last: str) -> bool:
        """Whether rows of sources in this range of ids may change."""

    def rows(self, table: str, shard: str, rows: pa.Table) -> pa.Table:
        """Return the rows of a shard as they are to be; the same object if nothing changes."""

    def token(self, table: str, source_id: str, token: int) -> int | None:
        """Return the token of a source's rows as it is to be; None: the log has none."""

    def hides(self, text: str) -> bool:
        """Whether a value of a commit's description must go."""


def rewrite(corpus: Corpus, name: str, rule: Rule) -> int:
    """Write the past of a table again; return the number of shards that were changed or deleted.

    Raises:
        CorpusError: The table can't be read or written to.
    """
    table = corpus.place / name
    log = {number: _read(table, path) for number, path in entries(corpus.files(name)).items()}
    present = {entry.name for entry in table.list()}
    replaced: dict[str, dict[str, Any] | None] = {}
    added = {unquote(add["path"]): add for add in _entries_of("add", log.values())}
    for shard, add in added.items():
        place = shard if shard in present else f"{SUPERSEDED}/{shard}"
        if shard not in replaced and place in present and rule.concerns(*source_range(add)):
            changes = _changed(table, name, place, rule)
            if changes is not None:
                replaced[shard] = changes or None
    # Only the log counts from here on; a checkpoint would bring back what it had.
    table.delete(*(entry for entry in present if entry.startswith(f"{FOLDER}/") and "checkpoint" in entry))
    for shard in {unquote(remove["path"]) for remove in _entries_of("remove", log.values())} - added.keys():
        if (new := new_name(shard)) in added:  # an interruption left the old name here
            replaced[shard] = {key: added[new][key] for key in ("path", "size")}
    for number, actions in log.items():
        _write(table, number, actions, _distinct([*actions, *_under_new_names(actions, replaced)]))
    for number, actions in log.items():
        after = [action for action in (_action(action, name, replaced, rule) for action in actions) if action]
        _write(table, number, actions, _distinct(after))
    table.delete(*replaced, *(f"{SUPERSEDED}/{shard}" for shard in replaced))
    table.delete(*(info.path for info in leftovers(corpus, name)))
    try:
        corpus.delta(name).create_checkpoint()
    except DeltaError as error:
        raise CorpusError(f"cannot write a checkpoint of {corpus.uri(name)}: {plain(error)}") from error
    return len(replaced)


def source_range(add: Mapping[str, Any]) -> tuple[str, str]:
    """Return the smallest and largest source id of a shard by its entry in the log; empty if the log has none."""
    statistics = json.loads(add.get("stats") or "{}")
    return statistics.get("minValues", {}).get("source_id", ""), statistics.get("maxValues", {}).get("source_id", "")


def new_name(shard: str) -> str:
    """Name a shard that is written again: the same after an interruption."""
    return f"part-{hashlib.sha256(shard.encode()).hexdigest()[:32]}.parquet"


def _entries_of(kind: str, log: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [action[kind] for actions in log for action in actions if kind in action]


def _under_new_names(
    actions: list[dict[str, Any]], replaced: Mapping[str, dict[str, Any] | None]
) -> list[dict[str, Any]]:
    """Repeat the removals of an entry of the log under the new names of the shards."""
    return [
        {"remove": {**remove, "path": changes["path"]}}
        for remove in _entries_of("remove", [actions])
        if (changes := replaced.get(unquote(remove["path"])))
    ]


def _distinct(actions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out removals of what the same entry of the log has removed already."""
    seen: set[str] = set()
    found = []
    for action in actions:
        if "remove" in action:
            if action["remove"]["path"] in seen:
                continue
            seen.add(action["remove"]["path"])
        found.append(action)
    return found


def _write(table: Place, number: int, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    if after != before:
        table.write(f"{FOLDER}/{number:020d}.json", "".join(f"{json.dumps(each)}\n" for each in after).encode())


def _read(table: Place, path: str) -> list[dict[str, Any]]:
    content = table.read(path) or b""
    return [json.loads(line) for line in content.splitlines() if line.strip()]


def _changed(table: Place, name: str, place: str, rule: Rule) -> dict[str, Any] | None:
    """Write a shard again as the rule wants it.

    Returns:
        The changes of its entry in the log, none if nothing is left of it; None if it stays as it is.
    """
    folder, _, shard = place.rpartition("/")
    rows = pq.read_table(pa.BufferReader(table.read(place) or b""))
    left = rule.rows(name, shard, rows)
    if left is rows:
        return None
    if not len(left):
        return {}
    new = new_name(shard)
    content = parquet(left, row_group_size=SHARD_GROUP_ROWS)
    table.write(f"{folder}/{new}" if folder else new, content)
    sources = left["source_id"]
    statistics = {
        "numRecords": len(left),
        "minValues": {"source_id": pc.min(sources).as_py()},
        "maxValues": {"source_id": pc.max(sources).as_py()},
        "nullCount": {"source_id": 0},
    }
    return {"path": quote(new), "size": len(content), "stats": json.dumps(statistics)}


def _action(
    action: dict[str, Any], name: str, replaced: Mapping[str, dict[str, Any] | None], rule: Rule
) -> dict[str, Any] | None:
    """Return an action of the log as it is to be; None if nothing is left of it."""
    ((kind, content),) = action.items()
    if kind == "txn":
        token = rule.token(name, content["appId"], content["version"])
        return None if token is None else {kind: {**content, "version": token}}
    if kind in ("add", "remove") and (shard := unquote(content["path"])) in replaced:
        changes = replaced[shard]
        return changes and {kind: {**content, **{key: changes[key] for key in changes if key in content}}}
    if kind == "commitInfo":
        return {kind: {key: value for key, value in content.items() if not rule.hides(json.dumps(value))}}
    return action
