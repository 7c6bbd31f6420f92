"""From videos to a corpus, as in section 3.3 of the paper.

    download -> separate vocals -> diarize -> measure -> filter speakers (Eq. 4-5) -> caption -> commit

Start it with `prefect deployment run build-dataset/build-dataset`, or from the Prefect UI.
"""

from collections.abc import Callable
from typing import Annotated

from prefect import flow, get_run_logger
from prefect.states import Failed, State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.parameters import CorpusFolder, Folder
from fsclap.corpus.settings import BuildSettings
from storage.corpus import Corpus
from storage.rights import Rights
from tasks.batches import Batch
from tasks.commit import commit
from tasks.declared import Plan, declare
from tasks.download import download, list_episodes
from tasks.fan_out import can_be_handed_out, cancel_batches, hand_out
from tasks.handing_out import HandedOut
from tasks.limits import compute_slot
from tasks.linking import link_speakers
from tasks.on_ray import hand_out_on_ray
from tasks.one_batch import describe
from tasks.outcomes import Committed, Published
from tasks.paused import is_paused, paused_sources, show_paused, without_paused
from tasks.plan import plan_build, plan_orphans, recognised
from tasks.publish import Progress, announce, publish, remember_build, tell_refused
from tasks.rights import require_known, state_rights
from tasks.trial import try_out
from tasks.verdict import nothing_kept

Sources = Annotated[list[str], Field(min_length=1)]


@flow(
    name="build-dataset",
    flow_run_name="build {corpus}",
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]  # only downloads run beside the stages
    persist_result=True,
    on_cancellation=[cancel_batches],
)
def build_dataset(
    sources: Sources,
    corpus: CorpusFolder = "data/corpus",
    work: Folder = "data/work",
    settings: BuildSettings = BuildSettings(),  # noqa: B008 (frozen)
    rights: dict[str, Rights] = {},  # noqa: B006 (not changed)
) -> Published | State[None]:
    """Turn recordings into a corpus of single-speaker utterances that are described in words.

    What the corpus already holds is left alone; what another setting changes is made again from the first
    stage that it touches. A build of whose sources the corpus keeps nothing ends as Failed, with the reason.

    Args:
        sources: Where the recordings are: addresses of videos, playlists, series pages or RSS feeds; or files
            and folders of the worker's machine. Those in the variable fsclap_paused_sources are skipped.
        corpus: Folder of the corpus; made if there is none.
        work: Folder of the stages' outputs, which later runs reuse.
        settings: Settings of the stages, in their order.
        rights: Licence, rights holder and consent, by source as above, or of all with the key "*". What was stated
            of an episode before stays; `fsclap corpus rights` changes it.
    """
    require_known(sources, rights)
    Corpus.at(corpus).require_writable()
    plan = declared(settings)
    paused = paused_sources()
    named = [source for source in sources if not is_paused(source, paused)]
    found = [(item, locator) for locator in named for item in list_episodes(locator, settings.download)]
    listed = recognised([item for item, _ in found], corpus)
    state_rights(listed, [locator for _, locator in found], rights, corpus)
    listed, skipped = without_paused(listed, paused)
    show_paused([*(source for source in sources if source not in named), *skipped])
    first = process(plan_build(listed, corpus, work, plan), corpus, work, plan)
    orphans = process(plan_orphans(listed, corpus, plan), corpus, work, plan)
    undone = first.undone + orphans.undone
    link_speakers(corpus, plan.settings)
    remember_build(corpus, sources, work, plan.settings, rights)
    done = first.done + orphans.done
    published = publish(corpus, done, plan)
    announce(published)
    tell_refused(corpus, done, plan.settings.refused_percent / 100)
    if undone:
        return Failed(message=f"{len(undone)} batches are not done; start the build again. {'; '.join(undone)[:2000]}")
    why = nothing_kept(listed, corpus)
    return Failed(message=why) if why else published


def declared(settings: BuildSettings) -> Plan:
    """Declare the stages, and try the engines here if batches could be processed here.

    A build that hands out batches for GPUs may run on a machine that has none; each worker tries its own.
    """
    if settings.fan_out == "none" or settings.device == "cpu":
        plan = declare(settings)
        try_out(plan)
        return plan
    return declare(settings, device="cpu")


def process(batches: list[Batch], corpus: str, work: str, plan: Plan) -> HandedOut:
    """Take batches from their downloads to the corpus: on other machines, or here one after the other."""
    if not batches:
        return HandedOut()
    progress = Progress(total=sum(len(batch.items) for batch in batches))
    fan_out = plan.settings.fan_out
    away = [batch for batch in batches if fan_out == "ray" or (fan_out == "pool" and can_be_handed_out(batch))]
    here = [batch for batch in batches if batch not in away]
    hand = hand_out_on_ray if fan_out == "ray" else hand_out
    handed = hand(away, corpus, work, plan, progress.update) if away else HandedOut()
    before = sum(len(batch.items) for batch in away)
    done = process_here(here, corpus, work, plan, lambda count: progress.update(before + count))
    return HandedOut(handed.done + done, handed.undone)


def process_here(
    batches: list[Batch], corpus: str, work: str, plan: Plan, progress: Callable[[int], object]
) -> list[Committed]:
    """Process batches in this run, one after the other; the next one is downloaded meanwhile."""
    log = get_run_logger()
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
        progress(len(done))
    return done
