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

from storage.corpus import Corpus, plain
from storage.files import locked, written_aside
from storage.rows import CorpusError, build_table
from storage.schema import JUDGEMENT

JUDGEMENTS = "judgements.parquet"
_LOCK = ".judgements.lock"
GAINS = {"no": 0, "partly": 1, "fits": 2}
"""Verdict -> gain in nDCG."""


class Judgements:
    """The judgements of a local corpus. Many processes of one machine may add to them at once.

    Args:
        corpus_folder: Folder of the corpus.

    Raises:
        CorpusError: There is no such folder, or it is in an object store.
    """

    def __init__(self, corpus_folder: Path | str) -> None:
        corpus = Corpus.at(corpus_folder)
        if not corpus.is_local:
            raise CorpusError(
                f"{corpus.location} is in an object store, which has no lock: two judges could overwrite each other's "
                "verdicts. Copy the corpus to a local folder and judge there"
            )
        if not corpus.folder.is_dir():
            raise CorpusError(f"no corpus at {corpus.folder}: there is no such folder; build one, or correct the name")
        self.path = corpus.folder / JUDGEMENTS

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a judgement. It is on disk on return; a killed process loses at most this one.

        Args:
            row: The columns of `JUDGEMENT`; `date` as a datetime or in ISO 8601, with an offset
                from UTC.

        Raises:
            CorpusError: The row is invalid, the file is damaged, or the folder cannot be written
                to. Nothing has changed then.
        """
        new = build_table([_checked(row)], schema=JUDGEMENT, name="judgements")
        try:
            with (
                locked(self.path.with_name(_LOCK), what=f"the judgements in {self.path}", shared=True),
                written_aside(self.path) as part,
            ):
                pq.write_table(pa.concat_tables([self.table(), new]), part, compression="zstd")
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
        try:
            stored = pq.ParquetFile(self.path).read() if self.path.exists() else JUDGEMENT.empty_table()
            table = build_table(stored, schema=JUDGEMENT, name="judgements")
            _check_verdicts(table["verdict"].unique().to_pylist())
            return table
        except (OSError, pa.ArrowException, CorpusError) as error:
            raise CorpusError(
                f"{self.path} is damaged ({plain(error)}): put a backup in its place, or move it away to start again; "
                "nothing is added to it until then"
            ) from error

    def graded(self, recipes: Mapping[str, str]) -> list[dict[str, Any]]:
        """Compute the mean gain of each pair: `query`, `utterance_id`, `gain` and `judges`.

        The latest verdict of each judge counts; `gain` is the mean over judges of fits 2, partly 1,
        no 0. `judges` are their names, sorted.

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
