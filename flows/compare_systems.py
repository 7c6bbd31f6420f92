"""Systems x corpora x seeds as runs of their own, then one report: Tables 1 to 3 and Figure 2 of the paper.

cells -> train-cell -> evaluate-cell, as many at a time as their pool has slots -> report
"""

from prefect import flow
from prefect.runtime import deployment, flow_run
from prefect.states import Failed, State

from flows.parameters import Folder
from fsclap.comparison.settings import ComparisonSettings, NamedCorpus
from tasks.comparing import complete_cells, plan_cells, require_deployments, show_comparison, write_comparison
from tasks.outcomes import Compared


@flow(name="compare-systems", flow_run_name="compare systems into {out}", persist_result=True)
def compare_systems(
    corpora: list[NamedCorpus],
    out: Folder = "data/comparison",
    models: Folder = "data/comparison/models",
    work: Folder = "data/work",
    settings: ComparisonSettings = ComparisonSettings(),  # noqa: B008 (frozen)
) -> Compared | State[None]:
    """Train and evaluate every system on every corpus with every seed, and write one report.

    What is finished is not done again, and what is under way is waited for: started again, a comparison does what is
    missing. A cell that fails is given up, the others go on; the report says which and why, and the run ends as failed.

    Args:
        corpora: Folders of corpora, or corpora with a version, a name, a pool and a split of their own.
        out: Folder of the report.
        models: Folder of the models; not that of a current model, for a comparison promotes nothing.
        work: Folder of clips and features, which is shared with other trainings.
        settings: Systems, seeds, budget.
    """
    require_deployments(deployment.id)
    grid = plan_cells(corpora, settings, models, out, flow_run.id)
    grid = complete_cells(grid, work)
    compared = write_comparison(grid, out)
    show_comparison(compared, grid)
    if compared.missing:
        message = f"{compared.missing} of {compared.cells} cells have no figures; {compared.report} says why"
        return Failed(message=f"{message}. Start it again: only these are done")
    return compared
