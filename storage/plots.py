"""The plots of a corpus card, as PNG files."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from storage.files import written_aside
from storage.statistics import Group, Statistics, retention

log = logging.getLogger(__name__)

_INK, _MUTED, _FILL, _ACCENT = "#1f2937", "#6b7280", "#3b6ea8", "#c2410c"
_LONGEST = 20
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "xtick.color": _MUTED,
    "ytick.color": _INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.8,
}
# DejaVu has no Chinese, Japanese or Korean characters, which names of series may have: the first of
# these fonts that is installed provides them.
_CJK = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "PingFang SC")
_PROSODY = (
    ("pitch_hz", "Pitch", "median F0 (Hz)"),
    ("energy_db", "Energy", "speech level (dBFS)"),
    ("speaking_rate", "Speaking rate", "syllables per second"),
)


def draw(statistics: Statistics, folder: Path, *, threshold: float | None) -> dict[str, Path]:
    """Draw every plot that there is data for.

    Args:
        statistics: The figures of the corpus.
        folder: The folder for the files, created when absent. Other plots in it are removed.
        threshold: The similarity threshold in use, marked on the retention curve.

    Returns:
        Name -> file, in the order of the card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE | {"font.family": _fonts()}):
        figures = _figures(statistics, threshold=threshold)
        files = {name: _save(figure, folder / f"{name}.png") for name, figure in figures.items()}
    for old in set(folder.glob("*.png")) - set(files.values()):
        old.unlink()
    return files


def _figures(statistics: Statistics, *, threshold: float | None) -> dict[str, Figure]:
    figures = {}
    if statistics.durations.size:
        figures["durations"] = _durations(statistics.durations)
        figures["series"] = _volume(statistics.series, what="series")
        figures["speakers"] = _volume(statistics.speakers, what="speaker")
    if any(statistics.attributes[name].size for name, _, _ in _PROSODY):
        figures["prosody"] = _prosody(statistics.attributes)
    if statistics.emotions:
        figures["emotions"] = _counted(statistics.emotions, title="Emotion", label="utterances")
    if statistics.similarities.size:
        figures["retention"] = _retention(statistics.similarities, threshold=threshold)
    if statistics.reasons:
        reasons = {f"{stage}: {reason}": count for (stage, reason), count in statistics.reasons.items()}
        figures["rejects"] = _counted(reasons, title="Refusals by stage and reason", label="turns and sources")
    if statistics.costs:
        figures["cost"] = _cost(statistics)
    return figures


def _durations(durations: np.ndarray) -> Figure:
    figure, (axes,) = _panels(1, height=3.0)
    axes.hist(durations, bins=_edges(durations).tolist(), color=_FILL)
    median = float(np.median(durations))
    axes.axvline(median, color=_ACCENT, linewidth=1.5, label=f"median {median:.2f} s")
    axes.legend(frameon=False)
    axes.set(title="Length of utterances", xlabel="seconds", ylabel="utterances")
    return figure


def _volume(groups: Sequence[Group], *, what: str) -> Figure:
    shown = {group.name: group.hours * 60 for group in groups[:_LONGEST]}
    figure, (axes,) = _panels(1, height=_bar_height(len(shown)))
    _bars(axes, shown, label="{:.1f}")
    of_all = f", the {len(shown)} largest of {len(groups):,}" if len(groups) > len(shown) else ""
    axes.set(title=f"Speech by {what}{of_all}", xlabel="minutes")
    return figure


def _prosody(attributes: Mapping[str, np.ndarray]) -> Figure:
    figure, axes = _panels(3, height=2.8)
    for panel, (name, title, label) in zip(axes, _PROSODY, strict=True):
        values = attributes[name]
        if values.size:
            panel.hist(values, bins=_edges(values).tolist(), color=_FILL)
        panel.set(title=title, xlabel=label)
    axes[0].set_ylabel("utterances")
    return figure


def _retention(similarities: np.ndarray, *, threshold: float | None) -> Figure:
    figure, (axes,) = _panels(1, height=3.2)
    low, high = float(similarities.min()), float(similarities.max())
    marks = [low, high] if threshold is None else [low, high, threshold]
    margin = 0.05 * max(max(marks) - min(marks), 0.1)
    thresholds = np.linspace(min(marks) - margin, max(marks) + margin, 400)
    axes.plot(thresholds, 100 * retention(similarities, thresholds), color=_FILL, linewidth=2)
    if threshold is not None:
        share = 100 * float(retention(similarities, np.array([threshold]))[0])
        label = f"in use: {threshold:g}, keeps {share:.1f} %"
        axes.axvline(threshold, color=_ACCENT, linewidth=1.5, linestyle="--", label=label)
        axes.plot(threshold, share, "o", color=_ACCENT)
        axes.legend(frameon=False, loc="lower left")
    axes.set(title=f"Share kept of the {similarities.size:,} turns with a similarity")
    axes.set(xlabel="threshold on the mean similarity to the speaker's other turns", ylabel="kept (%)")
    axes.set_ylim(-3, 103)
    return figure


def _cost(statistics: Statistics) -> Figure:
    figure, axes = _panels(2, height=_bar_height(len(statistics.costs)))
    _bars(axes[0], {cost.stage: cost.seconds for cost in statistics.costs}, label="{:,.1f}")
    axes[0].set(title="Compute by stage", xlabel="seconds")
    _bars(axes[1], {cost.stage: cost.real_time_factor for cost in statistics.costs}, label="{:.3g}")
    axes[1].set(title="Real-time factor by stage", xlabel="seconds of compute per second of audio")
    return figure


def _counted(counts: Mapping[str, int], *, title: str, label: str) -> Figure:
    shown = dict(list(counts.items())[:_LONGEST])
    figure, (axes,) = _panels(1, height=_bar_height(len(shown)))
    _bars(axes, shown, label="{:,}")
    axes.set(title=title, xlabel=label)
    return figure


def _panels(count: int, *, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(9, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _bar_height(rows: int) -> float:
    return 1.1 + 0.28 * max(rows, 2)


def _bars(axes: Axes, values: Mapping[str, float], *, label: str) -> None:
    places = np.arange(len(values))
    bars = axes.barh(places, list(values.values()), color=_FILL, height=0.7)
    axes.bar_label(bars, labels=[label.format(value) for value in values.values()], padding=3, color=_MUTED)
    axes.set_yticks(places, [_short(name) for name in values])
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.margins(x=0.15)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _short(name: str, *, limit: int = 40) -> str:
    """Shorten a name in the middle, to fit next to a bar: names of speakers differ at the end."""
    flat = " ".join(name.split())
    return flat if len(flat) <= limit else f"{flat[: limit // 2 - 1]}…{flat[-limit // 2 :]}"


def _edges(values: np.ndarray) -> np.ndarray:
    edges = np.histogram_bin_edges(values, bins="fd")
    return edges if 8 <= len(edges) <= 60 else np.histogram_bin_edges(values, bins=min(30, len(values)))


def _fonts() -> list[str]:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *[name for name in _CJK if name in installed][:1]]


def _save(figure: Figure, path: Path) -> Path:
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a title may contain "$"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with written_aside(path) as part:
            figure.savefig(part, format="png", dpi=130, metadata={"Software": None})
    glyphs = [warning for warning in caught if "missing from font" in str(warning.message)]
    if glyphs:
        log.warning("%s lacks %d characters: install a font with them (%s)", path.name, len(glyphs), _CJK[0])
    return path
