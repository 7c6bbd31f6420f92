"""One batch of a build, from its downloads to the corpus. build-dataset starts it, with fan_out=pool."""

from prefect import flow

from flows.parameters import CorpusFolder, Folder
from tasks.batches import Batch
from tasks.declared import Plan
from tasks.limits import compute_slot
from tasks.one_batch import process_whole
from tasks.outcomes import Committed


@flow(name="process-batch", flow_run_name="process {batch.name}", persist_result=True)
def process_batch(batch: Batch, corpus: CorpusFolder, work: Folder, plan: Plan) -> list[Committed]:
    """Process the episodes of one batch; build-dataset starts this, not a person.

    Args:
        batch: Episodes, as build-dataset has listed them.
        corpus: Location of the corpus.
        work: Folder of the stages' outputs on this worker's machine; the worker's FSCLAP_WORK goes before it.
        plan: Settings, and what the stages of the build depend on.
    """
    return process_whole(batch, corpus, work, plan, compute_slot)
