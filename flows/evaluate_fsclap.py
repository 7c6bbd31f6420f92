"""Starts after training. Reports what a retrieval figure on this corpus version could and could not mean."""

from prefect import flow

from tasks.readiness import evaluation_report


@flow(name="evaluate-fsclap", flow_run_name="evaluate on {corpus} version {version}")
def evaluate_fsclap(corpus: str = "data/corpus", version: int | None = None) -> int:
    """Read one version of a corpus and report chance and ceilings of retrieval on its captions.

    Args:
        corpus: Folder of the corpus.
        version: Version of its utterances; the current one by default.
    """
    return evaluation_report(corpus, version).version
