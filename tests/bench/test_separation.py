from pathlib import Path

import numpy as np
import pytest
import soundfile

from bench.separation import SAMPLE_RATE, Round, figures, run_round, write_files
from fsclap.corpus.separation.base import DemucsSettings, SeparationSettings
from fsclap.weights import WeightsSettings
from harness.models.demucs import write_demucs

SAMPLES = Path(__file__).parents[2] / "samples"


def test_files_are_drawn_from_the_samples_and_half_of_them_can_be_silent(tmp_path: Path) -> None:
    paths = write_files(tmp_path, count=3, seconds=(2, 3), half_silent=True, samples=SAMPLES)
    waves = [soundfile.read(path, dtype="float32")[0] for path in paths]
    assert all(2 * SAMPLE_RATE <= len(wave) <= 3 * SAMPLE_RATE and wave.shape[1] == 2 for wave in waves)
    assert any(wave[: len(wave) // 2].any() for wave in waves)
    assert not any(wave[len(wave) // 2 :].any() for wave in waves)


def test_a_ratio_counts_one_start_and_load() -> None:
    rounds = [Round(audio=10, command=13, command_load=3, ours=6, ours_load=1, difference=d) for d in (1e-7, 1e-6)]
    found = figures(rounds)
    assert (found["command_seconds"], found["ours_seconds"]) == (23, 11)
    assert found["ratio"] == pytest.approx(23 / 11)
    assert found["ratio_running"] == 2
    assert found["ours_real_time"] == 2
    assert found["difference"] == 1e-6


@pytest.mark.slow
def test_the_command_and_this_project_give_the_same(tmp_path: Path) -> None:
    repo = write_demucs(tmp_path / "repo", layout="repo")
    settings = SeparationSettings(
        engine="demucs", demucs=DemucsSettings(weights=WeightsSettings(name="htdemucs", folder=repo))
    )
    paths = write_files(tmp_path / "in", count=2, seconds=(2, 4), half_silent=False, samples=SAMPLES)
    measured = run_round(paths, settings, tmp_path)
    assert measured.difference < 1e-4
    assert np.abs(soundfile.read(tmp_path / paths[0].name)[0]).max() > 1e-3
    assert 0 < measured.ours_load < measured.ours
    assert 0 < measured.command_load < measured.command
