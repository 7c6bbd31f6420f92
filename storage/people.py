"""Take people out of a corpus: all rows of a speaker in all sources, now and in every later build of them.

What a build has to leave out is in `left-out.json` (`storage.left_out`). `forget_speakers` makes a new version;
earlier ones still have the rows until `storage.erasure` writes the past again.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset

from storage.corpus import Corpus
from storage.left_out import Gaps, LeftOut, add_left_out, leaving, merged
from storage.rows import CorpusError
from storage.schema import PUBLISHED

_TURN = ["source_id", "speaker", "start", "end"]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was taken out of a corpus.

    Attributes:
        sources: The sources that had rows of the people, sorted.
        speakers: Their names there, sorted.
        clips: Number of utterances that were taken out.
        turns: Number of refused turns that were.
        of_others: How many of the utterances have another speaker's name: the people speak in most of them.
    """

    sources: tuple[str, ...]
    speakers: tuple[str, ...]
    clips: int
    turns: int
    of_others: int


def speakers_of(corpus: Corpus, person: str) -> frozenset[str]:
    """Return all speakers that are one person, whose name, or the name of one of them, is given.

    Args:
        corpus: The corpus.
        person: As in `speakers.parquet`, where builds link the speakers of a series, or as in the utterances.

    Raises:
        CorpusError: The corpus has no such person.
    """
    linked = {row["speaker"]: row["linked_speaker"] for row in corpus.speakers().to_pylist()}
    known = linked.get(person, person)
    return _existing(corpus, person, {speaker for speaker, other in linked.items() if other == known} | {person})


def one_speaker(corpus: Corpus, name: str) -> frozenset[str]:
    """Return the one speaker of this name.

    Raises:
        CorpusError: The corpus has none.
    """
    return _existing(corpus, name, {name})


def _existing(corpus: Corpus, given: str, speakers: set[str]) -> frozenset[str]:
    names = set(corpus.utterances(columns=["speaker"])["speaker"].unique().to_pylist())
    names.update(filter(None, corpus.rejects()["speaker"].unique().to_pylist()))
    if not speakers & names:
        alike = difflib.get_close_matches(given, sorted(names), n=3)
        close = f"; close to it are {', '.join(alike)}" if alike else ""
        raise CorpusError(
            f"no speaker of {corpus.location} is called {given!r}{close}. The column speaker of the utterances has the "
            "names, and speakers.parquet says who is who. `forget --erase` without a name erases people who were "
            "forgotten before"
        )
    return frozenset(speakers & names)


def forget_speakers(corpus: Corpus, speakers: Iterable[str]) -> Forgotten:
    """Take all rows of speakers out of the corpus, which no later build makes again.

    Can be repeated after an interruption. The caller holds `Corpus.lock`.

    Args:
        corpus: The corpus.
        speakers: Names as in the utterances.

    Raises:
        CorpusError: A table can't be read or written to.
    """
    names = frozenset(speakers)
    theirs = _turns_of(corpus, names)
    ledger = corpus.ledger()
    gaps = {
        source_id: Gaps(_recordings(ledger.get(source_id)), merged(spans))
        for source_id, spans in _spans(theirs).items()
    }
    # First of all: from now on, no commit brings them back.
    left_out = add_left_out(corpus, gaps, (name for name in names if name.startswith(PUBLISHED)))
    sources = sorted(set(theirs["source_id"].to_pylist()) & ledger.keys())
    counts = np.sum([_commit_rest(corpus, ledger[each], left_out, names) for each in sources] or [(0, 0, 0)], axis=0)
    if len(corpus.speakers()):
        corpus.write_speakers(remaining_speakers(corpus))
    return Forgotten(tuple(sources), tuple(sorted(names)), *counts.tolist())


def _turns_of(corpus: Corpus, names: frozenset[str]) -> pa.Table:
    chosen = pyarrow.dataset.field("speaker").isin(sorted(names))
    tables = [corpus.dataset(name).to_table(columns=_TURN, filter=chosen) for name in ("utterances", "rejects")]
    return pa.concat_tables(tables, promote_options="permissive")


def _spans(turns: pa.Table) -> dict[str, list[tuple[float, float]]]:
    spans: dict[str, list[tuple[float, float]]] = {}
    for row in turns.to_pylist():
        if not row["speaker"].startswith(PUBLISHED) and row["start"] is not None:
            spans.setdefault(row["source_id"], []).append((row["start"], row["end"]))
    return spans


def _recordings(row: dict[str, Any] | None) -> frozenset[str]:
    return frozenset({row["media_sha256"]} if row and row["media_sha256"] else ())


def _commit_rest(corpus: Corpus, row: dict[str, Any], left_out: LeftOut, names: frozenset[str]) -> tuple[int, int, int]:
    """Commit a source without the people; return the numbers of utterances, turns and other speakers' utterances."""
    own = pyarrow.dataset.field("source_id") == row["source_id"]
    tables = [corpus.dataset(name).to_table(filter=own) for name in ("utterances", "rejects")]
    turns = pa.concat_tables([table.select(_TURN) for table in tables], promote_options="permissive")
    goes = leaving(left_out, turns)
    gone = [goes[: len(tables[0])], goes[len(tables[0]) :]]
    utterances, rejects = (table.filter(pa.array(~mask)) for table, mask in zip(tables, gone, strict=True))
    of_others = tables[0].filter(pa.array(gone[0]))["speaker"].to_pylist()
    refused = len(rejects) - rejects["start"].null_count
    changed = {"turns_found": len(utterances) + refused, "turns_kept": len(utterances), "turns_rejected": refused}
    source = {key: value for key, value in row.items() if key != "committed_at"} | changed
    source["stage_seconds"] = list(row["stage_seconds"].items())
    corpus.commit_source(source, utterances=utterances, rejects=rejects)
    return int(gone[0].sum()), int(gone[1].sum()), sum(name not in names for name in of_others)


def remaining_speakers(corpus: Corpus) -> list[dict[str, Any]]:
    """Return the rows of speakers who have utterances; a person whose name is gone gets that of another speaker."""
    there = set(corpus.utterances(columns=["speaker"])["speaker"].to_pylist())
    rows = [row for row in corpus.speakers().to_pylist() if row["speaker"] in there]
    names: dict[str, str] = {}
    for row in rows:
        person = row["linked_speaker"]
        names.setdefault(person, person if person in there else row["speaker"])
    return [{**row, "linked_speaker": names[row["linked_speaker"]]} for row in rows]
