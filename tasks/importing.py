"""Published data sets become a corpus: one block of rows is one source, committed as a whole."""

import hashlib
import io
import itertools
import logging
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from fsclap.audio import encode_flac, resample
from fsclap.corpus.captioning.attributes import Attributes, measure
from fsclap.corpus.captioning.bins import load_bins
from fsclap.corpus.captioning.describe import style, usual
from fsclap.settings import complete, digest
from storage.captions import write_captions
from storage.card import PAGE, README, write_card
from storage.copies import upload
from storage.corpus import Corpus
from storage.importers import Check, Entry, ImportSettings, Preset, check, read_entries
from storage.importers.checking import require, sound_of
from storage.left_out import read_left_out
from storage.rights import state_found
from storage.schema import PUBLISHED
from tasks import notes
from tasks.outcomes import Committed, Published

log = logging.getLogger("fsclap.tasks")

ROWS = 256
"""Rows of a block: what a killed import does again."""
MAX_RATE = 24_000
"""Sound of a higher rate is brought to that of built corpora, Hz."""
REVISION = "import-1"
STAGE = "import"
_REJECT: dict[str, Any] = dict.fromkeys(("similarity", "speaker", "text"))

Row = dict[str, Any]


@dataclass(frozen=True)
class Block:
    """Rows that are committed together, all of one published part.

    Attributes:
        dataset: Name of the data set.
        split: Published part; empty if there is none.
        number: Number among the blocks of its part, from 0.
        entries: Rows.
        files: Name of a row's sound -> its file; None: there is none.
    """

    dataset: str
    split: str
    number: int
    entries: list[Entry]
    files: dict[str, Path | None]

    @property
    def series(self) -> str:
        """Name that `split.validation_series` and `split.test_series` of a training know the part by."""
        return f"{self.dataset}-{self.split}" if self.split else self.dataset

    @property
    def source_id(self) -> str:
        return hashlib.sha256(f"{self.series}/{self.number}".encode()).hexdigest()[:16]


@task(task_run_name="check {preset.name}", cache_policy=NO_CACHE)
def check_copy(root: str, preset: Preset, settings: ImportSettings) -> Check:
    """Say how much of a data set is there; refuse a copy with too little sound."""
    found = check(Path(root), preset, settings)
    for line in found.lines():
        log.info("%s: %s", preset.name, line)
    text = "\n".join(f"- `{line.strip()}`" for line in found.lines())
    create_markdown_artifact(text, key="import-check", description=f"{preset.name} in {root}")
    require(found, settings)
    return found


def blocks(root: str, preset: Preset, settings: ImportSettings) -> Iterator[Block]:
    """Cut the rows of a data set into blocks, in their order, one part at a time."""
    waiting: dict[str, list[Entry]] = defaultdict(list)
    numbers: dict[str, Iterator[int]] = defaultdict(itertools.count)
    sound = sound_of(Path(root), preset, settings)  # once: it looks at every file below the roots

    def block(split: str, entries: list[Entry]) -> Block:
        files = {entry.name: sound.find(entry.name, entry.source) for entry in entries if entry.audio is None}
        return Block(preset.name, split, next(numbers[split]), entries, files)

    for entry in read_entries(Path(root), preset, settings):
        waiting[entry.split].append(entry)
        if len(waiting[entry.split]) == ROWS:
            yield block(entry.split, waiting.pop(entry.split))
    for split, entries in waiting.items():
        yield block(split, entries)


@task(
    task_run_name="import {block.series} {block.number}",
    cache_policy=NO_CACHE,  # a commit is idempotent: the ledger knows what the corpus holds
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    timeout_seconds=3600,
)
def import_block(block: Block, root: str, corpus: str, settings: ImportSettings, licence: str = "") -> Committed | None:
    """Decode, measure and commit a block; None if the corpus has it already."""
    table = Corpus.open(corpus)
    state_found(table, {block.source_id: licence}, by="data set")
    recipe = _recipe(block, settings)
    known = table.ledger().get(block.source_id)
    if known is not None and known["recipe"] == recipe:
        return None
    identity: Row = {
        "source_id": block.source_id,
        "series": block.series,
        "episode": f"{block.number:05d}",
        "url": str(Path(root).resolve()),
        "recipe": recipe,
    }
    kept: list[Row] = []
    refused: list[Row] = []
    left_out = read_left_out(table)
    for number, entry in enumerate(block.entries):
        if left_out.has_speaker(_speaker(entry, block, number)):
            continue
        try:
            kept.append(_utterance(entry, number, block, block.files.get(entry.name)))
        except Unusable as error:
            refused.append(identity | _REJECT | {
                "stage": STAGE, "reason": error.reason, "detail": f"{entry.place}: {error}", "start": 0.0, "end": 0.0,
                "text": entry.text or None,
            })  # fmt: skip
    utterances = [identity | row for row in _described(kept, block)]
    seconds = sum(row["duration"] for row in utterances)
    turns_refused = len(refused)
    if not utterances:
        reason = {
            "stage": STAGE,
            "reason": "empty",
            "detail": "no row of this block can be used",
            "start": None,
            "end": None,
        }
        refused.append(identity | _REJECT | reason)
    source: Row = identity | {
        "title": block.dataset,
        "status": "kept" if utterances else "rejected",
        "media_sha256": None,
        "sound": None,  # of a recording; this is a block of clips
        "duration": seconds,
        "turns_found": len(utterances) + turns_refused,
        "turns_kept": len(utterances),
        "turns_rejected": turns_refused,
        "stage_seconds": [],
    }
    with table.lock():
        captions = {row["utterance_id"]: _entry_of(row, block).captions for row in utterances}
        write_captions(table, block.source_id, captions)
        table.commit_source(source, utterances=utterances, rejects=refused)
    return Committed(
        source_id=block.source_id, series=block.series, episode=source["episode"], status=source["status"],
        seconds=seconds, found=source["turns_found"], kept=source["turns_kept"], rejected=source["turns_rejected"],
        why="" if utterances else "no row of this block can be used",
    )  # fmt: skip


@task(task_run_name="publish {corpus}", cache_policy=NO_CACHE, retries=1, timeout_seconds=3600)
def publish_import(corpus: str, done: list[Committed], found: Check, settings: ImportSettings) -> Published:
    """Write the corpus card and show this run's outcome as artifacts."""
    table = Corpus.open(corpus)
    with TemporaryDirectory() as scratch, table.lock():
        totals, version = table.totals(), table.version()
        shown = complete(settings) | {"terms": found.licence}
        title = f"Imported: {table.place.name}"
        write_card(table, title=title, settings=shown, threshold=None, folder=Path(scratch))
        upload(Path(scratch), table.place, last=[README])
    create_table_artifact(notes.episodes_table(done), key="import-blocks", description=notes.build_summary(done))
    rejects = notes.rejects_table(table.rejects().to_pylist())
    create_table_artifact(rejects, key="import-rejects", description="Refused so far, by reason")
    return Published(
        corpus=corpus, version=version, utterances=totals.turns_kept, hours=totals.hours_out,
        changed_sources=len(done), new=bool(done), card=f"{table.location}/{PAGE}",
    )  # fmt: skip


class Unusable(Exception):  # noqa: N818 (an outcome)
    """A row that can't become a clip, with a short code and a reason for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def _recipe(block: Block, settings: ImportSettings) -> str:
    """Hash all that the rows of a block depend on; files by size and time, so that nothing is read."""
    rows = []
    for entry in block.entries:
        path = block.files.get(entry.name)
        stat = path.stat() if path is not None else None
        sound = hashlib.sha256(entry.audio).hexdigest() if entry.audio is not None else None
        seen = [str(path), stat.st_size, stat.st_mtime_ns] if stat is not None else sound
        rows.append([asdict(replace(entry, audio=None)), seen])
    return digest([REVISION, rows, settings.model_dump(mode="json", include={"strip_transcript"})])


def _utterance(entry: Entry, number: int, block: Block, path: Path | None) -> Row:
    if entry.problem:
        raise Unusable("unusable_row", entry.problem)
    wave, rate = _decoded(entry, path)
    id_ = f"{block.source_id}-{number:05d}"
    return {
        "utterance_id": id_,
        "title": block.dataset,
        "start": 0.0,
        "end": len(wave) / rate,
        "duration": len(wave) / rate,
        "speaker": _speaker(entry, block, number),
        "similarity": None,
        "text": entry.text,
        "text_confidence": None,
        "kind": "speech",
        "language": entry.language,
        "tagger_text": None,
        "emotion": entry.style.get("emotion"),
        "emotion_confidence": None,
        "events": [],
        "quality": None,
        "overlap": None,
        "attributes": asdict(measure(wave, rate)),
        "caption": entry.captions[0],
        "caption_source": block.dataset,
        "audio": {"bytes": encode_flac(wave, rate), "path": f"{id_}.flac"},
        "sample_rate": rate,
        "speaker_embedding": [],  # the data set says who speaks
        "separation_engine": "none",
        "diarization_engine": REVISION,
        "captioning_engine": REVISION,
    }


def _speaker(entry: Entry, block: Block, number: int) -> str:
    return f"{PUBLISHED}{block.dataset}/{entry.speaker or f'unknown-{block.source_id}-{number:05d}'}"


def _decoded(entry: Entry, path: Path | None) -> tuple[np.ndarray, int]:
    if entry.audio is None and path is None:
        raise Unusable("no_sound", f"{entry.name} is not there, or several files have that name")
    try:
        samples, rate = soundfile.read(
            io.BytesIO(entry.audio) if entry.audio is not None else path, dtype="float32", always_2d=True
        )
    except (soundfile.LibsndfileError, OSError) as error:
        raise Unusable("unreadable_sound", f"{path or 'the sound in the table'} can't be decoded: {error}") from error
    wave = samples.mean(axis=1)
    if not len(wave) or not np.isfinite(wave).all() or not wave.any():
        raise Unusable("silent", f"{path or 'the sound in the table'} holds no sound")
    return (resample(wave, rate, MAX_RATE), MAX_RATE) if rate > MAX_RATE else (wave, rate)


def _described(rows: list[Row], block: Block) -> Iterator[Row]:
    """Add the style: the published labels, or else the words for what was measured."""
    attributes = [Attributes(**row["attributes"]) for row in rows]
    known = usual(attributes, [row["speaker"] for row in rows])
    bins = load_bins(None)
    for row, measured in zip(rows, attributes, strict=True):
        labels = _entry_of(row, block).style
        words = labels or style(measured, known[row["speaker"]], bins=bins)
        yield row | {"style": words, "style_key": ";".join(f"{name}={word}" for name, word in sorted(words.items()))}


def _entry_of(row: Row, block: Block) -> Entry:
    return block.entries[int(row["utterance_id"].rsplit("-", 1)[1])]
