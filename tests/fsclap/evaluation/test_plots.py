"""The map of the embeddings, and what the figures hold."""

import numpy as np
import pytest

from fsclap.evaluation.plots import (
    curves_figure,
    groups_figure,
    inline_svg,
    map_figure,
    png,
    pools_figure,
    similarities_figure,
    umap_2d,
)
from tests.fsclap.evaluation import examples


@pytest.mark.slow
def test_umap_keeps_neighbours_together_and_equal_seeds_give_equal_maps() -> None:
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(3, 16), 30, axis=0)
    points = centres + 0.05 * rng.normal(size=centres.shape)
    places, method = umap_2d(points, seed=3)
    assert method == "UMAP"
    assert places.shape == (90, 2)
    group = np.repeat(np.arange(3), 30)
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert (group[distances.argmin(axis=1)] == group).mean() == 1
    assert np.array_equal(umap_2d(points, seed=3)[0], places)


@pytest.mark.parametrize(("count", "dim"), [(2, 8), (14, 8), (5, 1)])
def test_few_points_are_mapped_by_their_principal_components(count: int, dim: int) -> None:
    points = np.random.default_rng(0).normal(size=(count, dim))
    places, method = umap_2d(points, seed=0)
    assert method == "PCA"
    assert places.shape == (count, 2)
    assert places.var(axis=0).sum() <= points.var(axis=0).sum() + 1e-9
    if dim > 1 and count > 2:
        leading = np.linalg.eigvalsh(np.cov(points.T))[::-1][:2]
        assert np.cov(places.T) == pytest.approx(np.diag(leading), abs=1e-9)


def test_a_collapsed_model_has_a_map_too() -> None:
    same = np.tile(np.eye(1, 8), (50, 1))
    places, method = umap_2d(same, seed=0)
    assert method == "PCA"
    assert np.allclose(places, 0)
    assert png(map_figure(same, same, seed=0)).startswith(b"\x89PNG")


@pytest.mark.parametrize("points", [np.ones((1, 4)), np.ones(4), np.full((5, 4), np.nan)])
def test_a_map_of_nothing_is_refused(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite points"):
        umap_2d(points, seed=0)


def test_the_best_epoch_is_marked_and_an_epoch_without_validation_is_a_gap() -> None:
    history = examples.history(8)
    history[0]["validation"], history[1]["validation"] = None, float("nan")
    best = max(row["validation"] for row in history[2:])
    validation = curves_figure(history).axes[1]
    line, mark = validation.get_lines()
    assert np.isnan(np.asarray(line.get_ydata(), float)[:2]).all()
    assert np.asarray(mark.get_ydata(), float) == pytest.approx([100 * best])
    assert validation.get_title(loc="left") == f"Validation mAP@10 (%), best {100 * best:.2f}"


def test_the_histogram_holds_every_pair_and_no_pair_twice() -> None:
    audio, text = examples.pairs(40)
    axes = similarities_figure(audio, text, seed=0).axes[0]
    heights = [sum(bar.get_height() for bar in bars) for bars in axes.containers]  # type: ignore[attr-defined]
    assert heights == pytest.approx([100, 100])
    unmatched, matched = axes.get_legend_handles_labels()[1]
    cosines = audio @ text.T
    apart = cosines[~np.eye(40, dtype=bool)]
    assert unmatched == f"other caption: {apart.mean():.2f}"
    assert matched == f"own caption: {np.diag(cosines).mean():.2f}"


def test_group_sizes_are_bars_and_wide_ranges_logarithmic() -> None:
    narrow = groups_figure({1: 4, 3: 2}).axes[0]
    assert [bar.get_height() for bar in narrow.patches] == [4, 2]  # type: ignore[attr-defined]
    wide = groups_figure({1: 40, 500: 1}).axes[0]
    assert wide.get_xscale() == "log"
    assert sum(bar.get_height() for bar in wide.patches) == 41  # type: ignore[attr-defined]


def test_recall_is_drawn_against_pools_only_where_there_are_two() -> None:
    figure = pools_figure(examples.evaluation(), mode="grouped")
    assert figure is not None
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["200", "1,000"]
    single = examples.evaluation(retrieval=[examples.figures(pool=200)])
    assert pools_figure(single, mode="paper") is None


def test_an_inline_svg_takes_the_colours_of_its_page() -> None:
    svg = inline_svg(groups_figure({1: 4, 3: 2}), label="groups")
    assert svg.startswith('<svg role="img" aria-label="groups"')
    assert "var(--ink)" in svg
    assert "#1f2937" not in svg
    assert svg == inline_svg(groups_figure({1: 4, 3: 2}), label="groups")
