import numpy as np
import pyarrow as pa
import pytest

from bench.ablation import ROWS, train_settings
from fsclap.training.settings import TrainSettings


def switches(settings: TrainSettings) -> tuple[bool, bool, bool]:
    """FU, SE and HN of a row."""
    return settings.model.fusion != "none", settings.model.separation, settings.loss.gamma > 0


def test_the_rows_are_those_of_table_3() -> None:
    expected = {
        "base": (False, False, False),
        "FU": (True, False, False),
        "SE": (False, True, False),
        "HN": (False, False, True),
        "FU+SE": (True, True, False),
        "FU+SE+HN": (True, True, True),
    }
    assert {row: switches(train_settings(row, 0)) for row in ROWS} == expected


def test_rows_differ_in_nothing_but_model_and_loss() -> None:
    base = train_settings("base", 3)
    for row in ROWS:
        differences = base.differences(train_settings(row, 3))
        assert all(line.startswith(("model.", "loss.gamma")) for line in differences), differences


@pytest.mark.parametrize("row", ROWS)
def test_only_the_global_rows_pool_by_the_mean(row: str) -> None:
    assert (train_settings(row, 0).model.pooling == "mean") == (row in {"base", "HN"})


def test_the_parts_are_those_of_the_series() -> None:
    from bench.ablation import style_settings
    from fsclap.data.splits import make_split

    count = 60
    series = [("train-00", "validation-00", "test-00")[i % 3] for i in range(count)]
    table = pa.table(
        {
            "utterance_id": [f"u{i:03d}" for i in range(count)],
            "series": series,
            "speaker": [f"{name}/e{i}/S00" for i, name in enumerate(series)],
            "caption": [f"caption {i}" for i in range(count)],
            "text": [""] * count,
            "speaker_embedding": np.random.default_rng(0).normal(size=(count, 8)).tolist(),
        }
    )
    split = make_split(table, style_settings(min_train_clips=2, min_eval_clips=2))
    assert split.train == [f"u{i:03d}" for i in range(0, count, 3)]
    assert split.test == [f"u{i:03d}" for i in range(2, count, 3)]
