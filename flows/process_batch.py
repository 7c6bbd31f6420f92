"""One batch of a build, from its downloads to the corpus. build-dataset starts it, with fan_out=pool."""

import os

from prefect import flow

from flows.parameters import CorpusFolder, Folder
from tasks.batches import Batch
from tasks.captioning import caption
from tasks.commit import commit
from tasks.consistency import filter_speakers
from tasks.declared import Plan, declare, require_same
from tasks.diarization import diarize
from tasks.download import download
from tasks.limits import compute_slot
from tasks.measure import measure
from tasks.outcomes import Committed
from tasks.plan import plan_batch
from tasks.separation import separate
from tasks.trial import try_out

WORK = "FSCLAP_WORK"
"""Environment variable of a worker: its folder of work files, where that is not the build's."""


@flow(name="process-batch", flow_run_name="process {batch.name}", persist_result=True)
def process_batch(batch: Batch, corpus: CorpusFolder, work: Folder, plan: Plan) -> list[Committed]:
    """Process the episodes of one batch; build-dataset starts this, not a person.

    Args:
        batch: Episodes, as build-dataset has listed them.
        corpus: Location of the corpus.
        work: Folder of the stages' outputs on this worker's machine; the worker's FSCLAP_WORK goes before it.
        plan: Settings, and what the stages of the build depend on.
    """
    work = os.environ.get(WORK) or work
    own = declare(plan.settings)
    require_same(own, plan)
    try_out(own)
    todo = plan_batch(batch, corpus, work, own)
    if not todo.items:
        return []
    media = download(todo, work, own)
    with compute_slot(own.settings.device):
        described = describe(media, work, own)
    # Commits of all machines take turns: the next batch of this one does not wait for that.
    return commit(described, corpus, work, own)


def describe(media: Batch, work: str, plan: Plan) -> Batch:
    """Take downloaded episodes through the stages, from sound to words."""
    vocals = separate(media, work, plan)
    turns = diarize(vocals, work, plan)
    measured = measure(turns, work, plan)
    filtered = filter_speakers(measured, work, plan)
    return caption(filtered, work, plan)
