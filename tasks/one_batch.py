"""One batch, from its downloads to the corpus: what a worker of a pool does, and a task of a Ray cluster."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager

from tasks.batches import Batch
from tasks.captioning import caption
from tasks.commit import commit
from tasks.consistency import filter_speakers
from tasks.declared import Plan, declare, require_same
from tasks.diarization import diarize
from tasks.download import download
from tasks.measure import measure
from tasks.outcomes import Committed
from tasks.plan import plan_batch
from tasks.separation import separate
from tasks.trial import try_out

WORK = "FSCLAP_WORK"
"""Environment variable of a machine: its folder of work files, where that is not the build's."""


def process_whole(
    batch: Batch, corpus: str, work: str, plan: Plan, slot: Callable[[str], AbstractContextManager[None]]
) -> list[Committed]:
    """Process what the corpus still lacks of a batch, on this machine, for a build that may run on another one.

    Args:
        batch: Episodes, as build-dataset has listed them.
        corpus: Location of the corpus.
        work: Folder of the stages' outputs on this machine; FSCLAP_WORK goes before it.
        plan: Settings, and what the stages of the build depend on.
        slot: Holds a device for the stages (`tasks.limits`).

    Raises:
        ValueError: The stages of this machine are not those of the build.
    """
    work = os.environ.get(WORK) or work
    own = declare(plan.settings)
    require_same(own, plan)
    try_out(own)
    todo = plan_batch(batch, corpus, work, own)
    if not todo.items:
        return []
    media = download(todo, work, own)
    with slot(own.settings.device):
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
