"""From a corpus version to a model, as in section 4.1 of the paper. Starts by itself when a version was committed.

clips to local disk -> split by voice and text -> features -> epochs -> event, which starts evaluate-fsclap
"""

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed, State

from flows.parameters import CorpusFolder, Folder, Location
from fsclap.training.settings import TrainSettings
from tasks.limits import model_slot
from tasks.outcomes import TooFewClips, TrainedModel
from tasks.training import announce_trained, show_too_small, show_training, train_model
from tasks.waiting import later_version, outdated


@flow(name="train-fsclap", flow_run_name="train on {corpus} version {version}", persist_result=True)
def train_fsclap(
    corpus: CorpusFolder = "data/corpus",
    version: int | None = None,
    models: Location = "data/models",
    work: Folder = "data/work",
    settings: TrainSettings = TrainSettings(),  # noqa: B008 (frozen)
    announce: bool = True,
) -> TrainedModel | State[None]:
    """Train on one version of a corpus.

    The same version with the same settings is trained once: started again, an interrupted run goes on where it was,
    and a finished one is only announced if it was never evaluated. A corpus that is too small ends the run as
    "Too small", without a model; one for which a training on a later version waits, as "Outdated".

    Args:
        corpus: Folder of the corpus.
        version: Version of its utterances; the current one by default.
        models: Folder of the models, made if there is none, or an address in an object store. The clips that the
            current model there was tested on stay test clips.
        work: Folder of the clips and features that are made on the way, which later runs reuse.
        settings: Settings of the split, the model, the loss and the training.
        announce: Start the evaluation afterwards. A comparison does that itself, and wants this version and no later.
    """
    given = flow_run.parameters
    if announce and outdated(lambda waiting: later_version(given, waiting)):
        return Completed(name="Outdated", message=f"A training on a later version of {corpus} is waiting")
    with model_slot(settings.accelerator, settings.compute.devices):
        trained = train_model(corpus, version, models, work, settings)
    if isinstance(trained, TooFewClips):
        show_too_small(corpus, trained)
        return Completed(name="Too small", message=trained.reason)
    show_training(trained)
    if announce:
        announce_trained(trained)
    return trained
