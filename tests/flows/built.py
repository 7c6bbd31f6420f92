"""A corpus that the real flow built from a feed on localhost, and how to build it again."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import TaskRun

from flows.build_dataset import build_dataset
from fsclap.corpus.settings import BuildSettings
from fsclap.ffmpeg import ffmpeg_binary
from harness.samples import cut, sample_episodes
from storage.corpus import Corpus
from tests.flows.pages import serve
from tests.sockets import Contact

SECONDS, SPARE_SECONDS = 30.0, 12.0
"""Length of the two episodes of the corpus, and of the one that a test may add."""
LATE, HOLE = 2.5, (17.0, 20.0)
"""In the second episode the sound begins later than the picture, and there is none for a while."""


@dataclass(frozen=True)
class Built:
    """A corpus of two episodes.

    Attributes:
        feed: Address of the feed that lists the episodes.
        shown: File name -> episode, as the feed lists them now.
        spare: An episode that the feed may list later.
        requests: Names that the server was asked for, in order.
        contacts: Whom this process asked for while it built.
    """

    feed: str
    shown: dict[str, Path]
    spare: Path
    requests: list[str]
    corpus: str
    work: str
    contacts: frozenset[Contact] = frozenset()

    def build(self, **settings: Any) -> Any:
        """Run build-dataset; its final state."""
        chosen = local_settings(**settings)
        return build_dataset([self.feed], self.corpus, self.work, chosen, return_state=True)

    def rows(self) -> list[dict[str, Any]]:
        columns = ["utterance_id", "start", "end", "similarity", "speaker", "caption", "text"]
        return Corpus.open(self.corpus).utterances(columns=columns).to_pylist()

    def outputs(self, stage: str) -> dict[str, int]:
        """Key of each output that a stage left -> when it was written."""
        manifests = Path(self.work, stage).glob("*/*/manifest.json")
        return {path.parent.name: path.stat().st_mtime_ns for path in manifests}


def local_settings(**settings: Any) -> BuildSettings:
    """Settings of a build that may ask this machine for recordings."""
    download = {"private_addresses": True, **settings.pop("download", {})}
    return BuildSettings.model_validate({"download": download, **settings})


@contextmanager
def build_once(folder: Path) -> Iterator[Built]:
    """Serve two episodes, the first of each series, and build their corpus."""
    episodes = sample_episodes()
    lengths = {
        "e01.mp4": (episodes[0], SECONDS),
        "e02.mp4": (episodes[-1], SECONDS),
        "e03.mp4": (episodes[1], SPARE_SECONDS),
    }
    files = {name: cut(source, folder / name, start=0, seconds=seconds) for name, (source, seconds) in lengths.items()}
    spare = files.pop("e03.mp4")
    files["e02.mp4"] = with_late_and_missing_sound(files["e02.mp4"], folder / "holes" / "e02.mp4")
    with serve(files) as (address, requests):
        built = Built(f"{address}/feed.xml", files, spare, requests, str(folder / "corpus"), str(folder / "work"))
        assert built.build().is_completed()
        yield built


def with_late_and_missing_sound(episode: Path, destination: Path) -> Path:
    destination.parent.mkdir()
    command = [
        ffmpeg_binary(),
        "-nostdin",
        "-v",
        "error",
        "-i",
        str(episode),
        "-itsoffset",
        str(LATE),
        "-i",
        str(episode),
    ]
    lost = f"noise=drop='between(pts*tb,{HOLE[0]},{HOLE[1]})'"
    options = ["-map", "0:v", "-map", "1:a", "-c", "copy", "-bsf:a", lost]
    subprocess.run([*command, *options, str(destination)], check=True)
    return destination


def task_states(state: Any) -> dict[str, str]:
    """Task run name -> name of its final state, of the flow run that ended in `state`."""

    async def read() -> dict[str, str]:
        async with get_client() as client:
            only = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
            runs: list[TaskRun] = await client.read_task_runs(flow_run_filter=only)
        return {run.name: run.state_name or "" for run in runs}

    return asyncio.run(read())


def artifacts(state: Any) -> dict[str, Any]:
    """Key -> content of the artifacts of the flow run that ended in `state`."""

    async def read() -> dict[str, Any]:
        async with get_client() as client:
            run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
            # Artifacts without a key say where Prefect keeps the flow's result.
            return {shown.key: shown.data for shown in await client.read_artifacts(artifact_filter=run) if shown.key}

    return asyncio.run(read())
