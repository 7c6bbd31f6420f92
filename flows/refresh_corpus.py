"""Keep a corpus up to date: repeat its build over the same sources, which adds what is new there."""

from prefect import flow, get_run_logger
from prefect.exceptions import FailedRun
from prefect.states import Completed, Failed, State

from flows.build_dataset import build_dataset
from flows.parameters import CorpusFolder
from fsclap.corpus.settings import BuildSettings
from storage.build_record import read_build
from storage.corpus import Corpus
from tasks.fan_out import cancel_batches
from tasks.outcomes import Published
from tasks.waiting import outdated


@flow(
    name="refresh-corpus",
    flow_run_name="refresh {corpus}",
    persist_result=True,
    on_cancellation=[cancel_batches],
)
def refresh_corpus(corpus: CorpusFolder = "data/corpus") -> Published | State[None]:
    """Process the episodes that appeared since the last build, with the settings of that build.

    Args:
        corpus: Folder of a corpus that build-dataset has built.
    """
    if outdated(lambda waiting: waiting.get("corpus") == corpus):
        return Completed(name="Outdated", message=f"Another refresh of {corpus} is waiting")
    build = read_build(Corpus.open(corpus))
    if build is None:
        raise ValueError(f"{corpus}: never built by build-dataset, so there are no sources to refresh; build it first")
    get_run_logger().info("Refreshing %s from %d sources", corpus, len(build["sources"]))
    settings = BuildSettings(**build["settings"])
    try:
        return build_dataset(build["sources"], corpus, build["work"], settings, build.get("rights", {}))
    except FailedRun as error:  # nothing was kept
        return Failed(message=str(error))
