"""The cells of a comparison as runs of deployments: start what is missing, wait, give up what fails.

Nothing is trained twice. A cell's folder is named by all that shapes its model, and one whose results are there is not
started. A run that is under way is found by its idempotency key, which is made of that folder, so a comparison that was
interrupted or started again waits for it instead of starting another.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from fsclap.comparison.grid import Cell, ComparisonError, Grid, check_names
from fsclap.comparison.settings import ComparedCorpus, ComparisonSettings
from storage.card import escape_markdown
from storage.corpus import Corpus
from storage.models import ModelStore
from tasks import notes
from tasks.outcomes import Compared
from tasks.training import report_name, run_name
from tasks.waiting import has_ended

log = logging.getLogger("fsclap.tasks")

COMPARISON = "compare-systems/compare-systems"
TRAIN, EVALUATE = "train-fsclap/train-cell", "evaluate-fsclap/evaluate-cell"
"""The deployments that a cell needs, in this order."""
TRAINING, EVALUATION = "training", "evaluation"
EVERY = 5.0
"""Seconds between looks at the runs."""
_AT_A_TIME = 100
"""Runs that the server is asked for at once; it returns 200 at most."""
_LONGEST_REASON = 300


@task(task_run_name="plan the cells", cache_policy=NO_CACHE)
def plan_cells(
    corpora: list[ComparedCorpus], settings: ComparisonSettings, models: str, out: str, run: str | None
) -> Grid:
    """List the cells of a comparison, and write them down.

    Args:
        corpora: What to compare on.
        settings: What to compare.
        models: Folder of the models.
        out: Folder of the report.
        run: Identity of the flow run: started again, it keeps the versions that it began with.

    Raises:
        ComparisonError: Corpora can't be told apart, or the folder of models is that of a current model.
    """
    check_names(corpora)
    store = ModelStore.open(models)
    if store.promoted() is not None:
        raise ComparisonError(
            f"{models} has a current model, whose split every training there keeps: name a folder of its own for the "
            "models of a comparison"
        )
    corpora = [corpus.model_copy(update={"version": _version(corpus, Path(out), run)}) for corpus in corpora]
    cells = [
        _cell(row, corpus, seed, settings, store)
        for row in settings.rows()
        for corpus in corpora
        for seed in range(settings.seeds)
    ]
    grid = Grid(settings=settings, corpora=corpora, cells=cells, run=run)
    grid.save(Path(out))
    log.info("%d cells, %d of them finished", len(cells), sum(cell.missing() is None for cell in cells))
    return grid


def complete_cells(grid: Grid, work: str, *, every: float = EVERY) -> Grid:
    """Run what the cells lack until each has figures or was given up; return the grid with the reasons.

    Args:
        grid: The cells.
        work: Folder of clips and features, shared by all trainings.
        every: Seconds between looks at the runs.
    """
    running: dict[Cell, tuple[str, UUID]] = {}
    reasons: dict[Cell, str] = {}
    while True:
        left = [cell for cell in grid.cells if cell not in reasons and cell.missing() is not None]
        for cell in left:
            if cell not in running:
                try:
                    running[cell] = _begin(cell, grid, work)
                except httpx.HTTPError as error:
                    if not _temporary(error):
                        reasons[cell] = f"its run could not be started: {_brief(error)}"
                        log.warning("%s: %s", cell.name, reasons[cell])
                        continue
                    log.warning("The Prefect server does not take runs now (%s); asking again", _brief(error))
                    break
        if not left:
            return grid.model_copy(
                update={"cells": [cell.model_copy(update={"reason": reasons.get(cell, "")}) for cell in grid.cells]}
            )
        time.sleep(every)
        try:
            states = _read(FlowRunFilterId, [run for _, run in running.values()])
        except httpx.HTTPError as error:
            if not _temporary(error):
                raise
            log.warning("The Prefect server does not answer (%s); asking again", _brief(error))
            continue
        for cell, (step, run) in list(running.items()):
            found = states.get(run)
            if found is not None and not has_ended(found):
                continue
            del running[cell]
            if not (cell.trained if step == TRAINING else cell.evaluated):
                reasons[cell] = _why(step, found, cell)
                log.warning("%s: %s", cell.name, reasons[cell])
            elif cell.missing() is None:
                log.info("%s: finished", cell.name)


@task(task_run_name="write the report", cache_policy=NO_CACHE)
def write_comparison(grid: Grid, out: str) -> Compared:
    """Write the report of what is finished, and what is missing.

    Raises:
        ComparisonError: Nothing is finished.
    """
    from fsclap.comparison.compare import compare
    from fsclap.comparison.report import write_report
    from fsclap.comparison.tables import markdown

    grid.save(Path(out))
    comparison = compare(grid)
    page = write_report(comparison, Path(out))
    missing = len(comparison.missing)
    return Compared(report=str(page), cells=len(grid.cells), missing=missing, figures=markdown(comparison))


def show_comparison(compared: Compared, grid: Grid) -> None:
    """Show the figures, the cells that have none, and a link to the report, as artifacts."""
    create_markdown_artifact(notes.comparison_text(compared), key="comparison")
    rows = [
        {"row": cell.row, "corpus": cell.corpus, "seed": cell.seed, "why": escape_markdown(why)}
        for cell in grid.cells
        if (why := cell.missing()) is not None
    ]
    if rows:
        create_table_artifact(rows[: notes.TABLE_ROWS], key="comparison-missing", description="Cells without figures")
    create_link_artifact(Path(compared.report).resolve().as_uri(), link_text="Report", key="comparison-page")


def require_deployments(own: str | None) -> None:
    """Refuse to start where the cells could never run.

    Args:
        own: Id of the deployment that this run is of; None: it is of none.

    Raises:
        ComparisonError: A deployment is missing, or its pool has no slot beside the one that this run holds.
    """
    with get_client(sync_client=True) as client:
        held = None if own is None else client.read_deployment(UUID(own)).work_pool_name
        for name in (TRAIN, EVALUATE):
            try:
                pool = client.read_deployment_by_name(name).work_pool_name
            except ObjectNotFound:
                raise ComparisonError(
                    f"there is no deployment {name}: run `prefect --no-prompt deploy --all` in the checkout"
                ) from None
            if pool is not None and pool == held and client.read_work_pool(pool).concurrency_limit == 1:
                raise ComparisonError(
                    f"this run holds the only slot of the work pool {pool}, so {name} could never start: allow it two "
                    f"(`prefect work-pool set-concurrency-limit {pool} 2`), or move the cells to another pool"
                )


def _version(corpus: ComparedCorpus, out: Path, run: str | None) -> int:
    if corpus.version is not None:
        return corpus.version
    try:
        earlier = Grid.load(out)
    except ComparisonError:
        earlier = None
    if run is not None and earlier is not None and earlier.run == run:
        for begun in earlier.corpora:
            if begun.shown == corpus.shown and begun.version is not None:
                return begun.version
    return Corpus.open(corpus.corpus).version()


def _cell(row: str, corpus: ComparedCorpus, seed: int, settings: ComparisonSettings, store: ModelStore) -> Cell:
    assert corpus.version is not None
    train = settings.train_settings(row, seed, corpus.split)
    model = str(store.place(run_name(store, Corpus.open(corpus.corpus), corpus.version, train)).folder)
    report = f"{model}/{report_name(corpus.corpus, corpus.version)}"
    return Cell(row=row, corpus=corpus.shown, seed=seed, model=model, report=report)


def _begin(cell: Cell, grid: Grid, work: str) -> tuple[str, UUID]:
    """Start the next step of a cell, or find the run that is at it; return the step and the run."""
    corpus = next(corpus for corpus in grid.corpora if corpus.shown == cell.corpus)
    parameters: dict[str, Any] = {"corpus": corpus.corpus, "version": corpus.version, "work": work}
    if cell.trained:
        parameters |= {"model": cell.model, "promote": False}
        return EVALUATION, _run(EVALUATE, cell, f"evaluate {cell.name}", parameters)
    settings = grid.settings.train_settings(cell.row, cell.seed, corpus.split).model_dump(mode="json")
    parameters |= {"models": str(Path(cell.model).parent), "settings": settings, "announce": False}
    return TRAINING, _run(TRAIN, cell, f"train {cell.name}", parameters)


def _run(deployment: str, cell: Cell, name: str, parameters: dict[str, Any]) -> UUID:
    place = f"{Path(cell.model).absolute()} {Path(cell.report).absolute()}"
    key = f"{deployment} {sha256(place.encode()).hexdigest()}"
    for attempt in count():
        found = _read(FlowRunFilterIdempotencyKey, [f"{key} {attempt}"])
        if not found:
            run = run_deployment(
                deployment, parameters=parameters, flow_run_name=name, idempotency_key=f"{key} {attempt}", timeout=0
            )
            return UUID(str(run.id))  # type: ignore[union-attr]
        (earlier,) = found.values()
        if not has_ended(earlier):
            return earlier.id
    raise AssertionError


def _read(by: Callable[..., Any], values: Iterable[Any]) -> Mapping[UUID, FlowRun]:
    """Read the runs with these ids, or keys."""
    field = "id" if by is FlowRunFilterId else "idempotency_key"
    wanted, runs = list(dict.fromkeys(values)), dict[UUID, FlowRun]()
    if not wanted:
        return runs
    with get_client(sync_client=True) as client:
        for start in range(0, len(wanted), _AT_A_TIME):
            chosen = FlowRunFilter(**{field: by(any_=wanted[start : start + _AT_A_TIME])})
            runs |= {run.id: run for run in client.read_flow_runs(flow_run_filter=chosen)}
    return runs


def _why(step: str, run: FlowRun | None, cell: Cell) -> str:
    if run is None or run.state is None:
        return f"the run of its {step} was deleted"
    message = _brief(run.state.message or "")
    if run.state.is_completed() and run.state.name == "Completed":
        folder = cell.model if step == TRAINING else cell.report
        return f"its {step} completed, but {folder} is not here: all workers must see the same folders"
    return f"{step}: {run.state.name}{f': {message}' if message else ''}"


def _temporary(error: httpx.HTTPError) -> bool:
    """Whether a server is away or overloaded, rather than refusing what it was asked."""
    return not isinstance(error, httpx.HTTPStatusError) or error.response.status_code >= 500


def _brief(said: object) -> str:
    return " ".join(str(said).split())[:_LONGEST_REASON]
