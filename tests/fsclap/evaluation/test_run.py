"""From a model's folder to its evaluation, and one model against another; on real clips with the embedded encoders."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fsclap.data.clips import ClipStore
from fsclap.data.splits import Split
from fsclap.evaluation.promotion import PromotionDecision, against_current, decide_promotion
from fsclap.evaluation.run import EvaluationRun, evaluate_model, examples, report_clips
from fsclap.model.systems.fs_clap import FSCLAP
from fsclap.training.record import Trained, history_of
from tests.fsclap.evaluation import examples as written
from tests.fsclap.training.conftest import TINY, one_thread

__all__ = ["one_thread"]  # a fixture of the training tests


@dataclass(frozen=True)
class Subject:
    """The shared model, its split, and how to evaluate it or another one on the same clips."""

    folder: Path
    split: Split
    evaluate: Callable[..., EvaluationRun]


@pytest.fixture(scope="module")
def trained(trained_run: Trained, store: ClipStore, split: Split, cache: Path) -> Subject:
    def evaluate(model: Path = trained_run.folder, part: str = "test", clips: ClipStore = store) -> EvaluationRun:
        return evaluate_model(model, clips, split, part, cache=cache, corpus="c", version=3)  # type: ignore[arg-type]

    return Subject(trained_run.folder, split, evaluate)


@pytest.mark.slow
def test_an_evaluation_is_of_the_part_and_of_nothing_else(trained: Subject, store: ClipStore) -> None:
    found = trained.evaluate()
    evaluation = found.evaluation
    assert sorted(found.vectors.ids) == trained.split.test
    assert (evaluation.clips, evaluation.part, evaluation.corpus, evaluation.version) == (
        len(found.vectors.ids),
        "test",
        "c",
        3,
    )
    rows = [row for row in store.table.to_pylist() if row["utterance_id"] in trained.split.test]
    assert evaluation.speakers == len({row["speaker"] for row in rows})
    assert evaluation.styles == len({row["style_key"] for row in rows})
    assert sum(size * count for size, count in evaluation.group_sizes.items()) == len(rows)
    assert evaluation.nearest_training_speaker == trained.split.nearest_training_speaker("test")
    assert not evaluation.leak.leaks
    assert evaluation.figure("mAP@10", mode="paper").value > 0
    first = [row for row in evaluation.retrieval if row.stage == "embeddings"]
    assert all(evaluation.match(row) for row in first)
    assert len(evaluation.matched) == 2 * len(first)
    assert evaluation.natural is not None
    assert "clips" in evaluation.natural.left_out  # too few, and none of them measured
    assert np.linalg.norm(found.vectors.audio, axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_the_validation_figure_is_the_one_that_training_selected_by(trained: Subject) -> None:
    history = history_of(trained.folder)
    figure = trained.evaluate(part="validation").evaluation.figure("mAP@10", mode="paper")
    assert figure.value == pytest.approx(max(row["validation"] for row in history), abs=1e-6)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert all(row["loss"] > 0 and row["learning_rate"] > 0 for row in history)
    assert history[0]["step"] < history[1]["step"]


@pytest.mark.slow
def test_a_model_that_leaks_gets_no_retrieval_figure(trained: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsclap.evaluation.run.probe", lambda *_, **__: written.LEAKING)
    evaluation = trained.evaluate().evaluation
    assert evaluation.leak.leaks
    assert (evaluation.retrieval, evaluation.matched, evaluation.natural) == ([], [], None)
    assert (evaluation.best, evaluation.worst) == ([], [])
    assert evaluation.audio.effective_rank >= 1


@pytest.mark.slow
def test_a_matching_head_reorders_what_the_embeddings_found(trained: Subject, tmp_path: Path) -> None:
    FSCLAP(TINY.model_copy(update={"rerank": True})).save_pretrained(tmp_path)
    stages = {row.stage for row in trained.evaluate(tmp_path).evaluation.retrieval}
    assert stages == {"embeddings", "rerank@20"}


@pytest.mark.slow
def test_another_corpus_is_refused(trained: Subject, corpus: pa.Table, tmp_path: Path) -> None:
    other = corpus.set_column(0, "utterance_id", pa.array([f"other-{row}" for row in range(len(corpus))]))
    clips = ClipStore.create(tmp_path, other.to_batches(), key="other", progress=False)
    with pytest.raises(ValueError, match="corpus that it was trained on"):
        trained.evaluate(clips=clips)


@pytest.mark.slow
def test_a_model_is_compared_on_clips_that_the_current_one_never_saw(
    trained: Subject, store: ClipStore, cache: Path
) -> None:
    itself = decide_promotion(trained.folder, trained.folder, store, trained.split, cache=cache)
    assert (itself.promoted, itself.clips) == (False, len(trained.split.validation))
    assert itself.difference is not None
    assert (itself.difference.value, itself.difference.high) == (0, 0)
    # A split in which the model validates on what the current one was trained on.
    swapped = trained.split.model_copy(update={"validation": trained.split.train})
    found = decide_promotion(trained.folder, trained.folder, store, swapped, cache=cache)
    assert (found.promoted, found.clips) == (False, 0)
    assert "unknown to the current model" in found.reason
    first = decide_promotion(trained.folder, None, store, trained.split, cache=cache)
    assert first.difference is None
    assert first.figure is not None
    assert first.promoted == ("does not beat chance" not in first.reason)


@pytest.mark.slow
def test_a_current_model_whose_encoders_changed_does_not_stand_in_the_way(
    trained: Subject, store: ClipStore, cache: Path, tmp_path: Path
) -> None:
    for file in trained.folder.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "encoders.json").write_text('{"audio": "another", "text": "another"}')
    found = decide_promotion(trained.folder, tmp_path, store, trained.split, cache=cache)
    assert "cannot be loaded any more" in found.reason
    assert found.difference is None


def decision(gain: float, *, clips: int = 200) -> PromotionDecision:
    rng = np.random.default_rng(0)
    theirs = rng.uniform(0, 0.5, clips)
    return against_current(theirs + gain + 0.1 * rng.normal(size=clips), theirs, seed=0)


def test_only_a_gain_beyond_its_interval_is_better() -> None:
    assert decision(0.05).promoted
    assert decision(0.05).difference is not None
    slight = decision(0.012)
    assert slight.difference is not None
    assert slight.difference.value > 0
    assert not slight.promoted
    assert not decision(-0.05).promoted
    assert not decision(0.05, clips=8).promoted
    assert "it beats the current model: mAP@10 +4.1 points" in decision(0.05).reason
    assert "does not beat the current model" in decision(-0.05).reason


def test_the_best_and_the_worst_queries_are_each_shown_once() -> None:
    rng = np.random.default_rng(0)
    audio = rng.normal(size=(30, 16))
    audio /= np.linalg.norm(audio, axis=1, keepdims=True)
    text = audio.copy()
    text[20:] = -audio[20:]
    captions = [f"caption {number // 2}" for number in range(30)]
    text[1::2] = text[::2]  # equal captions, equal embeddings
    best, worst = examples([f"c{number}" for number in range(30)], captions, audio, text, seed=0)
    shown = [example.query for example in (*best, *worst)]
    assert len(shown) == len(set(shown)) == 15
    assert best[0].rank <= best[-1].rank <= worst[-1].rank <= worst[0].rank == 30
    assert all(example.found_ids[0] == example.expected_id for example in best if example.rank == 1)
    assert {example.query for example in worst[:5]} == {f"caption {number}" for number in range(10, 15)}


def test_a_report_clip_has_the_words_of_its_style(store: ClipStore) -> None:
    (id_,) = store.table["utterance_id"].to_pylist()[:1]
    clip = report_clips(store, [id_])[id_]
    assert clip.style == ("style 0",)
    assert clip.flac.startswith(b"fLaC")
