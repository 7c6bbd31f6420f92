"""What a build has to do: the episodes that the corpus does not hold yet in the form that is asked for."""

import json
import logging

from prefect import task
from prefect.cache_policies import NO_CACHE

from fsclap.corpus import captioning, diarization, separation
from fsclap.corpus.download import Episode
from fsclap.corpus.filtering import consistency, load_scorer
from fsclap.corpus.settings import BuildSettings, digest, shaping
from fsclap.corpus.versions import VERSIONS
from storage.corpus import Corpus
from tasks.batches import Batch, Item, make_batches
from tasks.captioning import captioning_engine

log = logging.getLogger("fsclap.tasks")

FINAL = ("kept", "rejected")
"""Outcomes that the same recipe would only repeat; "failed" is tried again."""


def recipe(settings: BuildSettings, episode: Episode) -> str:
    """Digest of everything that decides what an episode's rows say, known before anything is downloaded."""
    separator = separation.load_separator(settings.separation)
    diarizer = diarization.load_diarizer(settings.diarization)
    scorer = load_scorer(settings.quality)
    threshold = consistency.effective_threshold(settings.consistency, diarizer.name)
    return digest(
        json.dumps(
            {
                "fingerprint": episode.fingerprint,
                "format": settings.download.format,
                "decode": shaping(settings.decode),
                "separation": [separator.name, separator.revision, shaping(settings.separation)],
                "loudness": shaping(settings.loudness),
                "diarization": [diarizer.name, diarizer.revision, shaping(settings.diarization)],
                "quality": [scorer and scorer.revision, shaping(settings.quality)],
                "selection": shaping(settings.selection),
                "consistency": [threshold, shaping(settings.consistency)],
                "captioning": [captioning_engine(settings), shaping(settings.captioning)],
                "versions": VERSIONS,
            },
            sort_keys=True,
        )
    )


def load_engines(settings: BuildSettings) -> None:
    """Load all engines, so that missing weights or a missing device end a run before it has downloaded anything."""
    separation.load_separator(settings.separation)
    diarization.load_diarizer(settings.diarization)
    captioning.load_tagger(settings.captioning)
    load_scorer(settings.quality)


@task(task_run_name="plan build of {corpus}", cache_policy=NO_CACHE)
def plan_build(listed: list[Item], corpus: str, settings: BuildSettings) -> list[Batch]:
    """Batches of what is new or was made by another recipe; the corpus is created if there is none."""
    load_engines(settings)
    ledger = Corpus.open(corpus, create=True).ledger()
    unique = list({item.episode.source_id: item for item in reversed(listed)}.values())[::-1]
    to_do = [item for item in unique if not _up_to_date(item.episode, ledger, settings)]
    unlisted = [item for item in to_do if not item.alive]
    batches = make_batches([item.episode for item in to_do if item.alive], settings.batch_episodes)
    log.info(
        "%d sources listed, %d already in %s, %d to do in %d batches",
        len(unique), len(unique) - len(to_do), corpus, len(to_do), len(batches) + bool(unlisted),
    )  # fmt: skip
    return [*([Batch(name="addresses that cannot be used", items=tuple(unlisted))] if unlisted else []), *batches]


def _up_to_date(episode: Episode, ledger: dict[str, dict[str, object]], settings: BuildSettings) -> bool:
    row = ledger.get(episode.source_id)
    return row is not None and row["status"] in FINAL and row["recipe"] == recipe(settings, episode)
