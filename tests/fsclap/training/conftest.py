"""Clips cut from two real episodes, with known voices and captions; and settings of short runs."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from fsclap.audio import encode_flac
from fsclap.media import DecodeSettings, decode
from fsclap.model.settings import ModelSettings
from fsclap.training.settings import ComputeSettings, OptimizerSettings, TextSettings, TrainSettings
from tests.fsclap.conftest import SAMPLES

RATE = 24000
VOICES = 5
TINY = ModelSettings(fusion="shared", width=16, heads=2, embedding=16)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order, so that runs can be compared to the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def voice(number: int) -> np.ndarray:
    """The embedding of a voice: unit norm, nearly orthogonal to the others."""
    vector = np.random.default_rng(number).normal(size=256)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def caption(number: int) -> str:
    words = itertools.product(
        ("low", "high", "deep", "bright"), ("slowly", "fast", "evenly"), ("soft", "loud", "tense"), ("one", "two")
    )
    pitch, pace, energy, style = list(words)[number % 72]
    return f"A {pitch} and {energy} voice speaks {pace} in style {style}{'' if number < 72 else ' again'}."


def clip_table(folder: Path) -> pa.Table:
    """90 clips of 0.6 to 1.5 s from two series; five voices, each in both under another label.

    Their episodes are decoded into a folder.
    """
    folder.mkdir(exist_ok=True)
    rows = []
    for series, media in (("Lines", "crossed-lines/e01.mp4"), ("Ryby", "dve-ryby/e01.mp4")):
        wave = decode(SAMPLES / media, folder / series, sample_rate=RATE, settings=DecodeSettings()).mean(axis=0)
        for number in range(45):
            start = 1.3 * number
            seconds = 0.6 + 0.1 * (number % 10)
            clip = wave[int(start * RATE) : int((start + seconds) * RATE)]
            rows.append(row(series, number, clip, voice_number=number % VOICES))
    return pa.Table.from_pylist(rows)


def row(series: str, number: int, wave: np.ndarray, *, voice_number: int) -> dict[str, object]:
    id_ = f"{series.lower()}-{number:05d}"
    return {
        "utterance_id": id_,
        "source_id": series.lower(),
        "series": series,
        "episode": "e01",
        "speaker": f"{series}/e01/S{voice_number:02d}",
        "caption": caption(number + 45 * (series == "Ryby")),
        "style_key": f"style={number % 7}",
        "text": f"sentence number {number} of {series}",
        "duration": len(wave) / RATE,
        "speaker_embedding": voice(voice_number).tolist(),
        "audio": {"bytes": encode_flac(wave, RATE), "path": f"{id_}.flac"},
    }


def tiny(**changes: object) -> TrainSettings:
    """A run of seconds: three or four steps per epoch, without dropout by default.

    Changes of the optimiser and of what is computed where are named without their group.
    """
    settings: dict[str, object] = {
        "model": TINY.model_copy(update={"dropout": 0.0}),
        "batch": 8,
        "accumulate": 2,
        "epochs": 2,
        "head_lr": 3e-3,
        "encoder_lr": 1e-3,
        "accelerator": "cpu",
    }
    groups: dict[str, object] = {}
    for name, group, defaults in (
        ("optimizer", OptimizerSettings, {}),
        ("texts", TextSettings, {"queries": 0}),
        ("compute", ComputeSettings, {"workers": 0}),
    ):
        chosen = {field: changes.pop(field) for field in group.model_fields if field in changes}
        groups[name] = group(**(defaults | chosen))
    return TrainSettings(**(settings | groups | changes))  # type: ignore[arg-type]
