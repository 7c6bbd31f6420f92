"""What a corpus version offers to training and evaluation, read from the corpus and shown as artifacts."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from pydantic import BaseModel, ConfigDict

from storage.corpus import Corpus

log = logging.getLogger("fsclap.tasks")

TRAINED = "fsclap.training.finished"
"""The event that starts `evaluate-fsclap`."""


class CorpusReport(BaseModel):
    """Figures of one corpus version."""

    model_config = ConfigDict(frozen=True)

    version: int
    utterances: int
    hours: float
    speakers: int
    captions: int
    styles: int


@task(task_run_name="training report of {corpus}", cache_policy=NO_CACHE)
def training_report(corpus: str, version: int | None) -> CorpusReport:
    """Hours, speakers and captions of a version, and the hours by speaker as a table artifact."""
    table, report = _read(corpus, version)
    create_markdown_artifact(_training_text(corpus, report), key="training-report")
    create_table_artifact(_speakers(table), key="training-speakers", description="Hours by speaker, the first 100")
    return report


@task(task_run_name="evaluation report of {corpus}", cache_policy=NO_CACHE)
def evaluation_report(corpus: str, version: int | None) -> CorpusReport:
    """Chance and ceilings of single-positive retrieval, which equal captions put below 100 %."""
    table, report = _read(corpus, version)
    sizes = np.array(list(Counter(table["caption"].to_pylist()).values()))
    create_markdown_artifact(_evaluation_text(corpus, report, sizes), key="evaluation-report")
    return report


def announce_trained(corpus: str, version: int) -> None:
    emit_event(
        TRAINED,
        resource={"prefect.resource.id": f"fsclap.corpus.{Path(corpus).name}", "prefect.resource.name": corpus},
        payload={"corpus": corpus, "version": version},
    )


def recall_ceiling(group_sizes: np.ndarray) -> float:
    """Best possible text-to-audio R@1 with one positive a query, ties broken at random.

    A query whose caption g clips share finds its own with probability 1/g, so the mean over all N clips is
    (number of distinct captions) / N.

    Args:
        group_sizes: (captions,) number of clips that share each caption.
    """
    return len(group_sizes) / float(group_sizes.sum())


def _read(corpus: str, version: int | None) -> tuple[pa.Table, CorpusReport]:
    opened = Corpus.open(corpus)
    version = opened.version() if version is None else version
    table = opened.utterances(version=version, columns=["duration", "speaker", "caption", "style_key"])
    if table.num_rows == 0:
        raise ValueError(f"{corpus}: version {version} holds no utterance; see its rejects for the reasons")
    report = CorpusReport(
        version=version,
        utterances=table.num_rows,
        hours=sum(table["duration"].to_pylist()) / 3600,
        speakers=len(table["speaker"].unique()),
        captions=len(table["caption"].unique()),
        styles=len(table["style_key"].unique()),
    )
    log.info("corpus %s version %d: %s", corpus, version, report)
    return table, report


def _training_text(corpus: str, report: CorpusReport) -> str:
    return (
        f"# `{corpus}`, version {report.version}, as training material\n\n"
        f"{report.utterances} utterances, {report.hours:.2f} hours, {report.speakers} speakers, "
        f"{report.captions} distinct captions over {report.styles} styles.\n\n"
        "No model was trained: this flow only reads the corpus so far."
    )


def _evaluation_text(corpus: str, report: CorpusReport, sizes: np.ndarray) -> str:
    histogram = "\n".join(f"| {size} | {count} |" for size, count in sorted(Counter(sizes.tolist()).items()))
    return (
        f"# `{corpus}`, version {report.version}: what retrieval could reach\n\n"
        f"Over all {report.utterances} utterances as one pool, one positive a query:\n\n"
        f"| | |\n|---|---|\n| chance R@1 | {100 / report.utterances:.2f} % |\n"
        f"| ceiling R@1 | {100 * recall_ceiling(sizes):.2f} % |\n\n"
        f"Clips that share a caption:\n\n| clips | captions |\n|---|---|\n{histogram}\n\n"
        "No model was evaluated: this flow only reads the corpus so far."
    )


def _speakers(table: pa.Table) -> list[dict[str, object]]:
    groups = table.group_by("speaker").aggregate([("duration", "sum"), ("duration", "count")])
    rows = sorted(groups.to_pylist(), key=lambda row: -row["duration_sum"])[:100]
    return [
        {"speaker": r["speaker"], "utterances": r["duration_count"], "minutes": round(r["duration_sum"] / 60, 2)}
        for r in rows
    ]
