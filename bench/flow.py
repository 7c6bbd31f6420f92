"""A Prefect server for one bench, the tasks of a build, and the sound of the samples."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fsclap.corpus.settings import BuildSettings
from fsclap.media import DecodeSettings, decode

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "samples"
EMBEDDED = BuildSettings().resolved()
"""The defaults of a build, every engine named: those of the embedded profile."""


@contextmanager
def prefect_server() -> Iterator[None]:
    """Run a server with an empty database and the limits that the tasks need, during the block."""
    from prefect.client.orchestration import get_client
    from prefect.testing.utilities import prefect_test_harness

    from deployments.bootstrap import bootstrap

    async def prepare() -> None:
        async with get_client() as client:
            await bootstrap(client)

    with prefect_test_harness(server_startup_timeout=120):
        asyncio.run(prepare())
        yield


def build_tasks() -> list[Any]:
    """Return the tasks of `build-dataset` in the order in which they run."""
    from tasks import (
        captioning,
        commit,
        consistency,
        diarization,
        download,
        linking,
        measure,
        plan,
        publish,
        separation,
    )

    return [
        download.list_episodes,
        plan.plan_build,
        download.download,
        separation.separate,
        diarization.diarize,
        measure.measure,
        consistency.filter_speakers,
        captioning.caption,
        commit.commit,
        linking.link_speakers,
        publish.publish,
    ]


@contextmanager
def sample_waves(rate: int, samples: Path = SAMPLES) -> Iterator[list[np.ndarray]]:
    """Decode the sample episodes to (2, samples) float32 at `rate` Hz.

    They are mapped from temporary files, which are deleted at the end of the block.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield [
            decode(media, Path(folder) / f"{number}.f32", sample_rate=rate, settings=DecodeSettings())
            for number, media in enumerate(sorted(samples.glob("*/*.mp4")))
        ]
