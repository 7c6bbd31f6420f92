"""The card of a model: valid for the hub, true to the figures, and its lines of code run."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from fsclap.evaluation.results import Evaluation, Interval
from fsclap.evaluation.words import judged_meaning, meaning
from fsclap.model.settings import ModelSettings
from fsclap.model.systems.fs_clap import FSCLAP
from fsclap.training.checkpoint import Epoch
from fsclap.training.model_card import write_model_card
from fsclap.training.record import Run, Trained
from fsclap.training.settings import TrainSettings
from tests.fsclap.evaluation import examples
from tests.fsclap.evaluation.test_judged import JUDGED


def record(**changes: Any) -> Trained:
    run = Run(settings=TrainSettings(), corpus="data/corpus", version=8, split="0" * 64)
    fields: dict[str, Any] = {
        "run": run,
        "best_epoch": 3,
        "validation": 0.123,
        "leaks": False,
        "history": [Epoch(epoch=1, loss=3.0, validation=0.123, skipped=0, seconds=1.0)],
        "steps": 1234,
        "clips": {"train": 1354, "validation": 294, "test": 1110},
        "rejected": 2,
        "parameters": 689_665,
        "languages": ["cs", "en"],
        "environment": {"torch": "2.13"},
    }
    return Trained(**(fields | changes))


def evaluated(folder: Path, evaluation: Evaluation) -> None:
    place = folder / "evaluation" / f"{Path(evaluation.corpus).name}-v{evaluation.version}"
    place.mkdir(parents=True)
    evaluation.save(place / "evaluation.json")


def card_of(folder: Path, trained: Trained | None = None) -> ModelCard:
    return ModelCard.load(write_model_card(folder, trained or record()))


def rendered(card: ModelCard) -> str:
    return MarkdownIt("commonmark").enable("table").render(card.text)


def test_after_training_it_says_what_the_model_is_and_that_it_is_not_evaluated(tmp_path: Path) -> None:
    card = card_of(tmp_path)
    assert card.data.to_dict() == {
        "language": ["cs", "en"],
        "library_name": "fsclap",
        "license": "other",
        "license_name": "rights-of-the-source-media",
        "pipeline_tag": "feature-extraction",
        "tags": ["audio-retrieval", "speech", "speaking-style"],
    }
    assert "corpus `corpus`, version 8" in card.text
    assert "Not evaluated yet. On the validation part mAP@10 is 12.3 %" in card.text
    assert "| clips | 1,354 train, 294 validation, 1,110 test; 2 could not be used |" in card.text
    assert "| model.fusion | `none` |" in card.text
    assert "trained on 1,354 clips" in card.text
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_after_an_evaluation_it_has_the_figures_with_pools_and_intervals(tmp_path: Path) -> None:
    card_of(tmp_path)
    evaluation = examples.evaluation(judged=JUDGED)
    evaluated(tmp_path, evaluation)
    card = card_of(tmp_path)
    assert "Not evaluated yet" not in card.text
    assert meaning(evaluation) in card.text
    assert judged_meaning(JUDGED) in card.text
    results = {result.metric_name: result for result in card.data.eval_results}
    assert len(results) == len(card.data.eval_results) == 6
    for pool in (200, 1000):
        found = evaluation.figure("mAP@10", mode="paper", pool=pool)
        result = results[f"mAP@10, {pool} clips in the pool"]
        assert result.metric_value == pytest.approx(found.value, abs=1e-4)
        assert result.metric_args == {
            "pool": pool,
            "low": pytest.approx(found.low, abs=1e-4),
            "high": pytest.approx(found.high, abs=1e-4),
            "chance": pytest.approx(1 / pool, abs=1e-4),
        }
        assert (result.dataset_name, result.dataset_split) == ("corpus, version 8", "test")
        shown = f"{100 * found.value:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f})"
        assert f"| {shown} | {100 / pool:.1f} % | better than chance |" in card.text
    assert card.data.model_name == tmp_path.name
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()


def test_a_figure_that_reaches_down_to_chance_is_not_better(tmp_path: Path) -> None:
    row = examples.figures(pool=100)
    row = row.model_copy(update={"metrics": row.metrics | {"mAP@10": Interval(value=0.02, low=0.009, high=0.03)}})
    evaluated(tmp_path, examples.evaluation(retrieval=[row]))
    text = card_of(tmp_path).text
    assert "| 1.0 % | **not better than chance** |" in text
    assert "better than chance |\n" not in text
    assert "cannot tell the model from guessing" in text


def test_each_evaluation_is_reported(tmp_path: Path) -> None:
    evaluated(tmp_path, examples.evaluation())
    evaluated(tmp_path, examples.evaluation(version=9, corpus="s3://bucket/other/"))
    card = card_of(tmp_path)
    assert {result.dataset_name for result in card.data.eval_results} == {"corpus, version 8", "other, version 9"}
    assert "On the test part of `other`, version 9" in card.text


def test_a_model_that_leaks_gets_no_figure_and_no_use(tmp_path: Path) -> None:
    evaluated(tmp_path, examples.evaluation(leak=examples.LEAKING, judged=JUDGED))
    card = card_of(tmp_path, record(leaks=True))
    assert card.data.eval_results is None
    assert "**Not for retrieval.**" in card.text
    assert "This model leaks, so there is no figure" in card.text
    assert "from_pretrained" not in card.text
    assert "mAP@10" not in card.text


def test_its_tables_are_tables_and_names_cannot_break_them(tmp_path: Path) -> None:
    evil = "a|b`c\n\n# <script>alert(1)</script>"
    settings = TrainSettings().model_copy(
        update={"split": TrainSettings().split.model_copy(update={"test_series": (evil,)})}
    )
    run = Run(settings=settings, corpus=evil, version=8, split="0" * 64)
    evaluated(tmp_path, examples.evaluation(version=8).model_copy(update={"corpus": "x"}))
    card = card_of(tmp_path, record(run=run, environment={"device": evil}))
    page = rendered(card)
    assert page.count("<table>") == 3
    assert "<script" not in page
    assert re.findall(r"<h(\d)", page).count("1") == 1
    rows = re.findall(r"<tr>(.*?)</tr>", page, flags=re.DOTALL)
    assert {row.count("<td>") for row in rows} <= {0, 2, 6}


def test_its_lines_of_code_run(tmp_path: Path) -> None:
    FSCLAP(ModelSettings(width=16, heads=2, embedding=16)).save_pretrained(tmp_path)
    card = card_of(tmp_path)  # in place of the one that the hub's library wrote
    assert "PyTorchModelHubMixin" not in card.text
    (code,) = re.findall(r"```python\n(.*?)```", card.text, flags=re.DOTALL)
    shown: list[Any] = []
    wave = np.random.default_rng(0).normal(size=16_000).astype(np.float32)
    exec(code.replace("path/to/this/folder", str(tmp_path)), {"wave": wave, "print": shown.append})
    (cosines,) = shown
    assert cosines.shape == (1, 1)
    assert abs(cosines.item()) <= 1 + 1e-5
