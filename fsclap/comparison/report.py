"""The report of a comparison: a page for reviewers, and the same as CSV and LaTeX.

report.html        the tables, who differs from whom, maps, costs, what is missing
figures.csv        every figure
differences.csv    every pair of rows
cells.csv          every cell, its cost, or why it has no figures
tables.tex         Tables 1 to 3
maps.png           Figure 2
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fsclap.comparison import paper
from fsclap.comparison.compare import HEADLINE, MEAN, Comparison, CorpusFigures, compare
from fsclap.comparison.grid import ComparisonError, Finished, Grid
from fsclap.comparison.latex import latex
from fsclap.comparison.settings import ABLATION, FULL, label
from fsclap.comparison.tables import (
    PARTS,
    TITLES,
    cell_records,
    difference_records,
    entries,
    figure_records,
    points,
    references,
    tables,
)
from fsclap.comparison.words import coverage, finding
from fsclap.evaluation import plots
from fsclap.evaluation.report import page_templates
from fsclap.files import written_aside

PAGE, MAPS = "report.html", "maps.png"
_MAPS_LABEL = "A map of the embeddings of each system"


def report(folder: Path) -> Path:
    """Write the report of the comparison in a folder, of what is finished.

    Args:
        folder: Where compare-systems writes, with its comparison.json.

    Returns:
        The page.

    Raises:
        ComparisonError: There is no comparison, or nothing of it is finished.
    """
    return write_report(compare(Grid.load(folder)), folder)


def write_report(comparison: Comparison, folder: Path) -> Path:
    """Write all files of a report into a folder; return the page."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in (
        ("figures.csv", figure_records(comparison)),
        ("differences.csv", difference_records(comparison)),
        ("cells.csv", cell_records(comparison)),
    ):
        _write_csv(folder / name, records)
    with written_aside(folder / "tables.tex") as part:
        part.write_text(latex(comparison), encoding="utf-8")
    mapped = _mapped(comparison)
    drawn = {label(one.cell.row): one.vectors() for one in mapped}
    figure = plots.maps_figure({name: (one.audio, one.text) for name, one in drawn.items()}, seed=0)
    with written_aside(folder / MAPS) as part:
        part.write_bytes(plots.png(figure))
    page = _render(comparison, plots.inline_svg(figure, label=_MAPS_LABEL), mapped[0])
    with written_aside(folder / PAGE) as part:
        part.write_text(page, encoding="utf-8")
    return folder / PAGE


def _write_csv(path: Path, records: Iterable[dict[str, Any]]) -> None:
    rows = list(records)
    with written_aside(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        if rows:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def _mapped(comparison: Comparison) -> list[Finished]:
    """Return the first finished cell of each system on the corpus that has most of them, FS-CLAP first."""
    corpus = max(comparison.corpora, key=lambda on: len(on.rows)).corpus.shown
    missing = {cell for cell, _ in comparison.missing}
    first = {}
    for cell in comparison.grid.cells:
        if cell.corpus == corpus and cell not in missing and cell.row not in first and cell.row not in ABLATION:
            first[cell.row] = Finished.of(cell)
    if not first:
        raise ComparisonError(f"{corpus}: no finished cell to draw")
    return sorted(first.values(), key=lambda one: one.cell.row != FULL)


def _render(comparison: Comparison, maps: str, mapped: Finished) -> str:
    grid = comparison.grid
    return (
        page_templates("fsclap.comparison")
        .get_template("comparison.html.j2")
        .render(
            coverage=coverage(comparison),
            corpora=comparison.corpora,
            finding=finding,
            tables=tables(comparison),
            titles=TITLES,
            parts=PARTS,
            label=label,
            headline=HEADLINE,
            mean=MEAN,
            entries=entries,
            references=references,
            points=points,
            papers=paper.POOLS,
            any_paper=any(on.corpus.paper for on in comparison.corpora),
            measures=_measures,
            maps=Markup(maps),
            mapped=mapped.cell,
            missing=_missing(comparison),
            settings=_settings(grid),
            metrics_of=_heads,
        )
    )


def _heads(columns: Iterable[tuple[str, str]]) -> list[tuple[str, int]]:
    """Return the directions of a table's columns, with how many columns each spans."""
    spans: dict[str, int] = {}
    for side, _ in columns:
        spans[side] = spans.get(side, 0) + 1
    return [(TITLES[side], count) for side, count in spans.items()]


def _measures(on: CorpusFigures) -> list[str]:
    """Return the names of the measures that all rows have."""
    each = [row.measures for row in on.rows.values()]
    return [name for name in each[0] if all(name in measures for measures in each)]


def _missing(comparison: Comparison) -> list[dict[str, str]]:
    return [
        {"row": label(cell.row), "corpus": cell.corpus, "seed": str(cell.seed), "why": why}
        for cell, why in comparison.missing
    ]


def _settings(grid: Grid) -> list[tuple[str, str]]:
    settings = grid.settings
    first = settings.train_settings(next(iter(settings.rows())), 0)
    budget = first.model_dump(
        mode="json", include={"epochs", "batch", "accumulate", "head_lr", "encoder_lr", "init", "keep"}
    )
    rows = [
        ("preset", settings.preset),
        ("training of all rows", ", ".join(f"{name} {value}" for name, value in budget.items())),
        ("seeds", ", ".join(str(seed) for seed in range(settings.seeds))),
        ("resamples of the bootstrap", f"{settings.resamples:,}"),
    ]
    return rows + [(corpus.shown, f"{corpus.corpus}, version {corpus.version}") for corpus in grid.corpora]
