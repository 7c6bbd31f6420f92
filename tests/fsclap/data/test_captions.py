"""One answer to "is this the same caption?": training, splits and evaluation agree."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from fsclap.data.batches import load_pairs
from fsclap.data.captions import caption_groups, caption_key, numbered
from fsclap.data.clips import ClipStore
from fsclap.data.splits import SplitSettings, make_split
from fsclap.evaluation.metrics import one_vector_a_caption
from fsclap.evaluation.protocol import evaluate_embeddings
from tests.fsclap.training.encoders import frozen

WORDINGS = ["A low voice.", "a  LOW voice. ", "A high voice.", "A low voice"]


def test_case_and_spacing_do_not_make_another_caption() -> None:
    assert [caption_key(wording) == "a low voice." for wording in WORDINGS] == [True, True, False, False]
    assert caption_groups(WORDINGS).tolist() == [0, 0, 1, 2]
    assert numbered(WORDINGS).tolist() == [0, 1, 2, 3]
    assert numbered([]).dtype == np.int64


def test_what_training_takes_for_no_negative_the_evaluation_takes_for_a_tie(
    corpus: pa.Table, cache: Path, tmp_path: Path
) -> None:
    rows = corpus.slice(0, len(WORDINGS)).to_pylist()
    for row, wording in zip(rows, WORDINGS, strict=True):
        row["caption"] = wording
    store = ClipStore.create(tmp_path, pa.Table.from_pylist(rows).to_batches(), key="wordings", progress=False)
    ids = [row["utterance_id"] for row in rows]
    groups = load_pairs(store, ids, frozen(), folder=cache, progress=False).groups
    embeddings = np.eye(len(WORDINGS))  # as an encoder that knows case and spacing would give
    tied = one_vector_a_caption(embeddings, WORDINGS)
    for one in range(len(WORDINGS)):
        for other in range(len(WORDINGS)):
            assert (groups[one] == groups[other]) == np.array_equal(tied[one], tied[other])
    figures = evaluate_embeddings(embeddings, embeddings, WORDINGS, ["style"] * 4, resamples=5)
    ceiling = next(row.ceiling["R@1"] for row in figures if (row.mode, row.direction) == ("paper", "audio_to_text"))
    assert ceiling == 0.75  # two of the four clips cannot be told apart


def test_a_caption_in_other_case_is_in_one_part_only(corpus: pa.Table) -> None:
    settings = SplitSettings(seed=1, min_train_clips=4, min_eval_clips=2)
    split = make_split(corpus, settings)
    rows = corpus.to_pylist()
    caption = next(row["caption"] for row in rows if row["utterance_id"] == split.test[0])
    for row in rows:
        if row["utterance_id"] == split.train[0]:
            row["caption"] = f" {caption.upper()}"
    again = make_split(pa.Table.from_pylist(rows), settings)
    assert again.removed[split.train[0]] == "test has its caption"
