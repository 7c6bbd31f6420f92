"""Parquet shards: one idempotent transaction per source, rows and refusals alike."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from fsclap.audio import encode_flac, read_wave
from fsclap.corpus.download import REASONS_OF_ADDRESSES
from fsclap.corpus.filtering import selection
from fsclap.corpus.fingerprint import SLACK, from_text, same_sound
from fsclap.corpus.turns import Dropped
from fsclap.timeline import Timeline
from storage.claims import claim
from storage.corpus import Corpus, SourceRows
from storage.left_out import LeftOut, Spans, read_left_out
from storage.requests import clear_requests
from storage.rights import state_found
from storage.sounds import add_sound, read_sounds
from storage.work import WorkStore
from tasks.batches import Batch, Item, Refusal
from tasks.declared import Plan
from tasks.left_out import of_another_recording, seconds_left_out, without_left_out
from tasks.outcomes import Committed
from tasks.outputs import (
    DIARIZATION,
    DOWNLOAD,
    DUPLICATE,
    SEPARATION,
    VOCALS,
    read_attributes,
    read_descriptions,
    read_dropped,
    read_qualities,
    read_tags,
    read_verdicts,
    timeline_of,
    turns_of,
    utterance_id,
)
from tasks.stages import Outcome, folder, outcome

log = logging.getLogger("fsclap.tasks")

Row = dict[str, Any]

GROUP_BYTES = 32_000_000
"""Sound of sources that are committed together. They share a shard, which is written again when one is replaced."""
FINAL_DOWNLOADS = REASONS_OF_ADDRESSES | {DUPLICATE}
"""Reasons for which a download is refused whatever its server does."""


@task(
    task_run_name="commit {batch.name}",
    cache_policy=NO_CACHE,  # a commit is idempotent: the table knows what it holds
    retries=3,
    retry_delay_seconds=exponential_backoff(2),
    timeout_seconds=3600,
)
def commit(batch: Batch, corpus: str, work: str, plan: Plan) -> list[Committed]:
    """Commit the rows and the refusals of a batch, small sources together."""
    store = WorkStore(work)
    table = Corpus.open(corpus)
    # Under the lock, so that two runs see each other when they commit one recording under two addresses.
    with table.lock():
        kept = _Kept(table.ledger().values(), read_sounds(table), read_left_out(table))
        state_found(table, _licences(batch, store), by="site")
        done = [
            committed
            for group in _groups(_prepared(item, table, kept, store, plan) for item in batch.items)
            for committed in _commit_group(group, table, kept, store)
        ]
        clear_requests(table, [row.source_id for row in done if row.status != "failed"])
    if plan.settings.disk.work_files == "drop":
        _drop_outputs(batch, done, store)
    return done


def _licences(batch: Batch, store: WorkStore) -> dict[str, str]:
    """Source id -> the licence that its page states."""
    fetched = [item for item in batch.alive if DOWNLOAD in item.steps]
    return {item.episode.source_id: outcome(store, item.steps[DOWNLOAD]).facts.get("licence", "") for item in fetched}


def _drop_outputs(batch: Batch, done: list[Committed], store: WorkStore) -> None:
    """Remove the outputs of what is kept; those of a refusal tell later builds whether to ask again."""
    kept = {row.source_id for row in done if row.status == "kept"}
    for item in batch.items:
        if item.episode.source_id in kept:
            for step in item.steps.values():
                store.discard(step)


class _Kept:
    """The sources that the corpus keeps at the moment, by id and by the bytes of their recording.

    Attributes:
        sounds: Fingerprints of recordings, read once per batch: two kilobytes for each source of the corpus.
        left_out: What is left out of sources.
    """

    def __init__(self, ledger: Iterable[Row], sounds: np.ndarray, left_out: LeftOut) -> None:
        self.by_id = {row["source_id"]: row for row in ledger if row["status"] == "kept"}
        self.by_media = {row["media_sha256"]: row for row in self.by_id.values()}
        self.sounds = sounds
        self.left_out = left_out

    def note(self, source: Row) -> None:
        """Note a commit: what the source was before counts no more, unless it failed now."""
        if source["status"] == "failed" and source["source_id"] in self.by_id:
            return
        before = self.by_id.pop(source["source_id"], None)
        if before is not None and self.by_media.get(before["media_sha256"]) is before:
            del self.by_media[before["media_sha256"]]
        if source["status"] == "kept":
            self.by_id[source["source_id"]] = self.by_media[source["media_sha256"]] = source


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """What is about to be committed of an item.

    Attributes:
        why: Why it was refused.
        nbytes: Bytes of its sound.
    """

    item: Item
    rows: SourceRows
    why: str
    nbytes: int


def _prepared(item: Item, corpus: Corpus, kept: _Kept, store: WorkStore, plan: Plan) -> _Prepared:
    """Make the rows of an item. From now on it counts as kept: the next one may be a duplicate of it."""
    item = _spared(_without_duplicate(item, corpus, kept, store), kept)
    seconds = _seconds_left_out(item, kept, store) if item.alive else ()
    item = of_another_recording(item) if seconds is None else item
    utterances, rejects = _rows(item, store, plan) if item.alive else ([], [])
    utterances, rejects = without_left_out(utterances, rejects, seconds or ())
    source = _source_row(item, store, plan, kept=len(utterances), rejected=len(rejects))
    why = _detail(item, store)
    if item.refusal is not None:
        rejects = [_reject(_identity(item, plan), item.refusal.stage, item.refusal.reason, why)]
    kept.note(source)
    nbytes = sum(len(row["audio"]["bytes"]) for row in utterances)
    return _Prepared(item, SourceRows(source, utterances, rejects), why, nbytes)


def _groups(items: Iterable[_Prepared]) -> Iterator[list[_Prepared]]:
    """Divide items into groups of GROUP_BYTES, one by one as they are prepared."""
    group: list[_Prepared] = []
    for one in items:
        group.append(one)
        if sum(other.nbytes for other in group) >= GROUP_BYTES:
            yield group
            group = []
    if group:
        yield group


def _commit_group(group: Sequence[_Prepared], corpus: Corpus, kept: _Kept, store: WorkStore) -> Iterator[Committed]:
    outcomes = corpus.commit_sources([one.rows for one in group])
    for one, done in zip(group, outcomes, strict=True):
        source, why = one.rows.source, one.why
        if source["status"] == "kept":
            why = _note_sound(one.item, corpus, kept, store)
        log.info(
            "commit: %s %s: %d kept, %d rejected",
            source["series"],
            source["episode"],
            source["turns_kept"],
            source["turns_rejected"],
        )
        yield Committed.of(source, why=why, committed=done == "committed")


def _note_sound(item: Item, corpus: Corpus, kept: _Kept, store: WorkStore) -> str:
    """Note how a recording sounds; tell when another source has the same sound in other bytes."""
    facts = outcome(store, item.steps[SEPARATION]).facts
    if "fingerprint" not in facts:
        return ""
    bits, source_id = from_text(facts["fingerprint"]), item.episode.source_id
    known = kept.sounds
    ids = [value.decode() for value in known["source_id"].tolist()]
    alike = np.abs(known["duration"] - facts["duration"]) <= 2 * SLACK
    others = np.flatnonzero(alike & np.array([other in kept.by_id and other != source_id for other in ids], bool))
    twins = others[same_sound(bits, known["bits"][others])]
    twin = ids[twins[0]] if len(twins) else ""
    if source_id not in ids or not np.array_equal(known["bits"][ids.index(source_id)], bits):
        record = add_sound(corpus, source_id, twin=twin, duration=facts["duration"], bits=bits)
        kept.sounds = np.concatenate([known[np.array(ids, str) != source_id], record])
    if not twin:
        return ""
    why = (
        f"{item.episode.locator} sounds like {kept.by_id[twin]['url']}, which is in the corpus: the same recording "
        f"twice? `fsclap corpus forget` takes one out ({source_id} or {twin})"
    )
    log.warning("commit: %s", why)
    return why


def _seconds_left_out(item: Item, kept: _Kept, store: WorkStore) -> Spans | None:
    if not kept.left_out:
        return ()
    facts = outcome(store, item.steps[SEPARATION]).facts
    return seconds_left_out(item, _media_sha256(item, store), facts, kept.left_out, kept.sounds)


def _detail(item: Item, store: WorkStore) -> str:
    """Say why an item was refused. The file has another name in the work store than its user knows."""
    if item.refusal is None:
        return ""
    detail, step = item.refusal.detail, item.steps.get(DOWNLOAD)
    file = "" if step is None else outcome(store, step).facts["file"]
    return f"{item.episode.locator}{detail[len(file) :]}" if file and detail.startswith(file) else detail


def _spared(item: Item, kept: _Kept) -> Item:
    """Let a download that was refused fail instead where an earlier run kept the recording.

    The server may have a bad hour, or the recording be gone: what was kept stays.
    """
    refusal = item.refusal
    outside = refusal is not None and refusal.stage == DOWNLOAD and refusal.reason not in FINAL_DOWNLOADS
    if refusal is None or not outside or item.episode.source_id not in kept.by_id:
        return item
    return item.refused(refusal.model_copy(update={"transient": True}))


def _without_duplicate(item: Item, corpus: Corpus, kept: _Kept, store: WorkStore) -> Item:
    """Refuse bytes that another address has already committed, or is committing: they are the same recording."""
    recording = _media_sha256(item, store)
    if not item.alive or recording is None:
        return item
    source_id, twin = item.episode.source_id, kept.by_media.get(recording)
    where = "" if twin is None or twin["source_id"] == source_id else f"{twin['url']}, which is in the corpus"
    if not where and not corpus.is_local:
        claimed = claim(corpus, recording, source_id, has=lambda other: _keeps(corpus, other, recording))
        where = f"source {claimed}, which another worker commits" if claimed else ""
    if not where:
        return item
    detail = f"{item.episode.locator}: the same bytes as {where}"
    return item.refused(Refusal(stage=DOWNLOAD, reason=DUPLICATE, detail=detail))


def _keeps(corpus: Corpus, source_id: str, recording: str) -> bool:
    row = corpus.ledger().get(source_id)
    return row is not None and row["status"] == "kept" and row["media_sha256"] == recording


def _rows(item: Item, store: WorkStore, plan: Plan) -> tuple[list[Row], list[Row]]:
    turns = turns_of(item, store)
    verdicts = read_verdicts(item, store)
    attributes = read_attributes(item, store)
    tags, qualities = read_tags(item, store, len(turns)), read_qualities(item, store, len(turns))
    overlaps = selection.overlaps(turns)
    descriptions = iter(read_descriptions(item, store))
    vocals, timeline = folder(store, item.steps[SEPARATION]) / VOCALS, timeline_of(item, store)
    identity, engines = _identity(item, plan), _engines(plan)
    utterances: list[Row] = []
    rejects = [_dropped(one, identity, timeline) for one in read_dropped(item, store)]
    for number, (turn, verdict) in enumerate(zip(turns, verdicts, strict=True)):
        start = timeline.player(turn.start)
        place: Row = {"start": start, "end": start + turn.duration, "similarity": verdict.similarity}
        place |= {"speaker": _speaker(item, turn.speaker), "text": turn.text}
        if not verdict.kept:
            rejects.append(_reject(identity, verdict.stage, verdict.reason or "", verdict.detail or "") | place)
            continue
        described, tag, quality = next(descriptions), tags[number], qualities[number]
        name = utterance_id(item.episode.source_id, number)
        clip, rate = read_wave(vocals, start=turn.start, end=turn.end)
        utterances.append(
            identity
            | engines
            | place
            | {
                "utterance_id": name,
                "title": item.episode.title,
                "duration": turn.duration,
                "text_confidence": turn.confidence,
                "kind": turn.kind,
                "language": turn.language or tag.language,
                "tagger_text": tag.text,
                "emotion": tag.emotion,
                "emotion_confidence": tag.confidence,
                "events": list(tag.events),
                "quality": None if quality is None else quality.overall,
                "overlap": overlaps[number],
                "attributes": asdict(attributes[number]),
                "style": described.style,
                "style_key": described.style_key,
                "caption": described.caption,
                "caption_source": described.caption_source,
                "audio": {"bytes": encode_flac(clip, rate), "path": f"{name}.flac"},
                "sample_rate": rate,
                "speaker_embedding": [] if turn.embedding is None else turn.embedding,
            }
        )
    return utterances, rejects


def _identity(item: Item, plan: Plan) -> Row:
    episode = item.episode
    return {
        "source_id": episode.source_id,
        "series": episode.series,
        "episode": episode.name,
        "url": episode.locator,
        "recipe": _recipe(item, plan),
    }


def _recipe(item: Item, plan: Plan) -> str:
    refusal = item.refusal
    if refusal is None or refusal.transient or refusal.reason == DUPLICATE:
        return plan.recipe(item.episode)
    return plan.refusal_recipe(item.episode, refusal.stage)


def _dropped(one: Dropped, identity: Row, timeline: Timeline) -> Row:
    start = timeline.player(one.start)
    place = {"start": start, "end": start + one.end - one.start}
    return _reject(identity, DIARIZATION, one.reason, one.detail) | place


def _reject(identity: Row, stage: str, reason: str, detail: str) -> Row:
    nothing = dict.fromkeys(("start", "end", "speaker", "similarity", "text"))
    return identity | nothing | {"stage": stage, "reason": reason, "detail": detail}


def _source_row(item: Item, store: WorkStore, plan: Plan, *, kept: int, rejected: int) -> Row:
    outcomes = _outcomes(item, store)
    return _identity(item, plan) | {
        "title": item.episode.title,
        "status": "kept" if item.refusal is None else "failed" if item.refusal.transient else "rejected",
        "media_sha256": _media_sha256(item, store),
        "duration": next((o.facts["duration"] for o in outcomes if "duration" in o.facts), None),
        "sound": next((_sound(o.facts) for o in outcomes if "sections" in o.facts), None),
        "turns_found": kept + rejected,
        "turns_kept": kept,
        "turns_rejected": rejected,
        "stage_seconds": [pair for o in outcomes for pair in o.seconds.items()],
    }


def _sound(facts: Row) -> Row:
    timeline = Timeline.of(facts["sections"])
    return {
        "track": facts["track"],
        "tracks": facts["tracks"],
        "start": timeline.sections[0].player,
        "holes": len(timeline.holes),
        "missing_seconds": sum(length for _, length in timeline.holes),
        "inverted_seconds": facts["inverted_seconds"],
    }


def _outcomes(item: Item, store: WorkStore) -> list[Outcome]:
    return [outcome(store, step) for step in item.steps.values()]


def _media_sha256(item: Item, store: WorkStore) -> str | None:
    step = item.steps.get(DOWNLOAD)
    return outcome(store, step).facts.get("sha256") if step else None


def _speaker(item: Item, label: int) -> str:
    """Name a speaker after its recording: labels are local to it, and two recordings may have one title."""
    number = "noise" if label < 0 else f"S{label:02d}"
    episode = item.episode
    return f"{episode.series}/{episode.name}#{episode.source_id}/{number}"


def _engines(plan: Plan) -> Row:
    stages = ("separation", "diarization", "captioning")
    return {f"{stage}_engine": plan.stages[stage].engine for stage in stages}
