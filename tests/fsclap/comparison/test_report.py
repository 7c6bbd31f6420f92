"""From finished cells to the report, and what it says of those that are not."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsclap.comparison.compare import HEADLINE, MEAN, Comparison, compare
from fsclap.comparison.grid import ComparisonError, Grid
from fsclap.comparison.report import report, write_report
from fsclap.comparison.settings import ComparisonSettings
from fsclap.comparison.tables import markdown
from fsclap.evaluation.metrics import paper_metrics
from fsclap.evaluation.results import AUDIBLE, METRICS
from fsclap.evaluation.vectors import FILE, Vectors, VectorsError
from tests.fsclap.comparison import made
from tests.fsclap.evaluation import examples
from tests.fsclap.evaluation.test_report import Tags, words

SETTINGS = ComparisonSettings(
    systems=("clap_laion", "clap_microsoft", "fs_clap"), ablation=True, seeds=2, resamples=10000, pool=60
)
GONE = [("clap_microsoft", "style", 1), ("FU", "style", 0), ("FU", "style", 1)]


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    return made.grid(tmp_path_factory.mktemp("cells"), SETTINGS, unfinished=GONE)


@pytest.fixture(scope="module")
def comparison(grid: Grid) -> Comparison:
    return compare(grid)


@pytest.fixture
def page(comparison: Comparison, tmp_path: Path) -> str:
    return write_report(comparison, tmp_path).read_text()


def records(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_figure_is_the_mean_over_seeds_of_the_same_clips(comparison: Comparison) -> None:
    style, textrol = comparison.corpora
    assert (style.pool, textrol.pool, style.clips, style.captions) == (60, 50, made.CLIPS, made.CLIPS - 1)
    found = style.rows["fs_clap"]
    assert found.figures[MEAN, HEADLINE].value == pytest.approx(np.mean(list(found.by_seed.values())))
    assert found.figures[MEAN, "R@1"].low < found.figures[MEAN, "R@1"].value < found.figures[MEAN, "R@1"].high
    assert {cost.seconds for cost in found.costs.values()} == {30.0, 31.0}
    assert style.chance["R@1"] == pytest.approx(1 / 60)
    assert style.chance[HEADLINE] < style.matched[AUDIBLE][MEAN, HEADLINE] < style.ceiling[HEADLINE] < 1
    assert list(style.rows["clap_microsoft"].by_seed) == [0]


def test_in_the_pool_of_all_clips_it_is_the_protocols_figure(tmp_path: Path) -> None:
    settings = ComparisonSettings(systems=("fs_clap",), seeds=1, resamples=1000, pool=10_000)
    (style, _) = compare(made.grid(tmp_path, settings)).corpora
    vectors = made.vectors_of("fs_clap", 0)
    for side, pair in (
        ("audio_to_text", (vectors.audio, vectors.text)),
        ("text_to_audio", (vectors.text, vectors.audio)),
    ):
        expected = paper_metrics(*pair)
        for metric in METRICS:
            assert style.rows["fs_clap"].figures[side, metric].value == pytest.approx(expected[metric].mean())


def test_systems_are_told_apart_where_they_differ(comparison: Comparison) -> None:
    (style, _) = comparison.corpora
    ahead = style.compared("fs_clap", "clap_laion")
    behind = style.compared("clap_laion", "fs_clap")
    assert ahead is not None
    assert behind is not None
    assert ahead.significant
    assert (ahead.difference.low, ahead.difference.value) == (-behind.difference.high, -behind.difference.value)
    same = style.compared("SE", "HN")  # equal by construction
    assert same is not None
    assert not same.significant


def test_the_page_says_what_was_found_what_is_missing_and_why(page: str) -> None:
    tags = Tags(page)
    assert not re.findall(r'(?:src|href)="(?!#)', page), "the page needs no other file"
    text = words(page)
    assert "7 rows x 2 corpora x 2 seeds = 28 cells; 3 have no figures yet" in text
    assert "FS-CLAP is first" in text
    for title in ("Table 1: Recall", "Table 2: mAP@10", "Table 3: The parts of FS-CLAP", "Figure 2"):
        assert title in text
    assert "CLAP-Microsoft 1 of 2 seeds" in text
    assert "FU style 0 not trained yet" in text
    assert "no figures yet" in text
    assert "pools of 50 of 120 clips" in text
    assert "paper 28.6" in text  # FS-CLAP's R@1 on TextrolSpeech
    assert text.count("paper 23.1 ") + text.count("paper 19.6 ") >= 2
    assert "0.69 M 1,234 30 1 x cpu" in text  # the one seed of CLAP-Microsoft
    assert tags is not None


def test_without_a_data_set_of_the_paper_nothing_is_said_to_be_the_papers(tmp_path: Path, grid: Grid) -> None:
    alone = grid.model_copy(
        update={"corpora": grid.corpora[:1], "cells": [c for c in grid.cells if c.corpus == "style"]}
    )
    text = words(write_report(compare(alone), tmp_path).read_text())
    assert "on other clips" not in text
    assert "paper 28.6" not in text


def test_the_files_hold_the_figures_of_the_page(comparison: Comparison, page: str, tmp_path: Path) -> None:
    assert {path.name for path in tmp_path.iterdir()} == {
        "report.html", "figures.csv", "differences.csv", "cells.csv", "tables.tex", "maps.png",
    }  # fmt: skip
    figures = records(tmp_path / "figures.csv")
    assert len(figures) == (6 + 7) * 3 * 4
    wanted = {"row": "fs_clap", "corpus": "TextrolSpeech", "direction": "audio_to_text", "metric": "R@1"}
    (one,) = [row for row in figures if row.items() >= wanted.items()]
    found = comparison.corpora[1].rows["fs_clap"].figures["audio_to_text", "R@1"]
    assert float(one["value"]) == pytest.approx(100 * found.value, abs=1e-3)
    assert (one["paper"], one["pool"], one["clips"], one["seeds"]) == ("28.6", "50", "120", "2")
    assert len(records(tmp_path / "differences.csv")) == 15 + 21
    cells = records(tmp_path / "cells.csv")
    assert {(cell["row"], cell["corpus"], int(cell["seed"])) for cell in cells if cell["missing"]} == set(GONE)
    assert all(float(cell["seconds"]) >= 30 for cell in cells if not cell["missing"])
    tex = (tmp_path / "tables.tex").read_text()
    assert tex.count(r"\begin{tabular}") == 6
    assert r"\textit{p: 28.6}" in tex
    assert rf"\textbf{{{100 * found.value:.1f}}}" in tex
    assert "mAP@10, mean of both" in tex
    for line in tex.splitlines():
        if " & " in line:
            assert line.endswith(r"\\")


def test_names_from_people_are_text_in_the_page_and_in_latex(tmp_path: Path) -> None:
    name = "<b>mine</b> 50 % of_$x$"
    settings = ComparisonSettings(
        systems=("fs_clap",), models={name: ComparisonSettings().rows()["clap_laion"].model}, seeds=1, resamples=1000
    )
    grid = made.grid(tmp_path / "cells", settings)
    page = write_report(compare(grid), tmp_path / "out").read_text()
    assert "<b>mine" not in page
    assert r"<b>mine</b> 50 \% of\_\$x\$" in (tmp_path / "out/tables.tex").read_text()


def test_a_short_table_for_documents(comparison: Comparison) -> None:
    lines = markdown(comparison).splitlines()
    assert lines[0] == "**style**, 120 clips"
    (row,) = [line for line in lines if line.startswith("| CLAP-Microsoft") and "0.69 M" in line][:1]
    assert row.count("|") == lines[2].count("|")
    assert re.search(r"\| [+]\d+\.\d\d \([+-]\d+\.\d\d to [+]\d+\.\d\d\) \|", row), row
    assert any(line.startswith("| best possible") for line in lines)


def test_clips_that_a_cell_lacks_count_for_no_row(tmp_path: Path) -> None:
    settings = ComparisonSettings(systems=("clap_laion", "fs_clap"), seeds=1, resamples=1000)
    grid = made.grid(tmp_path, settings, unfinished=[("fs_clap", "style", 0)])
    (cell,) = grid.of("fs_clap", "style")
    whole = made.vectors_of("fs_clap", 0)
    order = np.random.default_rng(0).permutation(made.CLIPS)[:-20]  # and in another order
    texts = {name: [getattr(whole, name)[row] for row in order] for name in ("ids", "captions", "styles")}
    made.finish(cell, Vectors(**texts, audio=whole.audio[order], text=whole.text[order]))
    (style, _) = compare(grid).corpora
    assert (style.clips, style.left_out) == (made.CLIPS - 20, 20)
    assert style.rows["fs_clap"].figures[MEAN, HEADLINE].value > 0.3  # its clips have their own captions


def test_a_leaking_model_has_no_figures(tmp_path: Path) -> None:
    grid = made.grid(tmp_path, ComparisonSettings(systems=("clap_laion", "fs_clap"), seeds=1, resamples=1000))
    (cell,) = grid.of("fs_clap", "style")
    examples.evaluation(leak=examples.LEAKING).save(Path(cell.report) / "evaluation.json")
    comparison = compare(grid)
    assert [(one.name, why) for one, why in comparison.missing] == [
        ("fs_clap on style, seed 0", "the model leaks: its figures would mean nothing")
    ]
    assert set(comparison.corpora[0].rows) == {"clap_laion"}


@pytest.mark.parametrize("damage", ["cut", "rows"])
def test_damaged_embeddings_are_named(tmp_path: Path, damage: str) -> None:
    file, vectors = tmp_path / FILE, made.vectors_of("fs_clap", 0)
    if damage == "rows":
        vectors.ids.pop()
    vectors.save(file)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(VectorsError, match=f"{FILE} is damaged"):
        Vectors.load(file)


def test_a_comparison_without_figures_or_file_says_so(tmp_path: Path) -> None:
    everything: Any = [
        (row, corpus, seed) for row in SETTINGS.rows() for corpus in ("style", "TextrolSpeech") for seed in (0, 1)
    ]
    empty = made.grid(tmp_path / "cells", SETTINGS, unfinished=everything)
    empty.save(tmp_path)
    assert Grid.load(tmp_path) == empty
    with pytest.raises(ComparisonError, match="no cell of 28 has figures yet"):
        report(tmp_path)
    with pytest.raises(ComparisonError, match="holds no comparison"):
        report(tmp_path / "cells")
    (tmp_path / "comparison.json").write_text("{")
    with pytest.raises(ComparisonError, match="is damaged"):
        report(tmp_path)
