"""The tables of the paper as plain data: what stands where, for the page, LaTeX and CSV alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fsclap.comparison import paper
from fsclap.comparison.compare import HEADLINE, MEAN, Comparison, CorpusFigures
from fsclap.comparison.scores import DIRECTIONS
from fsclap.comparison.settings import ABLATION, BASE, FULL, label
from fsclap.evaluation.results import ALL_WORDS, AUDIBLE, METRICS, Interval

TITLES = {"audio_to_text": "audio to text", "text_to_audio": "text to audio", MEAN: "mean of both"}
PARTS = {BASE: (), "FU": ("FU",), "SE": ("SE",), "HN": ("HN",), "FU+SE": ("FU", "SE"), FULL: ("FU", "SE", "HN")}
"""Rows of Table 3 -> the parts that they have."""
CHANCE, CEILING = "chance", "best possible"


@dataclass(frozen=True, slots=True)
class Table:
    """One of the paper's tables.

    Attributes:
        number: Its number in the paper.
        title: What it shows.
        rows: Names of its rows.
        columns: (direction, metric).
    """

    number: int
    title: str
    rows: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A figure in a table.

    Attributes:
        found: The figure with its interval, 0 to 1.
        place: 1 is the best of its column, 2 the second.
        paper: What the paper prints there, in %; None: nothing.
    """

    found: Interval
    place: int
    paper: float | None


def tables(comparison: Comparison) -> list[Table]:
    """Return the tables that the grid has rows for."""
    rows = tuple(comparison.grid.settings.rows())
    systems = tuple(row for row in rows if row not in ABLATION)
    found = [
        Table(
            1,
            "Recall",
            systems,
            tuple((side, metric) for side in DIRECTIONS for metric in METRICS if metric != HEADLINE),
        ),
        Table(2, HEADLINE, systems, tuple((side, HEADLINE) for side in (*DIRECTIONS, MEAN))),
    ]
    if comparison.grid.settings.ablation:
        parts = tuple((side, metric) for side in DIRECTIONS for metric in (HEADLINE, "R@1"))
        found.append(Table(3, "The parts of FS-CLAP", tuple(PARTS), parts))
    return found


def entries(table: Table, on: CorpusFigures) -> dict[str, list[Entry]]:
    """Return the figures of a table on a corpus, by row; a row without any is not among them."""
    rows = [row for row in table.rows if row in on.rows]
    columns = []
    for direction, metric in table.columns:
        found = {row: on.rows[row].figures[direction, metric] for row in rows}
        order = sorted({round(100 * one.value, 1) for one in found.values()}, reverse=True)
        columns.append(
            [
                Entry(
                    one,
                    order.index(round(100 * one.value, 1)) + 1,
                    paper.figure(row, on.corpus.paper, direction, metric),
                )
                for row, one in found.items()
            ]
        )
    return {row: [column[at] for column in columns] for at, row in enumerate(rows)}


def references(table: Table, on: CorpusFigures) -> dict[str, list[float]]:
    """Return what the figures of a table lie between, by name: the matcher, the best possible, chance."""
    return {
        f"{AUDIBLE}, words of one clip": [on.matched[AUDIBLE][column] for column in table.columns],
        ALL_WORDS: [on.matched[ALL_WORDS][column] for column in table.columns],
        CEILING: [on.ceiling[metric] for _, metric in table.columns],
        CHANCE: [on.chance[metric] for _, metric in table.columns],
    }


def figure_records(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yield every figure as a record; shares in %."""
    for on in comparison.corpora:
        for row, found in on.rows.items():
            for (direction, metric), one in found.figures.items():
                yield {
                    "corpus": on.corpus.shown, "version": on.corpus.version, "row": row, "direction": direction,
                    "metric": metric, "value": _percent(one.value), "low": _percent(one.low),
                    "high": _percent(one.high), "pool": on.pool, "clips": on.clips, "seeds": len(found.by_seed),
                    "attribute_match": _percent(on.matched[AUDIBLE][direction, metric]),
                    "attribute_match_all_words": _percent(on.matched[ALL_WORDS][direction, metric]),
                    "best_possible": _percent(on.ceiling[metric]), "chance": _percent(on.chance[metric]),
                    "paper": paper.figure(row, on.corpus.paper, direction, metric),
                }  # fmt: skip


def difference_records(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yield every pair of rows as a record; differences of HEADLINE in percentage points."""
    for on in comparison.corpora:
        for one in on.differences:
            yield {
                "corpus": on.corpus.shown, "first": one.first, "second": one.second,
                "difference": _percent(one.difference.value), "low": _percent(one.difference.low),
                "high": _percent(one.difference.high), "p": one.p, "p_corrected": one.corrected,
                "significant": one.significant,
            }  # fmt: skip


def cell_records(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yield every cell as a record: its figure and cost, or why it has none."""
    missing = dict(comparison.missing)
    corpora = {on.corpus.shown: on for on in comparison.corpora}
    for cell in comparison.grid.cells:
        record: dict[str, Any] = {
            "row": cell.row, "corpus": cell.corpus, "seed": cell.seed, "missing": missing.get(cell, ""), HEADLINE: None,
            "parameters": None, "steps": None, "seconds": None, "device": None, "model": cell.model,
        }  # fmt: skip
        if cell not in missing:
            found = corpora[cell.corpus].rows[cell.row]
            cost = found.costs[cell.seed]
            record |= {
                HEADLINE: _percent(found.by_seed[cell.seed]), "parameters": cost.parameters, "steps": cost.steps,
                "seconds": round(cost.seconds, 3), "device": cost.device,
            }  # fmt: skip
        yield record


def markdown(comparison: Comparison) -> str:
    """Make a short table per corpus, for a document or Prefect's page."""
    lines = []
    for on in comparison.corpora:
        heads = (
            "system", *(TITLES[side] for side in DIRECTIONS), f"mean {HEADLINE}, pool {on.pool}",
            f"against {label(BASE)}", "by seed", "R@1", "weights", "seconds",
        )  # fmt: skip
        lines += [f"**{_cell(on.corpus.shown)}**, {on.clips:,} clips", "", _line(heads), _line(["---"] * len(heads))]
        lines += [_line(_summary(row, on)) for row in on.rows]
        lines += [_line(_reference(name, row)) for name, row in references(_SUMMARY, on).items()]
        lines.append("")
    return "\n".join(lines).rstrip()


_SUMMARY = Table(0, "", (), (*((side, HEADLINE) for side in (*DIRECTIONS, MEAN)), (MEAN, "R@1")))


def _summary(row: str, on: CorpusFigures) -> list[str]:
    found = on.rows[row]
    a2t, t2a, mean, first = (found.figures[column] for column in _SUMMARY.columns)
    apart = on.compared(row, BASE)
    cost = list(found.costs.values())
    return [
        _cell(label(row)),
        f"{100 * a2t.value:.2f}",
        f"{100 * t2a.value:.2f}",
        f"{100 * mean.value:.2f} ({100 * mean.low:.2f} to {100 * mean.high:.2f})",
        "" if apart is None else "{:+.2f} ({:+.2f} to {:+.2f})".format(*points(apart.difference)),
        ", ".join(f"{100 * value:.2f}" for value in found.by_seed.values()),
        f"{100 * first.value:.2f}",
        f"{cost[0].parameters / 1e6:.2f} M",
        f"{sum(one.seconds for one in cost) / len(cost):.0f}",
    ]


def _reference(name: str, values: Sequence[float]) -> list[str]:
    a2t, t2a, mean, first = (f"{100 * value:.2f}" for value in values)
    return [name, a2t, t2a, mean, "", "", first, "", ""]


def points(difference: Interval) -> tuple[float, float, float]:
    """Return a difference of shares and its interval in percentage points."""
    return 100 * difference.value, 100 * difference.low, 100 * difference.high


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _percent(share: float) -> float:
    return round(100 * share, 4)
