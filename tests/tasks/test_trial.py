"""What doesn't work here is found before anything is downloaded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.build_dataset import build_dataset
from fsclap import ffmpeg
from fsclap.corpus import diarization
from fsclap.corpus.settings import BuildSettings
from tasks import trial
from tasks.declared import Plan, declare


@pytest.fixture(scope="module")
def plan() -> Plan:
    return declare(BuildSettings())


@pytest.fixture(autouse=True)
def _nothing_tried_before() -> Iterator[None]:
    trial._tried.cache_clear()
    yield
    trial._tried.cache_clear()


def test_every_engine_hears_the_made_up_sound(plan: Plan) -> None:
    """A detector that took it for noise would leave what comes after it untried."""
    trial.try_out(plan)
    diarizer = diarization.load_diarizer(plan.settings.diarization, "cpu")
    speech = trial.soxr.resample(trial.made_up_speech(), trial.RATE, diarizer.sample_rate).astype(np.float32)
    (found,) = diarizer.diarize([speech])
    assert found.turns, "the diarizer embeds and transcribes it"


def test_an_engine_that_cannot_run_is_named(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """numba finds no folder for its cache: the service user has no home."""

    def measure(*_: Any) -> None:
        raise RuntimeError("cannot cache function '__o_fold': no locator available")

    monkeypatch.setattr(trial.attributes, "measure", measure)
    with pytest.raises(trial.TrialError, match=r"attributes fails on .*no locator available\)\. Nothing was down"):
        trial.try_out(plan)


def test_an_ffmpeg_that_says_other_words_is_named(plan: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho 'ffmpeg version 0.5'\necho '[info] Input #0, wav, from x:' >&2\n")
    program.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "ffmpeg_binary", lambda: str(program))
    with pytest.raises(trial.TrialError, match=r"ffmpeg \(.*no_audio_track.*install another"):
        trial.try_out(plan)


def test_a_build_tries_before_it_asks_any_server(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr("flows.build_dataset.declare", lambda settings: called.append("declare"))
    monkeypatch.setattr("flows.build_dataset.try_out", lambda plan: called.append("try"))

    def listing(*_: Any) -> None:
        called.append("list")
        raise InterruptedError

    monkeypatch.setattr("flows.build_dataset.list_episodes", listing)
    with pytest.raises(InterruptedError):
        build_dataset.fn(["https://example.org/feed.xml"])
    assert called == ["declare", "try", "list"]
