"""The whole product on this machine: server, worker, deployments, and a run over the sample episodes.

    python -m deployments.local run     what `make run` does
    python -m deployments.local ui      what `make ui` does: the same server and worker, until Ctrl-C

Everything it starts ends with it. State lives in .prefect/ (runs, logs) and data/ (work files, corpus, models).
"""

import argparse
import asyncio
import ctypes
import json
import os
import re
import signal
import socket
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

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".prefect"
SAMPLES = ROOT / "samples"
MODELS = "data/models"
FOUND = "data/found"
QUERY = "a high voice, lively, with sweeping intonation"
"""What `make run` searches for in the end; the clips that it finds go to FOUND."""
FOLLOWERS = ("train-fsclap", "evaluate-fsclap", "index-corpus")
"""What a committed corpus starts, one after the other."""
SERVER_PORT = int(os.environ.get("FSCLAP_SERVER_PORT", "4200"))
SAMPLES_PORT = int(os.environ.get("FSCLAP_SAMPLES_PORT", "8765"))
"""Fixed, since an episode is known by its address: on another port the samples would be new episodes."""
API = f"http://127.0.0.1:{SERVER_PORT}/api"

ENVIRONMENT = {
    "PREFECT_HOME": str(HOME),
    "PREFECT_API_URL": API,
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # Leases on disk survive a server that is killed; the default keeps them in its memory.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "fsclap,storage",
    # A run that crashed is not to wait for a look every five and every ten seconds.
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
    "PREFECT_WORKER_QUERY_SECONDS": "3",
    "DO_NOT_TRACK": "1",
}

ON_THIS_MACHINE = {"download": {"private_addresses": True}}
"""Settings of a build: the sample pages are served by this machine, which builds ask nothing of by default."""


def run() -> int:
    """Build the corpus of the samples, wait for the model that this starts, and say where everything is."""
    from deployments.summary import answers, summary
    from fsclap.retrieval.index import index_folder

    with services(resume=False) as feeds:
        started = datetime.now(UTC)
        published = asyncio.run(
            finished_build(start("build-dataset/build-dataset", sources=feeds, settings=ON_THIS_MACHINE))
        )
        if published is None:
            print(f"The build failed: see the log above, or `make ui` and {API.removesuffix('/api')}", file=sys.stderr)
            return 1
        corpus, version = str(published["corpus"]), int(str(published["version"]))
        followers = []
        steps = () if published["new"] else unfinished(corpus, version)
        if steps:  # the event went out before; what it started was interrupted
            start(f"{steps[0]}/{steps[0]}", corpus=corpus, version=version)
        if published["new"] or steps:
            followers = asyncio.run(wait_for_followers(steps or FOLLOWERS, version, since=started))
    print(summary(corpus, MODELS, followers))
    if all(": Completed (" in follower for follower in followers):
        print(answers(index_folder(corpus), QUERY, ROOT / FOUND))
    print(f"\nPrefect UI  make ui, then {API.removesuffix('/api')}")
    return 0 if all(": Completed (" in follower for follower in followers) else 1


def ui() -> NoReturn:
    with services(resume=True) as feeds:
        print(f"\nPrefect UI    {API.removesuffix('/api')}\nSample pages  {'  '.join(feeds)}\nCtrl-C ends it.")
        while True:
            signal.pause()


@contextmanager
def services(*, resume: bool) -> Iterator[list[str]]:
    """Server, limits, deployments, worker and sample pages; yields the addresses of the sample feeds.

    Args:
        resume: Whether runs that were interrupted with the last server start again by themselves.
    """
    from samples.serve import serve

    os.environ.update(ENVIRONMENT)
    with ExitStack() as stack:
        require_free(SERVER_PORT, "FSCLAP_SERVER_PORT")
        require_free(SAMPLES_PORT, "FSCLAP_SAMPLES_PORT")
        HOME.mkdir(exist_ok=True)
        log = stack.enter_context((HOME / "server.log").open("a"))
        server = stack.enter_context(
            process([*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(SERVER_PORT)], stdout=log)
        )
        wait_until_healthy(server)
        asyncio.run(prepare(resume=resume))
        subprocess.run([*PREFECT, "--no-prompt", "deploy", "--all"], cwd=ROOT, check=True, stdout=log, stderr=log)
        asyncio.run(pause_schedules())
        site = stack.enter_context(serve(SAMPLES, port=SAMPLES_PORT))
        stack.enter_context(process([*PREFECT, "worker", "start", "--pool", "fsclap-cpu", "--type", "process"]))
        yield [f"{site}/{folder}/feed.xml" for folder in sorted({path.parent.name for path in SAMPLES.glob("*/*.mp4")})]


PREFECT = [sys.executable, "-m", "prefect"]


@contextmanager
def process(command: list[str], stdout: object = None) -> Iterator[subprocess.Popen[bytes]]:
    """A child in a process group of its own, which ends with this block, or with this process if that is killed."""
    child = subprocess.Popen(
        command, cwd=ROOT, stdout=stdout, stderr=subprocess.STDOUT,  # type: ignore[call-overload]
        start_new_session=True, preexec_fn=_end_with_parent,
    )  # fmt: skip
    try:
        yield child
    finally:
        stop(child)


def stop(child: subprocess.Popen[bytes], patience: float = 20) -> None:
    for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, sent)
        except ProcessLookupError:
            break
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    child.wait()


def _end_with_parent() -> None:
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def require_free(port: int, setting: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise SystemExit(
                f"Port {port} is in use. Is `make ui` still running? End it, or choose another port with {setting}=..."
            ) from None


def wait_until_healthy(server: subprocess.Popen[bytes], patience: float = 120) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{API}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise SystemExit(f"The Prefect server did not start: see {HOME / 'server.log'}")


async def prepare(*, resume: bool) -> None:
    """Bootstrap, and put right what a killed server or worker left: this server has no other worker yet."""
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
        # "Crashed" is what the automation for crashed runs waits for.
        name = "Crashed" if resume else "Interrupted"
        for orphan in orphans:
            state: State[None] = Crashed(name=name, message="Its server or worker was killed")
            await client.set_flow_run_state(orphan.id, state, force=True)
            print(f"The run {orphan.name!r} was interrupted; {'it' if resume else 'this run'} takes up what it left.")


async def pause_schedules() -> None:
    """The sample pages are up only as long as this program, so a nightly refresh would find no one at home."""
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        for deployment in await client.read_deployments():
            for schedule in deployment.schedules:
                await client.update_deployment_schedule(deployment.id, schedule.id, active=False)


def start(deployment: str, **parameters: object) -> UUID:
    """`prefect deployment run`; the id of the run that it made."""
    command = [*PREFECT, "deployment", "run", deployment]
    for name, value in parameters.items():
        command += ["--param", f"{name}={json.dumps(value)}"]
    made = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    print(made)
    found = re.search(r"UUID: ([0-9a-f-]{36})", made)
    if found is None:
        raise SystemExit(f"Prefect did not say which run it made:\n{made}")
    return UUID(found[1])


async def finished_build(run: UUID) -> dict[str, object] | None:
    """Wait for a run to end; what it published, or None when it did not complete."""
    from prefect.client.orchestration import get_client
    from prefect.flow_runs import wait_for_flow_run

    async with get_client() as client:
        ended: FlowRun = await wait_for_flow_run(run, timeout=None, client=client)
        while not has_ended(ended):
            await asyncio.sleep(1)
            ended = await wait_for_flow_run(run, timeout=None, client=client)
        state = ended.state
    return (await state.aresult()).model_dump() if state and state.is_completed() else None


def has_ended(run: "FlowRun") -> bool:
    """Whether a run is over for good: a crashed one starts again by itself, a few times."""
    from deployments.bootstrap import RESTARTS

    if run.state is None or not run.state.is_final():
        return False
    return run.state.name != "Crashed" or run.run_count > RESTARTS


def unfinished(corpus: str, version: int) -> Sequence[str]:
    """What follows a build and has not happened yet for this version of the corpus."""
    from deployments.summary import evaluation_of
    from fsclap.retrieval.index import index_folder, read_record

    if evaluation_of(MODELS, corpus, version) is None:
        return FOLLOWERS
    indexed = read_record(index_folder(corpus))
    return () if indexed is not None and indexed.version == version else FOLLOWERS[2:]


async def wait_for_followers(steps: Sequence[str], version: int, *, since: datetime) -> list[str]:
    """Wait for what was started for a corpus version, and say how each ended."""
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

    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        runs = await client.read_flow_runs(  # type: ignore[attr-defined]
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=1,
        )
        # Versions start at 0 again in a corpus that was deleted and built anew, so an older run may have this one too.
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
    # Both end the children through the `with` blocks. SIGINT too: a shell's background job inherits it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    return {"run": run, "ui": ui}[parser.parse_args().command]()


if __name__ == "__main__":
    sys.exit(main())
