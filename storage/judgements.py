"""What people heard: does a clip of a corpus sound as a query describes it? One Parquet file beside the tables.

A judgement is never changed, only added to: whoever judges a pair again adds a row, and the latest counts.
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
"""Verdict -> gain, as nDCG counts it."""


class Judgements:
    """The judgements beside a local corpus. Any number of processes of one machine may add to them at once.

    Args:
        corpus_folder: Of the corpus.

    Raises:
        CorpusError: There is no such folder, or it is an object store.
    """

    def __init__(self, corpus_folder: Path | str) -> None:
        corpus = Corpus.at(corpus_folder)
        if not corpus.is_local:
            raise CorpusError(
                f"{corpus.location} is in an object store, which has no lock, so that two who judge at once could undo "
                "one another; copy the corpus into a folder of this machine and judge there"
            )
        if not corpus.folder.is_dir():
            raise CorpusError(f"no corpus at {corpus.folder}: there is no such folder; build one, or correct the name")
        self.path = corpus.folder / JUDGEMENTS

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a judgement; it is on disk when this returns, and a process that is killed loses this one at most.

        Args:
            row: The columns of `JUDGEMENT`; `date` as a datetime or in ISO 8601, with its offset.

        Raises:
            CorpusError: The row is not as it should be, the file is damaged, or the folder can't be written to.
                Nothing is changed then.
        """
        new = build_table([_checked(row)], schema=JUDGEMENT, name="judgements")
        try:
            with (
                locked(self.path.with_name(_LOCK), what=f"the judgements in {self.path}"),
                written_aside(self.path) as part,
            ):
                pq.write_table(pa.concat_tables([self.table(), new]), part, compression="zstd")
        except OSError as error:
            raise CorpusError(
                f"cannot write {self.path}: {error}; see to the disk and the rights on the folder. "
                "The judgements before this one are there"
            ) from error

    def rows(self) -> list[dict[str, Any]]:
        """Every judgement, the first one first, as `add` takes them; `date` as a datetime in UTC."""
        rows: list[dict[str, Any]] = self.table().to_pylist()
        return rows

    def table(self) -> pa.Table:
        """Every judgement, the first one first, in the schema `JUDGEMENT`.

        Raises:
            CorpusError: The file is damaged.
        """
        try:
            held = pq.ParquetFile(self.path).read() if self.path.exists() else JUDGEMENT.empty_table()
            table = build_table(held, schema=JUDGEMENT, name="judgements")
            _check_verdicts(table["verdict"].unique().to_pylist())
            return table
        except (OSError, pa.ArrowException, CorpusError) as error:
            raise CorpusError(
                f"{self.path} is damaged ({plain(error)}): put a backup in its place, or move it away to begin anew; "
                "until then nothing is added to it"
            ) from error

    def graded(self, recipes: Mapping[str, str]) -> list[dict[str, Any]]:
        """What all judges together say of each query and clip: `query`, `utterance_id`, `gain` and `judges`.

        Of each judge the latest verdict counts; `gain` is the mean over judges of fits 2, partly 1, no 0. `judges` are
        their names, sorted.

        Args:
            recipes: Utterance id -> recipe of the clips that the corpus has now. A clip that is gone, or was made anew
                by another recipe, is not the one that was heard.
        """
        verdicts: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        counted = [row for row in self.rows() if recipes.get(row["utterance_id"]) == row["recipe"]]
        for row in sorted(counted, key=lambda row: row["date"]):  # stable: of one date, as added
            verdicts[row["query"], row["utterance_id"]][row["judge"]] = row["verdict"]
        return [
            {
                "query": query,
                "utterance_id": utterance_id,
                "gain": sum(GAINS[verdict] for verdict in said.values()) / len(said),
                "judges": tuple(sorted(said)),
            }
            for (query, utterance_id), said in verdicts.items()
        ]


def _checked(row: Mapping[str, Any]) -> dict[str, Any]:
    checked = dict(row)
    for name in ("query", "utterance_id", "recipe", "judge"):
        value = checked.get(name)
        if name in checked and not (isinstance(value, str) and value.strip()):
            raise CorpusError(f"judgements: {name} is {value!r}; it must say something")
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
        raise CorpusError(f"judgements: date is {value!r}, without an offset from UTC: add one, such as +00:00")
    return date.astimezone(UTC)
