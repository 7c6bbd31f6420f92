"""Link speakers across the episodes of a series: diarization labels them within one recording only."""

import logging
from collections.abc import Iterator
from dataclasses import asdict

import pyarrow.compute as pc
from prefect import task
from prefect.cache_policies import NO_CACHE

from fsclap.corpus.linking import LinkedSpeaker, LinkingSettings, link, speakers_of
from fsclap.corpus.settings import BuildSettings
from storage.corpus import Corpus

log = logging.getLogger("fsclap.tasks")

COLUMNS = ["source_id", "series", "episode", "speaker", "duration", "speaker_embedding"]


@task(task_run_name="link speakers of {corpus}", cache_policy=NO_CACHE, retries=1, timeout_seconds=3600)
def link_speakers(corpus: str, settings: BuildSettings) -> int:
    """Rewrite the table of speakers from all utterances; return the number of persons, 0 when linking is off."""
    table = Corpus.open(corpus)
    with table.lock():  # when two builds share a corpus, the second sees what the first has committed
        rows = list(_linked(table, settings.linking)) if settings.linking.enabled else []
        table.write_speakers([asdict(row) for row in rows])
    persons = len({row.linked_speaker for row in rows})
    log.info("%d episode speakers are %d persons", len(rows), persons)
    return persons


def _linked(table: Corpus, settings: LinkingSettings) -> Iterator[LinkedSpeaker]:
    """Link each engine's speakers separately: embeddings of different engines or weights cannot be compared."""
    utterances = table.utterances(columns=[*COLUMNS, "diarization_engine"])
    for engine in sorted(set(utterances["diarization_engine"].to_pylist())):
        of_engine = utterances.filter(pc.equal(utterances["diarization_engine"], engine)).select(COLUMNS)
        yield from link(speakers_of(of_engine), settings, engine=engine.partition("@")[0])
