"""The evaluation as a task, without a server: what people judged reaches the report, and the card tells the figures."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from fsclap.data.splits import Split
from fsclap.evaluation.results import Evaluation
from storage.corpus import Corpus
from storage.judgements import Judgements
from storage.rows import CorpusError
from storage.versions import CorpusVersion
from tasks.evaluation import evaluate_model
from tests.fsclap.retrieval.fixtures import commit, make_model
from tests.fsclap.training.test_model_card import record


@pytest.fixture
def corpus(waves: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    made = Corpus.open(folder, create=True)
    for series, wave in waves.items():
        commit(made, series, wave)
    return folder


@pytest.fixture
def model(corpus: Path, tmp_path: Path) -> Path:
    """A finished model that was not trained."""
    folder = make_model(tmp_path / "models" / "m", CorpusVersion.open(str(corpus)))
    split = Split.load(folder / "split.json")
    split.model_copy(update={"nearest": {"validation": None, "test": 0.5}}).save(folder / "split.json")
    record(languages=["en"]).save(folder / "training.json")
    epoch = {"step": 1, "epoch": 1, "epoch_loss": 1.0, "validation": 0.1}
    lines = [{"step": 1, "epoch": 1, "loss": 1.0, "lr": 0.001}, epoch]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def judge(corpus: Path, query: str, verdicts: dict[str, str]) -> None:
    for utterance_id, verdict in verdicts.items():
        Judgements(corpus).add(
            {
                "query": query, "utterance_id": utterance_id, "recipe": "recipe-1", "verdict": verdict, "judge": "ada",
                "model": "m", "corpus": str(corpus), "version": 1, "date": "2026-11-23T12:00:00+00:00",
            }
        )  # fmt: skip


@pytest.mark.slow
def test_judgements_come_into_an_evaluation_and_into_the_next_one(corpus: Path, model: Path, tmp_path: Path) -> None:
    def evaluate() -> Evaluation:
        evaluated = evaluate_model.fn(str(model), str(corpus), None, str(tmp_path / "work"))
        return Evaluation.load(Path(evaluated.report).with_name("evaluation.json"))

    first = evaluate()
    assert first.judged is None
    assert "nDCG@10" not in ModelCard.load(model / "README.md").text
    split = Split.load(model / "split.json")
    judge(corpus, "a low voice", {split.test[0]: "fits", split.test[1]: "no", split.train[0]: "fits"})
    second = evaluate()
    assert second.judged is not None
    assert second.judged.ndcg is not None
    assert (second.judged.queries, second.judged.judgements, second.judged.elsewhere) == (1, 2, 1)
    assert second.model_copy(update={"judged": None}) == first
    card = ModelCard.load(model / "README.md")
    assert "nDCG@10" in card.text
    assert card.data.language == ["en"]
    assert {result.metric_args["pool"] for result in card.data.eval_results} == {first.clips}


def test_damaged_judgements_stop_an_evaluation_before_it_begins(corpus: Path, model: Path, tmp_path: Path) -> None:
    judge(corpus, "a low voice", {"a": "fits"})
    path = corpus / "judgements.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorpusError, match=r"judgements\.parquet is damaged"):
        evaluate_model.fn(str(model), str(corpus), None, str(tmp_path / "work"))
    assert not (tmp_path / "work").exists()
