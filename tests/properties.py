"""How much property tests and fuzzing try: the same cases on every run, more of them with FSCLAP_CASES.

    FSCLAP_CASES=2000 python -m pytest tests/fuzz

Each test takes its settings from here, since the profile is loaded with this module.
"""

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings

CASES = int(os.environ.get("FSCLAP_CASES", "40"))
"""Examples that a property is tried on."""

settings.register_profile(
    "fsclap",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=CASES,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("fsclap")


usual = settings()
"""Settings for most properties."""
fuzzed = settings(phases=[Phase.explicit, Phase.generate])
"""Settings for fuzzing: a case is a few bytes of a file, which become no clearer by being fewer."""


def fewer(by: int, parent: settings | None = None, **options: int) -> settings:
    """Settings for what takes longer: a part of the usual number of examples, two at least."""
    return settings(parent, max_examples=max(2, CASES // by), **options)


def attempt(call: Callable[[], Any], *errors: type[Exception]) -> tuple[Any, str]:
    """What a call returns, and no message; or nothing, and the message of one of these errors."""
    try:
        return call(), ""
    except errors as error:
        return None, str(error)
