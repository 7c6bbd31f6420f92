"""What a comparison found, in sentences."""

from fsclap.comparison.compare import HEADLINE, MEAN, Comparison, CorpusFigures
from fsclap.comparison.settings import ABLATION, FULL, label
from fsclap.evaluation.words import interval, points


def finding(on: CorpusFigures) -> str:
    """Say which row is first on a corpus, and from which others it can be told."""
    best = max(systems_of(on), key=lambda row: on.rows[row].figures[MEAN, HEADLINE].value)
    text = (
        f"{label(best)} is first: {HEADLINE} {interval(on.rows[best].figures[MEAN, HEADLINE])}, mean of both "
        f"directions, in pools of {on.pool:,} clips. A random order reaches {100 * on.chance[HEADLINE]:.1f} %."
    )
    others = {row: found for row in systems_of(on) if (found := on.compared(best, row)) is not None}
    beaten = [label(row) for row, found in others.items() if found.significant]
    close = [label(row) for row, found in others.items() if not found.significant]
    if beaten:
        text += f" It exceeds {_listed(beaten)} by more than chance."
    if close:
        text += f" These clips can't tell it from {_listed(close)}."
    if best != FULL and (ours := on.compared(best, FULL)) is not None:
        text += f" {label(FULL)} is {points(ours.difference)} behind it, {_verdict(ours.significant)}."
    return text


def systems_of(on: CorpusFigures) -> list[str]:
    """Return the rows of Tables 1 and 2; those of Table 3 alone if there are no others."""
    return [row for row in on.rows if row not in ABLATION] or list(on.rows)


def coverage(comparison: Comparison) -> str:
    """Say how many cells there are, and how many have figures."""
    grid, missing = comparison.grid, len(comparison.missing)
    rows = len(grid.settings.rows())
    text = f"{rows} rows x {len(grid.corpora)} corpora x {grid.settings.seeds} seeds = {len(grid.cells)} cells"
    return f"{text}, all with figures" if not missing else f"{text}; {missing} have no figures yet and are listed below"


def _verdict(significant: bool) -> str:
    return "which is more than chance" if significant else "which may be chance"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
