"""The text and tables of the artifacts that flows leave in Prefect's UI."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fsclap.evaluation.results import ALL_WORDS, AUDIBLE, Evaluation, Natural
from fsclap.evaluation.words import (
    HEADLINE,
    headline,
    interval,
    judged_meaning,
    meaning,
    natural_header,
    natural_meaning,
    natural_rows,
)
from storage.card import CardPaths, data_uri, escape_markdown
from tasks.outcomes import Committed, Compared, EvaluatedModel, Indexed, TrainedModel

TABLE_ROWS = 100
"""Artifacts lie in Prefect's database, so they show the first rows; the corpus holds them all."""


def build_summary(done: Sequence[Committed]) -> str:
    """Count the episodes and turns of a build."""
    kept, found = sum(row.kept for row in done), sum(row.found for row in done)
    states = Counter(row.status for row in done)
    return (
        f"{len(done)} episodes in this run: {states['kept']} kept, {states['rejected']} rejected, "
        f"{states['failed']} failed. {found} turns found: {kept} kept, {found - kept} rejected. "
        f"At most {TABLE_ROWS} rows are shown; the sources table of the corpus has all."
    )


def refused_shares(done: Sequence[Committed]) -> dict[str, float]:
    """Return the shares, 0 to 1, of a run's episodes and turns that were not kept; a failed episode counts as one."""
    found = sum(row.found for row in done)
    return {
        "episodes": sum(row.status != "kept" for row in done) / max(1, len(done)),
        "turns": sum(row.found - row.kept for row in done) / max(1, found),
    }


def refused_text(done: Sequence[Committed], most: float) -> str:
    """Say how much a run refused, and the most frequent reasons of episodes."""
    shares, turns = refused_shares(done), sum(row.found for row in done)
    reasons = Counter(row.why for row in done if row.status != "kept" and row.why)
    named = "".join(f"; {count} x {why}" for why, count in reasons.most_common(3))
    return (
        f"{shares['episodes']:.0%} of {len(done)} episodes and {shares['turns']:.0%} of {turns} turns were refused, "
        f"more than {most:.0%} (refused_percent){named}. The artifact build-rejects has all reasons."
    )


def episodes_table(done: Sequence[Committed]) -> list[dict[str, Any]]:
    """List the episodes of a build, those that were not kept first."""
    rows = [row.model_dump(exclude={"source_id", "changed"}) for row in done]
    return sorted(rows, key=lambda row: row["status"] == "kept")[:TABLE_ROWS]


def rejects_table(rejects: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Count the rejects of a corpus by stage and reason."""
    counts = Counter((row["stage"], row["reason"]) for row in rejects)
    return [{"stage": stage, "reason": reason, "count": n} for (stage, reason), n in counts.most_common(TABLE_ROWS)]


def card_text(card: CardPaths) -> str:
    """Inline the plots into the card's text and drop the YAML block, which only a model hub reads."""
    text = card.readme.read_text().split("\n---\n", 1)[1]
    for plot in card.plots.values():
        text = text.replace(f"](plots/{plot.name})", f"]({data_uri(plot.read_bytes(), 'image/png')})")
    return text


def training_text(trained: TrainedModel, curves: bytes) -> str:
    """Describe a training, with its curves as a PNG."""
    parts = ", ".join(f"{count:,} {part}" for part, count in trained.clips.items())
    return (
        f"# `{trained.model}`\n\nTrained on `{trained.corpus}` version {trained.version} ({parts} clips). "
        f"Validation mAP@10, mean of both directions: {100 * trained.validation:.2f} %. Kept: {trained.kept}."
        f"\n\n![Training curves]({data_uri(curves, 'image/png')})"
    )


def evaluation_text(evaluated: EvaluatedModel, evaluation: Evaluation, report: Path) -> str:
    """Describe an evaluation: the headline or the leak, the verdict, the map of the embeddings."""
    row = headline(evaluation)
    model, corpus = escape_markdown(evaluated.model), escape_markdown(evaluated.corpus)
    lines = [f"# {model} on {corpus} version {evaluated.version}"]
    if evaluated.leaks:
        probe = evaluation.leak
        lines.append(
            "**This model leaks: no retrieval figure is printed.** Among unrelated pairs it finds the partner in "
            f"{100 * max(probe.noise_r1, probe.shuffled_r1):.1f} %; chance is {100 * probe.chance:.1f} %."
        )
    elif row is not None:
        metric = HEADLINE[1]
        lines.append(f"## {metric}: {interval(row.metrics[metric])}")
        lines.append(f"Mean of both directions, {row.pool:,} clips in the pool. {meaning(evaluation)}")
    if evaluation.natural is not None and not evaluated.leaks:
        lines += _natural_text(evaluation.natural)
    if evaluation.judged is not None and not evaluated.leaks:
        lines.append(judged_meaning(evaluation.judged))
    state = "The current model now" if evaluated.promoted else "Not promoted"
    lines.append(f"**{state}**: {escape_markdown(evaluated.reason)}.")
    image = data_uri((report.parent / "map.png").read_bytes(), "image/png")
    lines.append(f"![Map of the embeddings]({image})")
    return "\n\n".join(lines)


def comparison_text(compared: Compared) -> str:
    """Show the figures of a comparison, and how much of it there is."""
    missing = f", {compared.missing} of them without figures" if compared.missing else ""
    return f"# Systems compared\n\n{compared.cells} cells{missing}. `{compared.report}`\n\n{compared.figures}"


def _natural_text(natural: Natural) -> list[str]:
    """Write what queries as people type them say, and the table of rankings."""
    rows = natural_rows(natural)
    cells = [natural_header(), ("---",) * 3, *rows] if rows else []
    table = "\n".join(f"| {' | '.join(row)} |" for row in cells)
    return [natural_meaning(natural), *([table] if table else [])]


def metrics_table(evaluation: Evaluation) -> list[dict[str, str | int]]:
    """List every retrieval figure in %, with its interval, chance and the attribute match."""
    rows = []
    for row in evaluation.retrieval:
        cells: dict[str, str | int] = {
            "mode": row.mode,
            "pool": row.pool,
            "direction": row.direction,
            "stage": row.stage,
        }
        for name, figure in row.metrics.items():
            cells[name] = f"{100 * figure.value:.1f} ({100 * figure.low:.1f} to {100 * figure.high:.1f})"
            cells[f"{name} chance"] = f"{100 * row.chance[name]:.1f}"
            for stage in (AUDIBLE, ALL_WORDS):
                if matched := evaluation.match(row, stage):
                    cells[f"{name} {stage}"] = f"{100 * matched.metrics[name].value:.1f}"
        rows.append(cells)
    return rows


def index_text(indexed: Indexed) -> str:
    """Describe an index, and give the commands to search it."""
    lines = [
        f"# {escape_markdown(indexed.index)}",
        f"{indexed.clips:,} clips and {indexed.captions:,} captions of {escape_markdown(indexed.corpus)} version "
        f"{indexed.version}, embedded with {escape_markdown(indexed.model)}.",
    ]
    if not indexed.current:
        lines.append("**No model was promoted yet**: this is the newest one. Do not trust its results.")
    if indexed.left_out:
        lines.append(f"{indexed.left_out:,} clips could not be decoded; `index.json` names them.")
    lines.append(
        f'```\nfsclap search "a weary voice, speaking slowly" --index {indexed.index}\n'
        f"fsclap app --index {indexed.index}\n```"
    )
    return "\n\n".join(lines)
