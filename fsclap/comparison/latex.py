"""The tables in LaTeX, for booktabs: one `table` per table and corpus."""

from collections.abc import Iterator

from fsclap.comparison.compare import Comparison, CorpusFigures
from fsclap.comparison.settings import label
from fsclap.comparison.tables import PARTS, TITLES, Entry, Table, entries, references, tables

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def latex(comparison: Comparison) -> str:
    """Write all tables; they need the packages booktabs, and amssymb for the ticks of Table 3."""
    blocks = [
        "% Figures in %, with 95 % bootstrap intervals over clips below them.",
        r"% p: what the FS-CLAP paper prints, on other clips. Packages: booktabs, amssymb.",
    ]
    for table in tables(comparison):
        blocks += ["\n".join(_table(table, on)) for on in comparison.corpora if entries(table, on)]
    return "\n\n".join(blocks) + "\n"


def _table(table: Table, on: CorpusFigures) -> Iterator[str]:
    marks = table.number == 3
    yield r"\begin{table}"
    yield r"\centering"
    seeds = max(len(row.by_seed) for row in on.rows.values())
    yield (
        rf"\caption{{{table.title} on {escaped(on.corpus.shown)}: pools of {on.pool} of {on.clips:,} clips, "
        rf"mean of {seeds} {'seed' if seeds == 1 else 'seeds'}.}}"
    )
    yield rf"\begin{{tabular}}{{l{'ccc' if marks else ''}{'c' * len(table.columns)}}}"
    yield r"\toprule"
    heads = [escaped(f"{metric}, {TITLES[side]}") for side, metric in table.columns]
    yield _row(["Model", *(["FU", "SE", "HN"] if marks else []), *heads])
    yield r"\midrule"
    for row, found in entries(table, on).items():
        parts = [r"$\checkmark$" if part in PARTS[row] else r"$\times$" for part in ("FU", "SE", "HN")] if marks else []
        yield _row([escaped(label(row)), *parts, *map(_entry, found)])
    yield r"\midrule"
    for name, values in references(table, on).items():
        yield _row([escaped(name), *([""] * 3 if marks else []), *(f"{100 * value:.1f}" for value in values)])
    yield r"\bottomrule"
    yield r"\end{tabular}"
    yield r"\end{table}"


def _entry(entry: Entry) -> str:
    value = f"{100 * entry.found.value:.1f}"
    value = {1: rf"\textbf{{{value}}}", 2: rf"\underline{{{value}}}"}.get(entry.place, value)
    low, high = 100 * entry.found.low, 100 * entry.found.high
    text = rf"{value} {{\scriptsize [{low:.1f}, {high:.1f}]}}"
    return text if entry.paper is None else rf"{text} {{\scriptsize\textit{{p: {entry.paper:.1f}}}}}"


def _row(cells: list[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def escaped(text: str) -> str:
    """Return text as LaTeX prints it."""
    return "".join(_SPECIAL.get(letter, letter) for letter in " ".join(text.split()))
