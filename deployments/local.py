"""Run the whole product on this machine: server, worker, deployments, sample episodes.

    python -m deployments.local run     what `make run` does
    python -m deployments.local ui      what `make ui` does: server and worker, until Ctrl-C

Every process that it starts ends with it. State is kept in .prefect/ (runs, logs) and data/ (work
files, corpus, models).
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from uuid import UUID

from deployments.processes import PREFECT, process, require_free, run_command, run_id
from fsclap.environment import SILENT

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".prefect"
SAMPLES = ROOT / "samples"
MODELS = "data/models"
FOUND = "data/found"
QUERY = "a high voice, lively, with sweeping intonation"
"""What `make run` searches for at the end; the clips that match go to FOUND."""
FOLLOWERS = ("train-fsclap", "evaluate-fsclap", "index-corpus")
"""The flows that a committed corpus version starts, one after another."""
SERVER_PORT = int(os.environ.get("FSCLAP_SERVER_PORT", "4200"))
SAMPLES_PORT = int(os.environ.get("FSCLAP_SAMPLES_PORT", "8765"))
"""Fixed, because an episode is identified by its address: on another port the samples would be new
episodes."""
API = f"http://127.0.0.1:{SERVER_PORT}/api"

ENVIRONMENT = {
    "PREFECT_HOME": str(HOME),
    "PREFECT_API_URL": API,
    "PREFECT_UI_URL": API.removesuffix("/api"),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # Leases on disk survive a server that is killed; the default keeps them in its memory.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "fsclap,storage",
    # The defaults, five and ten seconds, would delay the restart of a crashed run.
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
    "PREFECT_WORKER_QUERY_SECONDS": "3",
    **SILENT,
}

ON_THIS_MACHINE = {"download": {"private_addresses": True}}
"""Build settings: this machine serves the sample pages, and by default a build does not fetch from
it."""


def run() -> int:
    """Build the corpus of the samples, wait for the model, and print where everything is.

    Returns:
        The exit status: 0 if every flow completed.
    """
    from deployments.summary import answers, summary
    from fsclap.retrieval.index import index_location

    with services(resume=False) as feeds:
        started = datetime.now(UTC)
        published = asyncio.run(
            finished_build(start("build-dataset/build-dataset", sources=feeds, settings=ON_THIS_MACHINE))
        )
        if published is None:
            ui_address = API.removesuffix("/api")
            print(f"The build failed. See the log above, or run `make ui` and open {ui_address}", file=sys.stderr)
            return 1
        corpus, version = str(published["corpus"]), int(str(published["version"]))
        followers = []
        steps = () if published["new"] else unfinished(corpus, version)
        if steps:  # an earlier run announced this version, but what followed was interrupted
            start(f"{steps[0]}/{steps[0]}", corpus=corpus, version=version)
        if published["new"] or steps:
            followers = asyncio.run(wait_for_followers(steps or FOLLOWERS, version, since=started))
    print(summary(corpus, MODELS, followers))
    if all(": Completed (" in follower for follower in followers):
        print(answers(Path(index_location(corpus)), QUERY, ROOT / FOUND))
    print(f"\nPrefect UI  run `make ui`, then open {API.removesuffix('/api')}")
    return 0 if all(": Completed (" in follower for follower in followers) else 1


def ui() -> NoReturn:
    """Run server, worker and sample pages until Ctrl-C."""
    with services(resume=True) as feeds:
        print(f"\nPrefect UI    {API.removesuffix('/api')}\nSample pages  {'  '.join(feeds)}\nPress Ctrl-C to stop.")
        while True:
            signal.pause()


@contextmanager
def services(*, resume: bool) -> Iterator[list[str]]:
    """Run server, worker and sample pages for as long as the block runs.

    Args:
        resume: Whether runs that were interrupted with the last server start again by themselves.

    Yields:
        The addresses of the sample feeds.
    """
    from samples.serve import serve

    os.environ.update(ENVIRONMENT)
    with ExitStack() as stack:
        require_free(SERVER_PORT, "FSCLAP_SERVER_PORT")
        require_free(SAMPLES_PORT, "FSCLAP_SAMPLES_PORT")
        HOME.mkdir(exist_ok=True)
        log = stack.enter_context((HOME / "server.log").open("a"))
        server = stack.enter_context(
            process(
                [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(SERVER_PORT)], cwd=ROOT, stdout=log
            )
        )
        wait_until_healthy(server)
        asyncio.run(prepare(resume=resume))
        subprocess.run([*PREFECT, "--no-prompt", "deploy", "--all"], cwd=ROOT, check=True, stdout=log, stderr=log)
        asyncio.run(pause_schedules())
        site = stack.enter_context(serve(SAMPLES, port=SAMPLES_PORT))
        worker = [*PREFECT, "worker", "start", "--pool", "fsclap-cpu", "--type", "process"]
        stack.enter_context(process(worker, cwd=ROOT))
        yield [f"{site}/{folder}/feed.xml" for folder in sorted({path.parent.name for path in SAMPLES.glob("*/*.mp4")})]


def wait_until_healthy(server: subprocess.Popen[bytes], patience: float = 120) -> None:
    """Wait until the server answers.

    Raises:
        SystemExit: It ended, or did not answer within `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{API}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise SystemExit(f"The Prefect server did not start. See {HOME / 'server.log'}")


async def prepare(*, resume: bool) -> None:
    """Bootstrap, and mark the runs that a killed server or worker left behind."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed, State

    from deployments.bootstrap import bootstrap

    unfinished = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    async with get_client() as client:
        await bootstrap(client)
        orphans = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=unfinished)))
        )
        # The automation that restarts crashed runs reacts to this name.
        name = "Crashed" if resume else "Interrupted"
        for orphan in orphans:
            state: State[None] = Crashed(name=name, message="Its server or its worker was killed")
            await client.set_flow_run_state(orphan.id, state, force=True)
            print(
                f"The run {orphan.name!r} was interrupted; {'it' if resume else 'this run'} continues where it stopped."
            )


async def pause_schedules() -> None:
    """Pause all schedules: sample pages are served only while this program runs."""
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        for deployment in await client.read_deployments():
            for schedule in deployment.schedules:
                await client.update_deployment_schedule(deployment.id, schedule.id, active=False)


def start(deployment: str, **parameters: object) -> UUID:
    """Start a run with `prefect deployment run`, and return its id."""
    command = run_command(deployment, **parameters)
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    print(output)
    return run_id(output)


async def finished_build(run: UUID) -> dict[str, object] | None:
    """Wait for a run to end, and return what it published; None if it did not complete."""
    from prefect.client.orchestration import get_client
    from prefect.flow_runs import wait_for_flow_run

    from tasks.waiting import has_ended

    async with get_client() as client:
        ended: FlowRun = await wait_for_flow_run(run, timeout=None, client=client)
        while not has_ended(ended):
            await asyncio.sleep(1)
            ended = await wait_for_flow_run(run, timeout=None, client=client)
        state = ended.state
    return (await state.aresult()).model_dump() if state and state.is_completed() else None


def unfinished(corpus: str, version: int) -> Sequence[str]:
    """Return the flows after the build that have not completed for a corpus version."""
    from deployments.summary import evaluation_of
    from fsclap.retrieval.index import index_location, read_record

    if evaluation_of(MODELS, corpus, version) is None:
        return FOLLOWERS
    indexed = read_record(Path(index_location(corpus)))
    return () if indexed is not None and indexed.version == version else FOLLOWERS[2:]


async def wait_for_followers(steps: Sequence[str], version: int, *, since: datetime) -> list[str]:
    """Wait for the flows of a corpus version, and return how each ended, one line per flow."""
    from prefect.client.orchestration import get_client

    outcomes = []
    async with get_client() as client:
        for name in steps:
            deployment = await client.read_deployment_by_name(f"{name}/{name}")
            ended = await _final_state(client, deployment.id, version, since=since)
            outcomes.append(f"{name}: {ended}")
            if not ended.startswith("Completed"):
                break
    return outcomes


async def _final_state(
    client: object, deployment: UUID, version: int, *, since: datetime, patience: float = 900
) -> str:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
    from prefect.client.schemas.sorting import FlowRunSort

    from tasks.waiting import has_ended

    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        runs = await client.read_flow_runs(  # type: ignore[attr-defined]
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=1,
        )
        # A corpus that was deleted and built again starts at version 0, so an older run may have
        # the same version.
        if runs and runs[0].created >= since and runs[0].parameters.get("version") == version:
            state = runs[0].state
            if state is not None and has_ended(runs[0]):
                return (
                    f"{state.name} ({runs[0].name})" if state.name == "Completed" else f"{state.name}: {state.message}"
                )
        await asyncio.sleep(1)
    return f"not finished after {patience:g} s; see `make ui`"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "ui"])
    # Exit through the `with` blocks, which stop the children. SIGINT needs a handler too: a
    # background job of a shell starts with it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    return {"run": run, "ui": ui}[parser.parse_args().command]()


if __name__ == "__main__":
    sys.exit(main())
