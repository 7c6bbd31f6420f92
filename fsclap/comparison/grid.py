"""The cells of a comparison: row x corpus x seed, the folders of their models, and what became of them.

{out}/comparison.json     a `Grid`; what is finished is read from the folders that it names
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from fsclap.comparison.settings import ComparedCorpus, ComparisonSettings
from fsclap.evaluation import results, vectors
from fsclap.evaluation.results import Evaluation
from fsclap.evaluation.vectors import Vectors
from fsclap.files import written_aside

FILE = "comparison.json"


class ComparisonError(ValueError):
    """A comparison that can't be made. The message says why, and what to do."""


class Cell(BaseModel):
    """One training and its evaluation.

    Attributes:
        row: Name of the row.
        corpus: Name of the corpus in the tables.
        seed: Seed of the training.
        model: Folder of the model.
        report: Folder of its evaluation.
        reason: Why it was given up; empty: it was not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: str
    corpus: str
    seed: int
    model: str
    report: str
    reason: str = ""

    @property
    def name(self) -> str:
        return f"{self.row} on {self.corpus}, seed {self.seed}"

    @property
    def trained(self) -> bool:
        from fsclap.training.record import RECORD  # here, because it needs torch, and flows must import fast

        return Path(self.model, RECORD).is_file()

    @property
    def evaluated(self) -> bool:
        return all(Path(self.report, file).is_file() for file in (results.FILE, vectors.FILE))

    def missing(self) -> str | None:
        """Say why the cell has no figures; None: it has."""
        if self.trained and self.evaluated:
            return None
        return self.reason or ("not evaluated yet" if self.trained else "not trained yet")


class Grid(BaseModel):
    """All cells of a comparison.

    Attributes:
        settings: What was asked for.
        corpora: The corpora, each at one version.
        cells: Row by row, corpus by corpus, seed by seed.
        run: Identity of the run that made it; a run that starts again keeps its versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: ComparisonSettings
    corpora: list[ComparedCorpus]
    cells: list[Cell]
    run: str | None = None

    def of(self, row: str, corpus: str) -> Iterator[Cell]:
        """Return the cells of a row on a corpus, in the order of their seeds."""
        return (cell for cell in self.cells if (cell.row, cell.corpus) == (row, corpus))

    def save(self, folder: Path) -> None:
        """Write the grid into a folder, which is made if there is none."""
        folder.mkdir(parents=True, exist_ok=True)
        with written_aside(folder / FILE) as part:
            part.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Grid":
        """Read the grid of a folder.

        Raises:
            ComparisonError: There is none, or it can't be read.
        """
        try:
            return cls.model_validate_json((folder / FILE).read_bytes())
        except FileNotFoundError:
            raise ComparisonError(f"{folder} holds no comparison: {FILE} is missing; start compare-systems") from None
        except ValidationError as error:
            raise ComparisonError(
                f"{folder / FILE} is damaged, or of another version of the project: {error}"
            ) from error


@dataclass(frozen=True, slots=True)
class Cost:
    """What a training took.

    Attributes:
        parameters: Number of trained weights.
        steps: Number of optimiser steps.
        seconds: Seconds of the epochs, without the features that are cached.
        device: What it ran on.
    """

    parameters: int
    steps: int
    seconds: float
    device: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A cell with its results."""

    cell: Cell
    evaluation: Evaluation
    cost: Cost

    def vectors(self) -> Vectors:
        """Read the embeddings."""
        return Vectors.load(Path(self.cell.report, vectors.FILE))

    @classmethod
    def of(cls, cell: Cell) -> "Finished":
        """Read the results of a finished cell."""
        from fsclap.training.record import Trained

        trained = Trained.load(Path(cell.model))
        seconds = sum(epoch.seconds for epoch in trained.history)
        cost = Cost(trained.parameters, trained.steps, seconds, trained.environment["device"])
        return cls(cell, Evaluation.load(Path(cell.report, results.FILE)), cost)


def check_names(corpora: list[ComparedCorpus]) -> None:
    """Refuse corpora that the tables could not tell apart.

    Raises:
        ComparisonError: There is none, or two have the same name.
    """
    names = [corpus.shown for corpus in corpora]
    if not names:
        raise ComparisonError("no corpus is named: there is nothing to compare on")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ComparisonError(f"several corpora are called {', '.join(twice)}: give each a `name` of its own")
