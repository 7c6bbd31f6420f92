"""The evaluation as a task, without a server: what people judged reaches the report, and the card tells the figures."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from fsclap.data.splits import Split
from fsclap.evaluation.results import Evaluation
from fsclap.evaluation.words import match_meaning, natural_meaning
from fsclap.training.model_card import write_model_card
from storage.corpus import Corpus
from storage.judgements import Judgements
from storage.rows import CorpusError
from storage.versions import CorpusVersion
from tasks import notes
from tasks.evaluation import evaluate_model
from tasks.outcomes import EvaluatedModel
from tests.fsclap.evaluation import examples
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
    assert first.natural is not None
    assert first.natural.left_out == "16 clips are too few to search: at least 20 are needed"
    assert first.natural.left_out in ModelCard.load(model / "README.md").text
    assert match_meaning(first)
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


def with_everything(**changes: Any) -> Evaluation:
    plain = examples.evaluation()
    return examples.evaluation(
        matched=examples.matched(plain, audible=0.98, every=0.99), natural=examples.natural(0.55, 0.65), **changes
    )


def artifact(evaluation: Evaluation, folder: Path) -> str:
    """The text of the artifact, as Prefect renders it."""
    (folder / "map.png").write_bytes(b"png")
    done = EvaluatedModel(
        corpus="c", version=8, model="m", report=str(folder / "report.html"), leaks=evaluation.leak.leaks
    )
    return (
        MarkdownIt("commonmark").enable("table").render(notes.evaluation_text(done, evaluation, folder / "report.html"))
    )


def card(evaluation: Evaluation, folder: Path) -> ModelCard:
    place = folder / "evaluation" / "corpus-v8"
    place.mkdir(parents=True)
    evaluation.save(place / "evaluation.json")
    return ModelCard.load(write_model_card(folder, record()))


def test_the_artifact_shows_what_is_typed_and_the_match(tmp_path: Path) -> None:
    evaluation = with_everything()
    shown = artifact(evaluation, tmp_path)
    assert natural_meaning(evaluation.natural) in shown.replace("&quot;", '"')  # type: ignore[arg-type]
    assert "<td>the words of the clips, no trained model</td>\n<td>71.0 % (66.0 to 75.0)</td>\n<td>55.0 %</td>" in shown
    assert "below a tenth" in shown
    table = notes.metrics_table(evaluation)
    assert all(
        (row["mAP@10 attribute match"], row["R@1 attribute match, all words"]) == ("98.0", "99.0") for row in table
    )
    assert "mAP@10 attribute match" not in notes.metrics_table(examples.evaluation())[0]
    assert "everyday" not in artifact(with_everything(leak=examples.LEAKING), tmp_path)


def test_the_card_shows_what_is_typed_and_the_match(tmp_path: Path) -> None:
    evaluation = with_everything()
    written = card(evaluation, tmp_path)
    assert natural_meaning(evaluation.natural) in written.text  # type: ignore[arg-type]
    assert match_meaning(evaluation) in written.text
    assert "below a tenth" in written.text
    assert "| 0.1 % | 98.0 % | 99.0 % | better than chance |" in written.text
    page = MarkdownIt("commonmark").enable("table").render(written.text)
    rows = [row.count("<td>") for row in re.findall(r"<tr>(.*?)</tr>", page, flags=re.DOTALL)]
    assert (rows.count(8), rows.count(3)) == (2, 5)  # two pools; chance and four rankings
    assert {result.metric_args["attribute_match"] for result in written.data.eval_results} == {0.98}


def test_the_card_of_a_model_that_leaks_shows_neither(tmp_path: Path) -> None:
    text = card(with_everything(leak=examples.LEAKING), tmp_path).text
    assert "everyday" not in text
    assert "ttribute match" not in text
