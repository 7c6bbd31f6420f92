"""The summary that `make run` prints: a short table, and the results of a search."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from urllib.parse import urlencode

from fsclap.evaluation.report import PAGE
from fsclap.evaluation.results import FILE, Evaluation
from fsclap.evaluation.words import headline, interval, percent
from fsclap.retrieval import PORT
from fsclap.retrieval.export import PROMPTS, export_hits
from fsclap.retrieval.search import Searcher
from storage.corpus import Corpus
from storage.models import ModelStore
from storage.versions import CorpusVersion


def summary(location: str, models: str, followers: list[str]) -> str:
    """Format a table of the corpus, its refusals, the time of each stage and the model.

    Args:
        location: The corpus.
        models: Folder of the models.
        followers: How each flow after the build ended, as "name: state".
    """
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


def answers(index: Path, query: str, folder: Path) -> str:
    """Search the index, write the clips to a folder, and format the results and the next commands.

    Args:
        index: Folder of the index.
        query: A description of a voice.
        folder: Folder for the clips; it is replaced.
    """
    searcher = Searcher.open(index)
    record = searcher.index.record
    sound = CorpusVersion.open(record.corpus, record.version).audio
    shutil.rmtree(folder, ignore_errors=True)
    export_hits(searcher.search(query, top=3), sound, folder, query=query)
    lines = [f'\nsearch  "{query}", written to {os.path.relpath(folder)}']
    for prompt in map(json.loads, (folder / PROMPTS).read_text(encoding="utf-8").splitlines()):
        lines += [f"{prompt['rank']:6d}  {prompt['score']:+.3f}  {prompt['caption']}"]
        lines += [f"                {(folder / prompt['audio']).resolve()}"]
    if ModelStore.open(Path(record.model).parent).promoted() is None:
        lines.append(
            "        The model did not beat chance on these clips: a corpus this small can hardly show that it does."
        )
    page = f"http://127.0.0.1:{PORT}/?{urlencode({'query': query})}"
    lines += ["", 'search yourself  .venv/bin/fsclap search "a weary voice, speaking slowly" --top 5']
    lines += [f"search page      .venv/bin/fsclap app, then {page}"]
    return "\n".join(lines)


def evaluation_of(models: str, corpus: str, version: int) -> Path | None:
    """Return the folder of the newest evaluation on a corpus version; None if there is none."""
    files = Path(models).glob(f"*/evaluation/{Path(corpus).name}-v{version}/{FILE}")
    newest = max(files, key=lambda path: path.stat().st_mtime_ns, default=None)
    return newest.parent if newest else None


def model_rows(models: str, folder: Path | None) -> list[tuple[str, str]]:
    """Format the rows of an evaluated model: whether it is current, its figures, its report."""
    if folder is None:
        return [("model", "no model was evaluated on this version")]
    evaluation = Evaluation.load(folder / FILE)
    current = ModelStore.open(models).promoted()
    state = "the current one" if current and current.model == Path(evaluation.model).name else "not the current one"
    rows = [("model", f"{evaluation.model}, {state}")]
    row = headline(evaluation)
    if row is None:
        rows.append(("figures", "none: the model leaks" if evaluation.leak.leaks else "none"))
    else:
        at = f"of {row.pool} clips of speakers not in training, mean of both directions"
        for name in ("mAP@10", "R@10"):
            rows.append((name, f"{interval(row.metrics[name])}, chance {percent(row.chance[name])}, {at}"))
    return [*rows, ("report", (folder / PAGE).resolve().as_uri())]
