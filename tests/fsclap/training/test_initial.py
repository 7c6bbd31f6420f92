import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fsclap.model.settings import PAPER, ModelSettings
from fsclap.model.systems.base import ModelError
from fsclap.model.systems.fs_clap import FSCLAP
from fsclap.training.initial import STARTER, initial_model, load_initial
from fsclap.training.settings import TrainSettings
from tests.fsclap.model.test_embedded import vowel


def test_a_training_starts_from_the_starter_unless_it_does_not_fit() -> None:
    assert initial_model(TrainSettings()) == STARTER
    assert initial_model(TrainSettings(init="starter")) == STARTER
    assert initial_model(TrainSettings(model=ModelSettings(dropout=0.3))) == STARTER
    assert initial_model(TrainSettings(init="none")) is None
    assert initial_model(TrainSettings(model=PAPER)) is None
    assert initial_model(TrainSettings(model=ModelSettings(width=64))) is None


def test_a_start_that_is_named_must_fit(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="width is 256 there, 64 here"):
        initial_model(TrainSettings(init="starter", model=ModelSettings(width=64)))
    with pytest.raises(ModelError, match="there is no model in"):
        initial_model(TrainSettings(init=str(tmp_path)))


def test_a_damaged_start_is_told(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(STARTER, damaged)
    (damaged / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="can't be started from"):
        load_initial(FSCLAP(ModelSettings()), damaged)


def test_the_starter_is_small_and_says_what_it_was_trained_on() -> None:
    assert sum(file.stat().st_size for file in STARTER.iterdir()) < 8e6
    assert "speaker" in (STARTER / "README.md").read_text()
    assert json.loads((STARTER / "config.json").read_text())["settings"] == ModelSettings().model_dump(mode="json")


def test_the_starter_knows_what_high_and_deep_mean() -> None:
    model = FSCLAP.from_pretrained(STARTER)
    pitches = [85.0, 120.0, 170.0, 240.0, 340.0]
    clips = model.embed_audio([vowel(pitch, seconds=2.0) for pitch in pitches])
    deep, high = (model.embed_text([query])[0] for query in ("a deep voice", "a squeaky, high-pitched voice"))
    assert np.corrcoef(pitches, (clips @ high - clips @ deep).numpy())[0, 1] > 0.7
