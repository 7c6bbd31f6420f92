"""People's judgements of whether a clip matches a query, in one Parquet file next to the tables.

Rows are only added: a judge who judges a pair again adds a row, and the latest one counts.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.corpus import Corpus, parquet, plain
from storage.rows import CorpusError, build_table
from storage.schema import JUDGEMENT

JUDGEMENTS = "judgements.parquet"
GAINS = {"no": 0, "partly": 1, "fits": 2}
"""Verdict -> gain in nDCG."""


class Judgements:
    """The judgements of a corpus. Many processes on many machines may add to them at once.

    Args:
        corpus: Location of the corpus.

    Raises:
        CorpusError: There is no such folder.
    """

    def __init__(self, corpus: Path | str) -> None:
        self._place = Corpus.at(corpus).place
        if self._place.is_local and not self._place.folder.is_dir():
            raise CorpusError(f"no corpus at {self._place}: there is no such folder; build one, or correct the name")
        self.path = f"{self._place}/{JUDGEMENTS}"

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a judgement. It is on disk on return; a killed process loses at most this one.

        Args:
            row: The columns of `JUDGEMENT`; `date` as a datetime or in ISO 8601, with an offset
                from UTC.

        Raises:
            CorpusError: The row is invalid, the file is damaged, or the place cannot be written
                to. Nothing has changed then.
        """
        new = build_table([_checked(row)], schema=JUDGEMENT, name="judgements")
        try:
            self._place.change(JUDGEMENTS, lambda known: parquet(pa.concat_tables([self._table(known), new])))
        except OSError as error:
            raise CorpusError(
                f"cannot write {self.path}: {error}; check the disk and the permissions of the folder. "
                "Earlier judgements are not affected"
            ) from error

    def rows(self) -> list[dict[str, Any]]:
        """All judgements, the first one first, as `add` takes them; `date` as a datetime in UTC."""
        rows: list[dict[str, Any]] = self.table().to_pylist()
        return rows

    def table(self) -> pa.Table:
        """All judgements, the first one first, in the schema `JUDGEMENT`.

        Raises:
            CorpusError: The file is damaged.
        """
        return self._table(self._place.read(JUDGEMENTS))

    def _table(self, content: bytes | None) -> pa.Table:
        try:
            stored = JUDGEMENT.empty_table() if content is None else pq.ParquetFile(pa.BufferReader(content)).read()
            table = build_table(stored, schema=JUDGEMENT, name="judgements")
            _check_verdicts(table["verdict"].unique().to_pylist())
            return table
        except (OSError, pa.ArrowException, CorpusError) as error:
            raise CorpusError(
                f"{self.path} is damaged ({plain(error)}): put a backup in its place, or move it away to start again; "
                "nothing is added to it until then"
            ) from error

    def graded(self, recipes: Mapping[str, str]) -> list[dict[str, Any]]:
        """Compute the mean gain of each pair: `query`, `utterance_id`, `gain`, `judges` and `gains`.

        The latest verdict of each judge counts; `gain` is the mean over judges of fits 2, partly 1,
        no 0. `judges` are their names, sorted; `gains` those of their verdicts, in that order.

        Args:
            recipes: Utterance id -> recipe of the corpus's current clips. Judgements of clips that
                are gone, or were made again with another recipe, do not count.
        """
        verdicts: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        counted = [row for row in self.rows() if recipes.get(row["utterance_id"]) == row["recipe"]]
        for row in sorted(counted, key=lambda row: row["date"]):  # stable: equal dates stay in the order of adding
            verdicts[row["query"], row["utterance_id"]][row["judge"]] = row["verdict"]
        return [
            {
                "query": query,
                "utterance_id": utterance_id,
                "gain": sum(GAINS[verdict] for verdict in by_judge.values()) / len(by_judge),
                "judges": tuple(sorted(by_judge)),
                "gains": tuple(float(GAINS[by_judge[judge]]) for judge in sorted(by_judge)),
            }
            for (query, utterance_id), by_judge in verdicts.items()
        ]


def _checked(row: Mapping[str, Any]) -> dict[str, Any]:
    checked = dict(row)
    for name in ("query", "utterance_id", "recipe", "judge"):
        value = checked.get(name)
        if name in checked and not (isinstance(value, str) and value.strip()):
            raise CorpusError(f"judgements: {name} is {value!r}; it must not be empty")
    _check_verdicts([checked.get("verdict", "no")])
    if "date" in checked:
        checked["date"] = _date(checked["date"])
    return checked


def _check_verdicts(verdicts: list[Any]) -> None:
    for verdict in verdicts:
        if verdict not in GAINS:
            raise CorpusError(f"judgements: verdict is {verdict!r}, not one of {', '.join(GAINS)}")


def _date(value: Any) -> datetime:
    try:
        date = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise CorpusError(f"judgements: date is {value!r}, not a date and time in ISO 8601") from error
    if date.tzinfo is None:
        raise CorpusError(f"judgements: date is {value!r}, without an offset from UTC; add one, such as +00:00")
    return date.astimezone(UTC)
