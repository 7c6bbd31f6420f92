"""Whatever is killed, at whatever moment: the chain comes to the end that it would have come to."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.faults.campaign import Reference, Strike, trial
from harness.faults.plan import FULL, SHORT
from harness.faults.points import MOMENTS
from harness.faults.site import Site


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_nothing_is_lost_and_nothing_doubled(name: str, videos: Site, undisturbed: Reference, tmp_path: Path) -> None:
    result = trial(tmp_path, videos, SHORT[name], undisturbed)
    assert len(result.struck) == len(SHORT[name])
    assert (result.lost, result.doubled, result.left_running) == (0, 0, 0)
    assert result.problems == []
    assert result.models == undisturbed.models, "the model is trained once, and the same to the last bit"
    assert result.same_index


def test_every_moment_names_a_function_of_the_project() -> None:
    import functools
    import importlib

    for moment in MOMENTS:
        module, path = moment.function.split(":")
        assert callable(functools.reduce(getattr, path.split("."), importlib.import_module(module)))


def test_the_full_plan_has_sixty_faults_over_all_stages() -> None:
    planned = [strike for strikes in FULL.values() for strike in strikes]
    assert len(planned) >= 60
    assert {strike.moment.stage for strike in planned} >= {moment.stage for moment in MOMENTS}


@pytest.mark.parametrize("plan", [FULL, SHORT])
def test_the_faults_of_a_campaign_are_told_apart(plan: Mapping[str, list[Strike]]) -> None:
    for strikes in plan.values():
        assert len({strike.id for strike in strikes}) == len(strikes)
