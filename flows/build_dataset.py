"""From videos to a corpus, as in section 3.3 of the paper.

    download -> separate vocals -> diarize -> measure -> filter speakers (Eq. 4-5) -> caption -> commit

Start it with `prefect deployment run build-dataset/build-dataset`, or from the Prefect UI.
"""

from typing import Annotated

from prefect import flow, get_run_logger
from prefect.states import Failed, State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.parameters import CorpusFolder, Folder
from fsclap.corpus.settings import BuildSettings
from storage.corpus import Corpus
from tasks.batches import Batch
from tasks.captioning import caption
from tasks.commit import commit
from tasks.consistency import filter_speakers
from tasks.declared import Plan, declare
from tasks.diarization import diarize
from tasks.download import download, list_episodes
from tasks.limits import compute_slot
from tasks.linking import link_speakers
from tasks.measure import measure
from tasks.outcomes import Committed, Published
from tasks.plan import plan_build, plan_orphans, recognised
from tasks.publish import Progress, announce, publish, remember_build
from tasks.separation import separate
from tasks.trial import try_out
from tasks.verdict import nothing_kept

Sources = Annotated[list[str], Field(min_length=1)]


@flow(
    name="build-dataset",
    flow_run_name="build {corpus}",
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]  # only downloads run beside the stages
    persist_result=True,
)
def build_dataset(
    sources: Sources,
    corpus: CorpusFolder = "data/corpus",
    work: Folder = "data/work",
    settings: BuildSettings = BuildSettings(),  # noqa: B008 (frozen)
) -> Published | State[None]:
    """Turn recordings into a corpus of single-speaker utterances that are described in words.

    What the corpus already holds is left alone; what another setting changes is made again from the first
    stage that it touches. A build of whose sources the corpus keeps nothing ends as Failed, with the reason.

    Args:
        sources: Where the recordings are: addresses of videos, playlists, series pages or RSS feeds; or files
            and folders of the worker's machine.
        corpus: Folder of the corpus; made if there is none.
        work: Folder of the stages' outputs, which later runs reuse.
        settings: Settings of the stages, in their order.
    """
    Corpus.at(corpus).require_writable()
    plan = declare(settings)
    try_out(plan)
    listed = [item for locator in sources for item in list_episodes(locator, settings.download)]
    listed = recognised(listed, corpus)
    done = process(plan_build(listed, corpus, work, plan), corpus, work, plan)
    done += process(plan_orphans(listed, corpus, plan), corpus, work, plan)
    link_speakers(corpus, plan.settings)
    remember_build(corpus, sources, work, plan.settings)
    published = publish(corpus, done, plan)
    announce(published)
    why = nothing_kept(listed, corpus)
    return Failed(message=why) if why else published


def process(batches: list[Batch], corpus: str, work: str, plan: Plan) -> list[Committed]:
    """Take batches from their downloads to the corpus, one after the other."""
    if not batches:
        return []
    log = get_run_logger()
    progress = Progress(total=sum(len(batch.items) for batch in batches))
    done: list[Committed] = []
    downloads = [download.submit(batch, work, plan) for batch in batches[:1]]
    for number, batch in enumerate(batches, start=1):
        log.info("Batch %d of %d: %s (%d episodes)", number, len(batches), batch.name, len(batch.items))
        media = downloads.pop().result()
        with compute_slot(plan.settings.device):
            # The next download runs while this batch is computed.
            downloads = [download.submit(ahead, work, plan) for ahead in batches[number : number + 1]]
            described = describe(media, work, plan)
            done += commit(described, corpus, work, plan)
        progress.update(len(done))
    return done


def describe(media: Batch, work: str, plan: Plan) -> Batch:
    """Take downloaded episodes through the stages, from sound to words."""
    vocals = separate(media, work, plan)
    turns = diarize(vocals, work, plan)
    measured = measure(turns, work, plan)
    filtered = filter_speakers(measured, work, plan)
    return caption(filtered, work, plan)
