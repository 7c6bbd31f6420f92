"""Tasks of the evaluation flow: the report, and which model is the current one."""

import datetime
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from storage.corpus import Corpus
from storage.judgements import Judgements
from storage.models import Decision, ModelStore, model_folder
from storage.objects import Place
from tasks import notes
from tasks.outcomes import EvaluatedModel
from tasks.training import features_folder, open_clips, report_name

if TYPE_CHECKING:
    from fsclap.evaluation.judged import Graded
    from fsclap.evaluation.promotion import PromotionDecision

log = logging.getLogger("fsclap.tasks")


@task(task_run_name="evaluate {model} on {corpus}", cache_policy=NO_CACHE)
def evaluate_model(model: str, corpus: str, version: int | None, work: str) -> EvaluatedModel:
    """Run the leak probe and the test part, add people's judgements, write the report."""
    from fsclap.data.splits import Split
    from fsclap.evaluation.judged import judge_model
    from fsclap.evaluation.report import clips_needed, write_report
    from fsclap.evaluation.run import evaluate_model, report_clips
    from fsclap.training.model_card import write_model_card
    from fsclap.training.record import Trained, history_of

    table = Corpus.open(corpus)
    version = table.version() if version is None else version
    graded = judgements_of(table, version)  # first: a damaged file must not cost an evaluation
    clips = open_clips(table, version, work)
    store, name = _model(model)
    folder = store.folder(name)
    split = Split.load(folder / "split.json")
    run = evaluate_model(
        folder, clips, split, "test",
        cache=features_folder(work), corpus=corpus, version=version,
    )  # fmt: skip
    judged = judge_model(folder, run, graded)
    evaluation = run.evaluation.model_copy(update={"judged": judged})
    page = write_report(
        evaluation,
        folder / report_name(corpus, version),
        vectors=run.vectors,
        history=history_of(folder),
        clips=report_clips(clips, clips_needed(evaluation)),
    )
    write_model_card(folder, Trained.load(folder))
    store.keep(name, folder)
    report = f"{store.place(name)}/{page.relative_to(folder)}"
    return EvaluatedModel(corpus=corpus, version=version, model=model, report=report, leaks=evaluation.leak.leaks)


@task(task_run_name="promote {evaluated.model}?", cache_policy=NO_CACHE)
def decide_promotion(evaluated: EvaluatedModel, work: str) -> EvaluatedModel:
    """Promote the model if it is better than the current one, and keep the decision."""
    from fsclap.data.splits import Split
    from fsclap.evaluation import promotion

    store, name = _model(evaluated.model)
    current = store.promoted()
    if current is not None and current.model == name:
        return evaluated.model_copy(update={"promoted": True, "reason": f"it is the current model: {current.reason}"})
    if evaluated.leaks:
        decision = promotion.LEAKS
    else:
        clips = open_clips(Corpus.open(evaluated.corpus), evaluated.version, work)
        folder = store.folder(name)
        split = Split.load(folder / "split.json")
        against = store.folder(current.model) if current else None
        decision = promotion.decide_promotion(folder, against, clips, split, cache=features_folder(work))
    store.record(_record(decision, name, current.model if current else None))
    log.info("%s is %s: %s", name, "promoted" if decision.promoted else "not promoted", decision.reason)
    return evaluated.model_copy(update={"promoted": decision.promoted, "reason": decision.reason})


def unpromoted(evaluated: EvaluatedModel) -> EvaluatedModel:
    """Say of a model that promotion was not asked for."""
    return evaluated.model_copy(update={"reason": "promotion was not asked for"})


@task(task_run_name="show the evaluation of {evaluated.model}", cache_policy=NO_CACHE)
def show_evaluation(evaluated: EvaluatedModel) -> None:
    """Show the headline with the map, the metrics, and a link to the report."""
    from fsclap.evaluation.results import FILE, Evaluation

    report = _report(evaluated)
    evaluation = Evaluation.load(report.parent / FILE)
    create_markdown_artifact(notes.evaluation_text(evaluated, evaluation, report), key="evaluation-report")
    create_table_artifact(notes.metrics_table(evaluation), key="evaluation-metrics", description="Retrieval, in %")
    create_link_artifact(
        report.as_uri(), link_text="Report with plots and sound", key="evaluation-page",
        description="A file on the worker's machine: copy the address if the browser does not follow it",
    )  # fmt: skip


def refuse_leak(evaluated: EvaluatedModel) -> None:
    """Fail the flow if the model leaks.

    Raises:
        LeakError: It does; the message gives the evidence.
    """
    from fsclap.evaluation.leak import require_no_leak
    from fsclap.evaluation.results import FILE, Evaluation

    require_no_leak(Evaluation.load(_report(evaluated).with_name(FILE)).leak)


def judgements_of(corpus: Corpus, version: int) -> "list[Graded]":
    """Read people's judgements of a corpus version."""
    from fsclap.evaluation.judged import Graded

    rows = corpus.utterances(version=version, columns=["utterance_id", "recipe"])
    recipes = dict(zip(rows["utterance_id"].to_pylist(), rows["recipe"].to_pylist(), strict=True))
    return [Graded(**row) for row in Judgements(corpus.location).graded(recipes)]


def _record(decision: "PromotionDecision", model: str, against: str | None) -> Decision:
    return Decision(
        model=model,
        against=against,
        promoted=decision.promoted,
        reason=decision.reason,
        figure=decision.figure.model_dump() if decision.figure else None,
        difference=decision.difference.model_dump() if decision.difference else None,
        clips=decision.clips,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _report(evaluated: EvaluatedModel) -> Path:
    """Return the page of a report as a file of this machine."""
    model = Place.at(evaluated.model)
    return (model_folder(evaluated.model) / evaluated.report.removeprefix(f"{model}/")).resolve()


def _model(model: str) -> tuple[ModelStore, str]:
    """Return the store of a finished model, and its name there."""
    place = Place.at(model)
    exists = not place.is_local or place.parent.folder.is_dir()
    store = ModelStore.open(place.parent) if exists else None
    if store is None or not store.finished(place.name):
        known = ", ".join(store.names()) if store else ""
        raise ValueError(f"{model} is not the folder of a finished model; {place.parent} has: {known or 'none'}")
    return store, place.name
