"""The short table at the end of `make run`."""

from collections import Counter

from storage.corpus import Corpus


def summary(location: str, followers: list[str]) -> str:
    """What a corpus holds, what it refused and why, and what each stage cost."""
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
        ("card", f"{location}/card.html"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(["", *(f"{name:<{width}}  {value}" for name, value in rows)])
