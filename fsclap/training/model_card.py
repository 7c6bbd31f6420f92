"""The card of a trained model: what it is, what it was trained on, how good it is, and what it must not be taken for.

README.md in the model's folder, in the format of the Hugging Face hub
(https://huggingface.co/docs/hub/model-cards), so that the folder can be put there as it is.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from fsclap.data.clips import ClipStore
from fsclap.evaluation.report import FIGURES, headline, interval, judged_meaning, meaning, percent
from fsclap.evaluation.results import Evaluation, RetrievalFigures
from fsclap.files import written_aside
from fsclap.training.record import Trained

CARD = "README.md"
_TAGS = ["audio-retrieval", "speech", "speaking-style"]
_METRICS = {"R@1": "recall_at_1", "R@10": "recall_at_10", "mAP@10": "map_at_10"}


def write_model_card(folder: Path, trained: Trained, languages: Sequence[str]) -> Path:
    """Write the card of a model, or write it anew after an evaluation.

    Args:
        folder: Of the model; the evaluations under evaluation/ are what the card reports.
        trained: What the training came to.
        languages: Of the speech that it was trained on (`languages_of`).

    Returns:
        The card.
    """
    evaluations = [Evaluation.load(path) for path in sorted(folder.glob(f"evaluation/*/{FIGURES}"))]
    card = folder / CARD
    with written_aside(card) as aside:
        aside.write_text(str(_card(folder.name, trained, evaluations, languages)), encoding="utf-8")
    return card


def languages_of(store: ClipStore, ids: Sequence[str]) -> list[str]:
    """The codes of the languages of these clips, sorted; none for a corpus that does not say."""
    if "language" not in store.table.column_names:
        return []
    held = [id_ for id_ in ids if id_ in store.rows]
    return sorted({code for code in store.column("language", held) if code and re.fullmatch("[a-z]{2,3}", code)})


def _card(name: str, trained: Trained, evaluations: Sequence[Evaluation], languages: Sequence[str]) -> ModelCard:
    results = [result for evaluation in evaluations for result in _results(evaluation)]
    data = ModelCardData(
        language=list(languages) or None,
        license="other",
        license_name="rights-of-the-source-media",
        library_name="fsclap",
        pipeline_tag="feature-extraction",
        tags=_TAGS,
        model_name=name if results else None,
        eval_results=results or None,
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_text(name, trained, evaluations, languages)}")


def _results(evaluation: Evaluation) -> Iterator[EvalResult]:
    for row in _rows(evaluation):
        for metric, kind in _METRICS.items():
            found = row.metrics[metric]
            yield EvalResult(
                task_type="feature-extraction",
                task_name="Retrieval of speech by description, and the other way round",
                dataset_type=_last_part(evaluation.corpus),
                dataset_name=f"{_last_part(evaluation.corpus)}, version {evaluation.version}",
                dataset_split=evaluation.part,
                dataset_revision=str(evaluation.version),
                metric_type=kind,
                metric_name=f"{metric}, {row.pool} clips in the pool",
                metric_value=round(found.value, 4),
                metric_args={
                    "pool": row.pool,
                    "low": round(found.low, 4),
                    "high": round(found.high, 4),
                    "chance": round(row.chance[metric], 4),
                },
            )


def _rows(evaluation: Evaluation) -> list[RetrievalFigures]:
    """Paper mode, mean of both directions, first stage; none of a model that leaks."""
    rows = [
        row for row in evaluation.retrieval if (row.mode, row.direction, row.stage) == ("paper", "mean", "embeddings")
    ]
    return [] if evaluation.leak.leaks else sorted(rows, key=lambda row: row.pool)


def _text(name: str, trained: Trained, evaluations: Sequence[Evaluation], languages: Sequence[str]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fsclap.evaluation", "templates"),
        autoescape=False,  # Markdown: what others chose goes through `code`
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "interval": interval, "code": _code}
    return environment.get_template("model_card.md.j2").render(
        name=name,
        trained=trained,
        corpus=_last_part(trained.run.corpus),
        languages=languages,
        settings=list(_flat(trained.run.settings.model_dump(mode="json"))),
        sections=[
            {
                "evaluation": evaluation,
                "corpus": _last_part(evaluation.corpus),
                "rows": _rows(evaluation),
                "meaning": meaning(evaluation) if headline(evaluation) else "Nothing was scored.",
                "judged": judged_meaning(evaluation.judged) if evaluation.judged else None,
            }
            for evaluation in evaluations
        ],
        metrics=list(_METRICS),
    )


def _last_part(location: str) -> str:
    return location.rstrip("/").rsplit("/", 1)[-1]


def _flat(settings: Mapping[str, Any], *, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, prefix=f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _code(value: Any) -> str:
    """A value as code within a line or a cell of Markdown, whatever it holds."""
    return "`" + (re.sub(r"[`|\s]+", " ", str(value)).strip() or " ") + "`"
