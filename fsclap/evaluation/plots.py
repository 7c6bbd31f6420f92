"""The plots of a report. Each is small enough to be legible on a phone.

umap_2d         (a + t, dim) -> (a + t, 2), both modalities in one map, as in Fig. 2 of the paper
*_figure        data -> matplotlib Figure
png, inline_svg Figure -> bytes for a file or a markdown; text for a page that is light or dark
"""

import io
import logging
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fsclap.evaluation.results import Evaluation, Mode

log = logging.getLogger(__name__)

_INK, _MUTED, _GRID = "#1f2937", "#6b7280", "#e5e7eb"
_ROLES = {_INK: "var(--ink)", _MUTED: "var(--muted)", _GRID: "var(--line)"}
# Colours that a page replaces with its theme; the others are legible on white and on black.
AUDIO_COLOUR, TEXT_COLOUR = "#3f83c9", "#d9652b"
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "axes.titlecolor": _INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud
    "svg.hashsalt": "fsclap",
}
# UMAP's number of neighbours: with fewer distinct points there is no neighbourhood to preserve.
_FEWEST_FOR_UMAP = 15
# Of each modality: up to 4,096 points in total, UMAP finds neighbours exactly, and ten times as
# fast.
_MOST_POINTS, _MOST_IN_A_GRID = 2000, 1000
_PAIRS = 12
_UNMATCHED = 100_000

P = ParamSpec("P")
T = TypeVar("T")


def _styled(draw: Callable[P, T]) -> Callable[P, T]:
    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> T:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


def umap_2d(points: np.ndarray, *, seed: int) -> tuple[np.ndarray, str]:
    """Map points to a plane by cosine distance: UMAP, or PCA for fewer than 15 points.

    Args:
        points: (n, dim), n >= 2. Equal points count once for the choice of the method.
        seed: Equal seeds give equal maps.

    Returns:
        (n, 2) float64, and "UMAP" or "PCA".

    Raises:
        ValueError: Not (n, dim), fewer than 2 points, or not finite.
    """
    if points.ndim != 2 or len(points) < 2 or not np.isfinite(points).all():
        raise ValueError(f"a map needs at least 2 finite points, (n, dim); got {points.shape}")
    if len(np.unique(points, axis=0)) < _FEWEST_FOR_UMAP:
        return _principal(points), "PCA"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about single threading with a seed, and unconnected graphs of few points
        from umap import UMAP

        return UMAP(metric="cosine", random_state=seed, n_jobs=1).fit_transform(points).astype(np.float64), "UMAP"


def _principal(points: np.ndarray) -> np.ndarray:
    centred = points.astype(np.float64) - points.mean(axis=0)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    components = (left * scale)[:, :2]
    return np.pad(components, ((0, 0), (0, 2 - components.shape[1])))


@_styled
def map_figure(audio: np.ndarray, text: np.ndarray, *, seed: int) -> Figure:
    """Plot clips and captions in one map.

    Lines join some pairs: the shorter, the better aligned.

    Args:
        audio: (pairs, dim) unit rows, at least 1. At most 2,000 are drawn.
        text: (pairs, dim) unit rows, in the same order.
        seed: Seed of the map and of the choice.
    """
    figure, (axes,) = _panels(1, height=4.6)
    method, drawn = _draw_map(axes, audio, text, seed=seed, most=_MOST_POINTS, unit=1.0)
    axes.set(title=f"{method} of {drawn:,} pairs", xlabel="lines join a clip and its caption")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, markerscale=1.4)
    return figure


@_styled
def maps_figure(systems: Mapping[str, tuple[np.ndarray, np.ndarray]], *, seed: int) -> Figure:
    """Plot a map of each system, as in Fig. 2 of the paper.

    Args:
        systems: Name -> audio and text as of `map_figure`; at least one. At most 1,000 pairs each are drawn.
        seed: Seed of the maps and of the choice.
    """
    columns = min(4 if len(systems) > 6 else 3, len(systems))
    rows = -(-len(systems) // columns)
    figure = Figure(figsize=(3.2 * columns, 3.1 * rows + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes, (name, (audio, text)) in zip(grid, systems.items(), strict=False):
        method, _ = _draw_map(axes, audio, text, seed=seed, most=_MOST_IN_A_GRID, unit=0.6)
        axes.set(title=name.replace("$", r"\$"), xlabel=method)  # else matplotlib reads mathematics
    for axes in grid[len(systems) :]:
        axes.set_visible(False)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, markerscale=2)
    return figure


def _draw_map(axes: Axes, audio: np.ndarray, text: np.ndarray, *, seed: int, most: int, unit: float) -> tuple[str, int]:
    """Draw at most `most` pairs, points of `unit` times the usual size; return the method and the number of pairs."""
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.permutation(len(audio))[:most])
    places, method = umap_2d(np.concatenate([audio[drawn], text[drawn]]), seed=seed)
    clips, captions = np.split(places, 2)
    lined = rng.permutation(len(drawn))[:_PAIRS]
    lines = np.stack([clips[lined], captions[lined]], axis=1)
    axes.add_collection(LineCollection(list(lines), colors=_MUTED, linewidths=0.9, zorder=3))
    size = unit * float(np.clip(6000 / len(drawn), 9, 40))
    for points, colour, name in ((clips, AUDIO_COLOUR, "audio"), (captions, TEXT_COLOUR, "text")):
        crowd = len(drawn) > 300  # as one image inside the SVG, instead of one element per point
        axes.scatter(
            points[:, 0], points[:, 1], s=size, color=colour, alpha=0.65, linewidths=0, label=name, rasterized=crowd
        )
        axes.scatter(
            points[lined, 0], points[lined, 1], s=size + 8, color=colour, edgecolors=_INK, linewidths=0.6, zorder=4
        )
    axes.set(xticks=[], yticks=[])
    return method, len(drawn)


@_styled
def curves_figure(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot loss, validation mAP@10 and learning rate by epoch.

    Args:
        history: One mapping per epoch, at least one: epoch, loss, validation (0 to 1) and
            learning_rate. Curves without any value are left out; None or nan is a gap.
    """
    named = {
        "loss": ("Training loss", TEXT_COLOUR, 1),
        "validation": ("Validation mAP@10 (%)", AUDIO_COLOUR, 100),
        "learning_rate": ("Learning rate", _MUTED, 1),
    }
    keys = [key for key in named if any(row.get(key) is not None for row in history)]
    figure, axes = _panels(len(keys), height=0.4 + 1.75 * len(keys), rows=True)
    epochs = [row["epoch"] for row in history]
    for panel, key in zip(axes, keys, strict=True):
        title, colour, scale = named[key]
        values = scale * np.array([np.nan if row.get(key) is None else row[key] for row in history], dtype=float)
        panel.plot(epochs, values, "o-", color=colour, markersize=4, linewidth=1.8)
        panel.set_title(title)
        panel.yaxis.set_major_locator(MaxNLocator(4))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        if key == "validation" and np.isfinite(values).any():
            _mark_best(panel, epochs, values)
    axes[-1].set_xlabel("epoch")
    return figure


def _mark_best(panel: Axes, epochs: Sequence[int], values: np.ndarray) -> None:
    best = int(np.nanargmax(values))
    panel.plot(epochs[best], values[best], "o", color=TEXT_COLOUR, markersize=7)
    panel.set_title(f"{panel.get_title(loc='left')}, best {values[best]:.2f}")
    panel.margins(y=0.15)


@_styled
def similarities_figure(audio: np.ndarray, text: np.ndarray, *, seed: int) -> Figure:
    """Plot the cosines of pairs, and of clips with other clips' captions.

    Args:
        audio: (pairs, dim) unit rows, at least 2.
        text: (pairs, dim) unit rows, in the same order.
        seed: Seed of the sample of 100,000 unmatched pairs, if there are more.
    """
    count = len(audio)
    rng = np.random.default_rng(seed)
    clip = rng.integers(count, size=_UNMATCHED) if count**2 > _UNMATCHED else np.repeat(np.arange(count), count)
    other = rng.integers(count, size=_UNMATCHED) if count**2 > _UNMATCHED else np.tile(np.arange(count), count)
    apart = clip != other
    matched = np.einsum("nd,nd->n", audio, text)
    unmatched = np.einsum("nd,nd->n", audio[clip[apart]], text[other[apart]])
    figure, (axes,) = _panels(1, height=3.4)
    spread = np.concatenate([matched, unmatched])
    edges = np.linspace(spread.min() - 0.01, spread.max() + 0.01, 41)
    for values, colour, name in ((unmatched, _MUTED, "other caption"), (matched, AUDIO_COLOUR, "own caption")):
        label = f"{name}: {values.mean():.2f}"
        axes.hist(
            values,
            bins=list(edges),
            weights=np.full(len(values), 100 / len(values)),
            color=colour,
            alpha=0.6,
            label=label,
        )
    axes.set(title="Similarity of a clip and a caption", xlabel="cosine; means below", ylabel="share (%)")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@_styled
def groups_figure(group_sizes: Mapping[int, int]) -> Figure:
    """Plot how many styles have how many clips, from {clips per style: styles}."""
    figure, (axes,) = _panels(1, height=3.4)
    sizes = np.array(sorted(group_sizes))
    most = int(sizes.max())
    if most <= 30:
        axes.bar(sizes, [group_sizes[size] for size in sizes.tolist()], color=AUDIO_COLOUR, width=0.8)
    else:
        expanded = np.repeat(sizes, [group_sizes[size] for size in sizes.tolist()])
        axes.hist(expanded, bins=list(np.geomspace(0.9, most * 1.1, 25)), color=AUDIO_COLOUR)
        axes.set_xscale("log")
    axes.set(title="Clips that share a style", xlabel="clips per style", ylabel="styles")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if most <= 30:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


@_styled
def pools_figure(evaluation: Evaluation, *, mode: Mode) -> Figure | None:
    """Plot recall by pool size, mean of both directions; None for fewer than two pools."""
    rows = [
        row
        for row in evaluation.retrieval
        if row.mode == mode and row.direction == "mean" and row.stage == "embeddings"
    ]
    rows.sort(key=lambda row: row.pool)
    if len(rows) < 2:
        return None
    figure, (axes,) = _panels(1, height=3.4)
    pools = [row.pool for row in rows]
    for metric, colour in (("R@10", AUDIO_COLOUR), ("R@1", TEXT_COLOUR)):
        figures = [row.metrics[metric] for row in rows]
        values = 100 * np.array([interval.value for interval in figures])
        reach = 100 * np.array([[i.value - i.low for i in figures], [i.high - i.value for i in figures]])
        axes.errorbar(
            pools, values, yerr=reach.clip(0), color=colour, marker="o", markersize=4, capsize=3, label=metric
        )
        chance = [100 * row.chance[metric] for row in rows]
        axes.plot(pools, chance, ":", color=colour, label=f"{metric}, chance")
    axes.set(title=f"Recall by pool size ({mode} mode)", xlabel="clips in the pool", ylabel="%", xscale="log")
    axes.set_xticks(pools, [f"{pool:,}" for pool in pools])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@_styled
def png(figure: Figure) -> bytes:
    """Render a PNG on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


@_styled
def inline_svg(figure: Figure, *, label: str) -> str:
    """Render an SVG without background, its greys the page's --ink, --muted and --line.

    Args:
        figure: The plot.
        label: Text for screen readers; inserted unescaped, so it must be a constant of this
            project.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", dpi=160, transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans'")
    for colour, role in _ROLES.items():
        text = text.replace(colour, role)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def _panels(count: int, *, height: float, rows: bool = False) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.8, height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(*((count, 1) if rows else (1, count)), squeeze=False, sharex=rows)
    return figure, list(grid.ravel())
