"""Starts when a corpus version was committed. Reports what there is to train on; the training itself follows."""

from prefect import flow

from tasks.readiness import announce_trained, training_report


@flow(name="train-fsclap", flow_run_name="train on {corpus} version {version}")
def train_fsclap(corpus: str = "data/corpus", version: int | None = None) -> int:
    """Read one version of a corpus and report its speakers, hours and captions as training material.

    Args:
        corpus: Folder of the corpus.
        version: Version of its utterances; the current one by default.
    """
    report = training_report(corpus, version)
    announce_trained(corpus, report.version)
    return report.version
