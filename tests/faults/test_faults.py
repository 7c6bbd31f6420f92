"""Whatever is killed, at whatever moment: the chain ends as it would have ended."""

import functools
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest

from fsclap.corpus.settings import BuildSettings
from fsclap.training.settings import TrainSettings
from harness.faults.campaign import SETTINGS, Reference, Strike, trial
from harness.faults.plan import FULL, SHORT
from harness.faults.points import MOMENTS, Moment
from harness.faults.site import Site
from harness.faults.stand import ROOT, TRAINING


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_a_campaign_loses_nothing_and_doubles_nothing(
    name: str, videos: Site, undisturbed: Reference, tmp_path: Path
) -> None:
    result = trial(tmp_path, videos, SHORT[name], undisturbed)
    assert len(result.struck) == len(SHORT[name])
    assert (result.lost, result.doubled, result.left_running) == (0, 0, 0)
    assert result.problems == []
    assert result.models == undisturbed.models, "the model is trained once, and the same to the last bit"
    assert result.same_index


@pytest.mark.parametrize("function", sorted({moment.function for moment in MOMENTS}))
def test_a_moment_names_a_function_of_the_project(function: str) -> None:
    module, path = function.split(":")
    assert callable(functools.reduce(getattr, path.split("."), importlib.import_module(module)))


VICTIM = """
import colorsys
for number in range(5):
    print(number, flush=True)
    colorsys.rgb_to_hsv(0.1, 0.2, 0.3)
    colorsys.hsv_to_rgb(0.1, 0.2, 0.3)
"""


def test_a_point_kills_its_process_at_its_moment(tmp_path: Path) -> None:
    moment = Moment("any", "colorsys:rgb_to_hsv", "after", call=3)
    point = {**asdict(moment), "id": "x", "action": "kill", "module": "colorsys", "function": "rgb_to_hsv"}
    (tmp_path / "x.json").write_text(json.dumps(point))
    environment = {"PYTHONPATH": str(ROOT / "harness/faults/inject"), "FSCLAP_FAULTS": str(tmp_path)}
    command = [sys.executable, "-c", VICTIM]
    victim = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert victim.returncode == -signal.SIGKILL
    assert victim.stdout.split() == ["0", "1", "2"]
    assert (tmp_path / "x.reached").read_text().isdigit()


def test_the_settings_of_a_stand_are_settings_of_the_flows() -> None:
    TrainSettings.model_validate(TRAINING)
    BuildSettings.model_validate(SETTINGS)


def test_the_full_plan_has_sixty_faults_over_all_stages() -> None:
    planned = [strike for strikes in FULL.values() for strike in strikes]
    assert len(planned) >= 60
    assert {strike.moment.stage for strike in planned} >= {moment.stage for moment in MOMENTS}


@pytest.mark.parametrize("plan", [FULL, SHORT])
def test_the_faults_of_a_campaign_have_different_ids(plan: Mapping[str, list[Strike]]) -> None:
    for strikes in plan.values():
        assert len({strike.id for strike in strikes}) == len(strikes)
