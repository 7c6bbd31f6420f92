"""The card of a trained model: what it is, what it was trained on, how good it is, its limits.

README.md in the model's folder, in the format of the Hugging Face hub
(https://huggingface.co/docs/hub/model-cards), so the folder can be uploaded as it is.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from fsclap.evaluation.results import ALL_WORDS, FILE, Evaluation, RetrievalFigures
from fsclap.evaluation.words import (
    corpus_name,
    headline,
    interval,
    judged_meaning,
    meaning,
    natural_header,
    natural_meaning,
    natural_rows,
    percent,
)
from fsclap.files import written_aside
from fsclap.settings import complete
from fsclap.training.record import Trained
from fsclap.training.settings import flat

CARD = "README.md"
_TAGS = ["audio-retrieval", "speech", "speaking-style"]
_METRICS = {"R@1": "recall_at_1", "R@10": "recall_at_10", "mAP@10": "map_at_10"}


def write_model_card(folder: Path, trained: Trained) -> Path:
    """Write the card of a model, or rewrite it after an evaluation.

    Args:
        folder: Folder of the model; the card reports the evaluations under evaluation/.
        trained: Record of its training.

    Returns:
        Path of the card.
    """
    evaluations = [Evaluation.load(path) for path in sorted(folder.glob(f"evaluation/*/{FILE}"))]
    card = folder / CARD
    with written_aside(card) as aside:
        aside.write_text(str(_card(folder.name, trained, evaluations)), encoding="utf-8")
    return card


def _card(name: str, trained: Trained, evaluations: Sequence[Evaluation]) -> ModelCard:
    results = [result for evaluation in evaluations for result in _results(evaluation)]
    data = ModelCardData(
        language=trained.languages or None,
        license="other",
        license_name="rights-of-the-source-media",
        library_name="fsclap",
        pipeline_tag="feature-extraction",
        tags=_TAGS,
        model_name=name if results else None,
        eval_results=results or None,
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_text(name, trained, evaluations)}")


def _results(evaluation: Evaluation) -> Iterator[EvalResult]:
    for row in _rows(evaluation):
        for metric, kind in _METRICS.items():
            figure, matched = row.metrics[metric], evaluation.match(row)
            yield EvalResult(
                task_type="feature-extraction",
                task_name="Retrieval of speech by description, and of descriptions by speech",
                dataset_type=corpus_name(evaluation.corpus),
                dataset_name=f"{corpus_name(evaluation.corpus)}, version {evaluation.version}",
                dataset_split=evaluation.part,
                dataset_revision=str(evaluation.version),
                metric_type=kind,
                metric_name=f"{metric}, {row.pool} clips in the pool",
                metric_value=round(figure.value, 4),
                metric_args={
                    "pool": row.pool,
                    "low": round(figure.low, 4),
                    "high": round(figure.high, 4),
                    "chance": round(row.chance[metric], 4),
                    **({"attribute_match": round(matched.metrics[metric].value, 4)} if matched else {}),
                },
            )


def _rows(evaluation: Evaluation) -> list[RetrievalFigures]:
    """Paper mode, mean of both directions, first stage; no rows for a model that leaks."""
    rows = [
        row for row in evaluation.retrieval if (row.mode, row.direction, row.stage) == ("paper", "mean", "embeddings")
    ]
    return [] if evaluation.leak.leaks else sorted(rows, key=lambda row: row.pool)


def _text(name: str, trained: Trained, evaluations: Sequence[Evaluation]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fsclap.training", "templates"),
        autoescape=False,  # Markdown: names that users choose go through `code`
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "interval": interval, "code": _code}
    return environment.get_template("model_card.md.j2").render(
        name=name,
        trained=trained,
        corpus=corpus_name(trained.run.corpus),
        settings=list(flat(complete(trained.run.settings)).items()),
        sections=[
            {
                "evaluation": evaluation,
                "corpus": corpus_name(evaluation.corpus),
                "rows": _rows(evaluation),
                "meaning": meaning(evaluation) if headline(evaluation) else "Nothing was scored.",
                "judged": judged_meaning(evaluation.judged) if evaluation.judged else None,
                "natural": natural_meaning(evaluation.natural) if evaluation.natural else None,
                "natural_rows": natural_rows(evaluation.natural) if evaluation.natural else [],
            }
            for evaluation in evaluations
        ],
        metrics=list(_METRICS),
        natural_header=natural_header(),
        all_words=ALL_WORDS,
    )


def _code(value: Any) -> str:
    """Quote a value as code, safe in a line or table cell of Markdown."""
    return "`" + (re.sub(r"[`|\s]+", " ", str(value)).strip() or " ") + "`"
