"""How far a model can be trusted, from its evaluation."""

from pathlib import Path

from fsclap.evaluation.results import FILE, Evaluation
from fsclap.evaluation.words import HEADLINE, headline
from fsclap.retrieval.index import ModelStatus, SearchError


def model_status(folder: Path, *, promoted: bool) -> ModelStatus:
    """Read the status of a model from its newest evaluation.

    Args:
        folder: Folder of the model.
        promoted: Whether it is the current model of its store.

    Raises:
        SearchError: The evaluation is damaged.
    """
    files = folder.glob(f"evaluation/*/{FILE}")
    file = max(files, key=lambda path: path.stat().st_mtime_ns, default=None)
    if file is None:
        return ModelStatus(promoted=promoted)
    try:
        row = headline(Evaluation.load(file))
    except ValueError as error:
        raise SearchError(f"{file} is damaged ({error}); remove it, or evaluate the model again") from error
    if row is None:
        return ModelStatus(promoted=promoted)
    _, metric = HEADLINE
    figure = row.metrics[metric]
    return ModelStatus(
        promoted=promoted,
        figure=figure.value,
        low=figure.low,
        chance=row.chance[metric],
        metric=f"{metric} among {row.pool:,} clips of speakers that it was not trained on",
    )
