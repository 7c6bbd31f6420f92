"""Cells of a comparison, made up: unit rows drawn at random, and what a training and an evaluation leave."""

from collections.abc import Collection
from pathlib import Path

from fsclap.comparison.grid import Cell, Grid
from fsclap.comparison.settings import ComparedCorpus, ComparisonSettings
from fsclap.evaluation.vectors import FILE, Vectors
from fsclap.training.checkpoint import Epoch
from tests.fsclap.evaluation import examples
from tests.fsclap.training.test_model_card import record

CLIPS = 120
NOISE = {"clap_laion": 3.0, "clap_microsoft": 2.0, "fs_clap": 0.9}
"""How far a system's clips and captions are apart; another's are as those of clap_laion, drawn otherwise."""


def vectors_of(row: str, seed: int) -> Vectors:
    """Embeddings of the same clips for every system: the closer to their captions, the better it is."""
    audio, text = examples.pairs(CLIPS, dim=24, seed=seed, noise=NOISE.get(row, 3.0))
    made = examples.vectors(audio, text)
    made.captions[1], made.text[1] = made.captions[0], made.text[0]  # two clips can't be told apart
    return made


def finish(cell: Cell, vectors: Vectors | None = None) -> None:
    """Write what a finished cell leaves."""
    model, report = Path(cell.model), Path(cell.report)
    report.mkdir(parents=True)
    epochs = [Epoch(epoch=1, loss=3.0, validation=0.1, skipped=0, seconds=30.0 + cell.seed)]
    record(history=epochs, environment={"device": "1 x cpu"}).save(model / "training.json")
    examples.evaluation(model=cell.model).save(report / "evaluation.json")
    (vectors or vectors_of(cell.row, cell.seed)).save(report / FILE)


def grid(folder: Path, settings: ComparisonSettings, *, unfinished: Collection[tuple[str, str, int]] = ()) -> Grid:
    """A comparison on two corpora; all cells are finished but those that are named by row, corpus and seed."""
    corpora = [
        ComparedCorpus(corpus="data/style", version=3),
        ComparedCorpus(corpus="data/ts", version=1, name="TextrolSpeech", paper="TextrolSpeech", pool=50),
    ]
    cells = [
        Cell(row=row, corpus=corpus.shown, seed=seed, model=str(model), report=str(model / "evaluation/x"))
        for row in settings.rows()
        for corpus in corpora
        for seed in range(settings.seeds)
        for model in [folder / f"{row}-{corpus.shown}-{seed}"]
    ]
    for cell in cells:
        if (cell.row, cell.corpus, cell.seed) not in unfinished:
            finish(cell)
    return Grid(settings=settings, corpora=corpora, cells=cells)
