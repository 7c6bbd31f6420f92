"""The systems of the paper on speakers never seen: the same clips, encoders, texts, split and budget for all.

    python -m bench.style_corpus          the corpus, once
    python -m bench.systems [--style data/style] [--out data/systems] [--seeds 3] [--rows NAME ...] [--epochs N]

What compare-systems does, in this process and without a server, on the style corpus: its rows, its report
({out}/report.html) and its table. The embedded preset: all systems have the same frozen encoders and functionals, so
that ideas are compared (docs/systems.md). A training that is finished is not repeated, one that was interrupted
goes on.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import report
from bench.ablation import style_settings
from fsclap.comparison.compare import compare
from fsclap.comparison.grid import Cell, Grid
from fsclap.comparison.report import write_report
from fsclap.comparison.settings import ComparedCorpus, ComparisonSettings
from fsclap.comparison.tables import cell_records, difference_records, figure_records, markdown
from fsclap.data.clips import ClipStore
from fsclap.data.splits import Split, make_split
from fsclap.evaluation.report import clips_needed
from fsclap.evaluation.report import write_report as write_evaluation
from fsclap.evaluation.run import evaluate_model, report_clips
from fsclap.model.settings import ModelSettings
from fsclap.training.loop import train
from fsclap.training.record import history_of
from storage.corpus import Corpus
from storage.rows import CorpusError

OWN = {
    "fs_clap, no fusion": ModelSettings(),
    "fs_clap, pooling alone": ModelSettings(fusion="none", separation=False),
}
"""Rows of our own: the default of this project, and what its attention pooling does without the rest."""
ROWS = tuple(ComparisonSettings(models=OWN).rows())


def comparison(rows: Sequence[str], seeds: int, epochs: int | None) -> ComparisonSettings:
    """Choose rows, in the order of the tables."""
    return ComparisonSettings(
        systems=tuple(row for row in rows if row not in OWN),
        models={row: model for row, model in OWN.items() if row in rows},
        seeds=seeds,
        training={} if epochs is None else {"epochs": epochs},
    )


def run(style: Path, out: Path, settings: ComparisonSettings) -> Grid:
    """Train and evaluate all cells.

    Args:
        style: What bench.style_corpus wrote.
        out: Folder of the models, of the report, and of what is computed for all.
        settings: What to compare.
    """
    corpus = Corpus.open(str(style / "corpus"))
    version = corpus.version()
    clips = ClipStore.create(
        out / "clips", corpus.dataset(version=version).to_batches(batch_size=256), key=str(version)
    )
    compared = ComparedCorpus(corpus=corpus.location, version=version, name="style", split=style_settings())
    split = make_split(clips.table, compared.split)
    cells = [
        Cell(
            row=row, corpus="style", seed=seed, model=str(out / f"{row}-{seed}"), report=str(out / f"{row}-{seed}/test")
        )
        for row in settings.rows()
        for seed in range(settings.seeds)
    ]
    grid = Grid(settings=settings, corpora=[compared], cells=cells)
    grid.save(out)
    for cell in cells:
        _finish(cell, grid, clips, split, out / "features")
        print(cell.name, flush=True)
    return grid


def _finish(cell: Cell, grid: Grid, clips: ClipStore, split: Split, cache: Path) -> None:
    (corpus,) = grid.corpora
    model, version = Path(cell.model), corpus.version
    assert version is not None
    settings = grid.settings.train_settings(cell.row, cell.seed, corpus.split)
    train(clips, split, settings, model, cache=cache, version=version, progress=False)
    if not cell.evaluated:
        found = evaluate_model(model, clips, split, "test", cache=cache, corpus="style", version=version)
        shown = report_clips(clips, clips_needed(found.evaluation))
        write_evaluation(
            found.evaluation, Path(cell.report), vectors=found.vectors, history=history_of(model), clips=shown
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.systems", __doc__)
    parser.add_argument(
        "--style", type=report.absolute_path, default="data/style", help="what bench.style_corpus wrote"
    )
    parser.add_argument("--out", type=report.absolute_path, default="data/systems", help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--epochs", type=int, help="default: those of the embedded preset")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        _show(options)
    except CorpusError as error:
        parser.exit(1, f"error: {error}; `python -m bench.style_corpus` makes it\n")


def _show(options: argparse.Namespace) -> None:
    grid = run(options.style, options.out, comparison(options.rows, options.seeds, options.epochs))
    found = compare(grid)
    page = write_report(found, options.out)
    figures: dict[str, Any] = {
        "figures": list(figure_records(found)),
        "differences": list(difference_records(found)),
        "cells": list(cell_records(found)),
    }
    report.write(options.json or options.out / "systems.json", figures)
    print(f"\n{markdown(found)}\n\n{page}")


if __name__ == "__main__":
    main()
