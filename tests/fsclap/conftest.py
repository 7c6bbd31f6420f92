import json
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture(scope="session")
def episode() -> Path:
    """A real recording that comes with the project: a video with speech."""
    return min(SAMPLES.glob("*/e01.mp4"))


@pytest.fixture(scope="session")
def dry_episode() -> Path:
    """A recording without music."""
    truth = json.loads((SAMPLES / "truth.json").read_text())
    episodes = [episode for series in truth["series"] for episode in series["episodes"]]
    return SAMPLES / next(episode["file"] for episode in episodes if not episode["music"])
