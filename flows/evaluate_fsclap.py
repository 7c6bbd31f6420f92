"""From a model to a report and a decision, as in section 4 of the paper. Starts by itself after a training.

leak probe -> retrieval figures, collapse, report -> compared with the current model -> promoted, or not
           -> event, which starts index-corpus
"""

from prefect import flow

from flows.parameters import CorpusFolder, Folder, Location
from tasks.evaluation import decide_promotion, evaluate_model, refuse_leak, show_evaluation, unpromoted
from tasks.indexing import announce_evaluated
from tasks.limits import model_slot
from tasks.outcomes import EvaluatedModel


@flow(name="evaluate-fsclap", flow_run_name="evaluate {model} on {corpus} version {version}", persist_result=True)
def evaluate_fsclap(
    model: Location,
    corpus: CorpusFolder = "data/corpus",
    version: int | None = None,
    work: Folder = "data/work",
    promote: bool = True,
) -> EvaluatedModel:
    """Evaluate a model on the clips that it never saw, and make it the current one if it is better.

    The report lies in the model's folder, under evaluation/. A model that leaks gets a report that says so and no
    figure, and fails the run. Promotion is decided by the validation part: the first model must beat chance, any other
    the current one by more than the interval of the difference on the same clips.

    Args:
        model: Folder of a finished model.
        corpus: Folder of the corpus that it was trained on.
        version: Version of its utterances; the current one by default.
        work: Folder of clips and features, which is shared with the training.
        promote: Decide about promotion, and bring the index up to date; a comparison wants the figures alone.
    """
    with model_slot():
        evaluated = evaluate_model(model, corpus, version, work)
        evaluated = decide_promotion(evaluated, work) if promote else unpromoted(evaluated)
    show_evaluation(evaluated)
    refuse_leak(evaluated)
    if promote:
        announce_evaluated(evaluated)
    return evaluated
