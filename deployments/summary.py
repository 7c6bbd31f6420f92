"""The short table at the end of `make run`."""

from collections import Counter
from pathlib import Path

from fsclap.evaluation.report import FIGURES, PAGE, headline, interval, percent
from fsclap.evaluation.results import Evaluation
from storage.corpus import Corpus
from storage.models import ModelStore


def summary(location: str, models: str, followers: list[str]) -> str:
    """What a corpus holds, what it refused and why, what each stage cost, and the model that came of it."""
    corpus = Corpus.open(location)
    totals = corpus.totals()
    sources = list(corpus.ledger().values())
    seconds: Counter[str] = Counter()
    for source in sources:
        seconds.update(source["stage_seconds"])
    audio = totals.hours_in * 3600
    reasons = Counter(f"{row['stage']}: {row['reason']}" for row in corpus.rejects().to_pylist())
    rows = [
        ("episodes", "  ".join(f"{count} {status}" for status, count in totals.sources.items() if count)),
        ("audio", f"{totals.hours_in:.3f} h in, {totals.hours_out:.3f} h kept"),
        ("turns", f"{totals.turns_found} found = {totals.turns_kept} kept + {totals.turns_rejected} rejected"),
        *((f"  {reason}", str(count)) for reason, count in reasons.most_common()),
        ("speakers", str(totals.speakers)),
        *((f"  {stage}", f"{value:.1f} s, real-time factor {value / audio:.4f}") for stage, value in seconds.items()),
        ("compute", f"{sum(seconds.values()):.1f} s, real-time factor {sum(seconds.values()) / audio:.3f}"),
        *((line.split(":")[0], line.partition(": ")[2]) if ": " in line else ("", line) for line in followers),
        ("corpus", f"{location}, version {corpus.version()}"),
        ("card", Path(location, "card.html").resolve().as_uri()),
        *model_rows(models, evaluation_of(models, location, corpus.version())),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(["", *(f"{name:<{width}}  {value}" for name, value in rows)])


def evaluation_of(models: str, corpus: str, version: int) -> Path | None:
    """The newest evaluation on a corpus version, as its folder; None when there is none."""
    found = Path(models).glob(f"*/evaluation/{Path(corpus).name}-v{version}/{FIGURES}")
    newest = max(found, key=lambda path: path.stat().st_mtime_ns, default=None)
    return newest.parent if newest else None


def model_rows(models: str, folder: Path | None) -> list[tuple[str, str]]:
    """The model that was evaluated in a folder: whether it is the current one, its figures, its report."""
    if folder is None:
        return [("model", "none was evaluated on this version")]
    evaluation = Evaluation.load(folder / FIGURES)
    current = ModelStore.open(models).promoted()
    state = "the current one" if current and current.model == Path(evaluation.model).name else "not the current one"
    rows = [("model", f"{evaluation.model}, {state}")]
    row = headline(evaluation)
    if row is None:
        rows.append(("figures", "none: the model leaks" if evaluation.leak.leaks else "none"))
    else:
        at = f"of {row.pool} clips of speakers never heard, mean of both directions"
        for name in ("mAP@10", "R@10"):
            rows.append((name, f"{interval(row.metrics[name])}, chance {percent(row.chance[name])}, {at}"))
    return [*rows, ("report", (folder / PAGE).resolve().as_uri())]
