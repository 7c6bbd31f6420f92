"""Hand batches out to a Ray cluster: one Ray task per batch, a bounded number at once.

Ray's own retries are off: they would not show that a worker died, and what is left to do is known from the ledger of
the corpus alone. So the build hands a batch out again whose worker died. Ray is imported only here, inside functions,
since it is an extra.
"""

import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import httpx
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.states import Crashed

from fsclap.corpus.cluster import ADDRESS, NOT_INSTALLED, RaySettings, ray_is_installed
from fsclap.corpus.settings import BuildSettings
from storage.corpus import Corpus
from storage.objects import Place
from tasks.batches import Batch
from tasks.declared import Plan
from tasks.handing_out import Books, HandedOut
from tasks.limits import gpu_slot
from tasks.one_batch import WORK, process_whole

log = logging.getLogger("fsclap.tasks")

LOOK_EVERY = 5.0
"""Seconds after which the build looks around although no batch has ended."""
PROBE = 300.0
"""Seconds within which a machine says whether it can do batches: it imports everything for that."""


class ClusterError(RuntimeError):
    """The Ray cluster can't do the batches of this build. The message says why, and what to do."""


@dataclass(frozen=True)
class Machine:
    """A machine of the cluster, with the cores and GPUs that Ray may give out."""

    node: str
    name: str
    cpus: float
    gpus: float


def hand_out_on_ray(
    batches: Iterable[Batch], corpus: str, work: str, plan: Plan, progress: Callable[[int], object]
) -> HandedOut:
    """Have batches processed by a Ray cluster, and wait until all of them have ended.

    A batch whose worker dies is handed out again, `TRIES` times at most. When this process ends, so do its tasks.

    Args:
        batches: Of episodes that all machines of the cluster reach.
        corpus: Location of the corpus, the same on all of them.
        work: Folder of the stages' outputs on each machine.
        plan: What the machines have to declare, too: one with another version of a stage refuses.
        progress: Told how many episodes are done.

    Raises:
        ClusterError: There is no cluster, or one of its machines does not see the corpus or the Prefect server.
    """
    corpus, work = _absolute(corpus), str(Path(work).absolute())
    settings = plan.settings
    with _cluster(settings.ray) as runner:
        machines = _machines()
        asked = asked_of_ray(settings, machines)
        books = Books(batches, corpus)
        _require_able(machines, asked, corpus, work, [item.episode for batch in books.waiting for item in batch.items])
        return _Parent(books, work, plan, progress, runner, asked).run()


@task(task_run_name="process {batch.name}", cache_policy=NO_CACHE, persist_result=False)
def process_on_ray(batch: Batch, corpus: str, work: str, plan: Plan) -> None:
    """Process a batch in a worker of a Ray cluster, which has allotted it its cores and its GPU."""
    process_whole(batch, corpus, work, plan, gpu_slot)


class _Parent:
    def __init__(
        self,
        books: Books,
        work: str,
        plan: Plan,
        progress: Callable[[int], object],
        runner: Any,
        asked: dict[str, float],
    ) -> None:
        self.books, self.work, self.plan, self.progress = books, work, plan, progress
        self.runner, self.asked = runner, asked
        self.running: dict[Any, tuple[Batch, Any]] = {}
        """Ray's reference to a task -> its batch, and Prefect's future."""

    def run(self) -> HandedOut:
        import ray

        try:
            while self.books.waiting or self.running:
                while self.books.waiting and len(self.running) < self.plan.settings.batches_ahead:
                    self._hand_out(self.books.waiting.popleft())
                ended, _ = ray.wait([*self.running], num_returns=1, timeout=LOOK_EVERY)
                for reference in ended:
                    self._settle(*self.running.pop(reference))
                self.progress(self.books.episodes_done)
        finally:
            for reference in self.running:  # the build was cancelled
                ray.cancel(reference, force=True)
        return self.books.outcome()

    def _hand_out(self, batch: Batch) -> None:
        from prefect_ray.context import remote_options

        parameters = {"batch": batch, "corpus": self.books.corpus, "work": self.work, "plan": self.plan}
        with remote_options(**self.asked, max_retries=0):
            future = self.runner.submit(process_on_ray, parameters)
        self.books.count(batch)
        self.running[future.wrapped_future] = batch, future

    def _settle(self, batch: Batch, future: Any) -> None:
        future.wait()
        state = future.state
        if state.is_completed():
            if self.books.lacking([batch]):
                self.books.again(batch, "its task has ended, and the corpus lacks it")
            else:
                self.books.finish(batch)
        elif state.is_crashed():
            _show_crashed(future.task_run_id, state.message)
            self.books.again(batch, f"its Ray task crashed ({_reason(state.message)})")
        else:
            self.books.fail(batch, state.message or "failed")


# The cluster


@contextmanager
def _cluster(settings: RaySettings) -> Iterator[Any]:
    """Connect to the cluster of the settings, or make one on this machine; yield its task runner."""
    if not ray_is_installed():
        raise ClusterError(NOT_INSTALLED)
    if not get_current_settings().api.url:
        raise ClusterError(
            "fan_out=ray needs a Prefect server that the machines of the cluster reach: set PREFECT_API_URL to its "
            "address"
        )
    import ray
    from prefect_ray import RayTaskRunner

    address = settings.cluster()
    if address is None:
        runner = RayTaskRunner(init_kwargs={"address": "local", "include_dashboard": False})
    elif address == "auto":  # which RayTaskRunner would take for none
        runner = RayTaskRunner(init_kwargs={"address": address})
    else:
        runner = RayTaskRunner(address=address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        runner.__enter__()
    except Exception as error:  # Ray has no class for what may be wrong here
        where = f"the Ray cluster at {address} does not let this build in" if address else "no Ray cluster starts here"
        remedy = (
            f"correct ray.address or {ADDRESS}; all machines and the build need the same versions of Python and Ray, "
            "and one token"
            if address
            else "see the logs in the folder ray of the folder for temporary files"
        )
        raise ClusterError(f"{where} ({_reason(error)}): {remedy}") from error
    finally:
        # Ray has taken the signal from Prefect, which cancels a run with it.
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
    try:
        with _flow_by_value():
            yield runner
    finally:
        runner.__exit__(None, None, None)
        ray.shutdown()


@contextmanager
def _flow_by_value() -> Iterator[None]:
    """Send workers the flow itself, which is part of the context of a task.

    A deployment loads it from a file, as a module whose name they could not import.
    """
    from ray import cloudpickle

    context = FlowRunContext.get()
    module = sys.modules.get(context.flow.fn.__module__) if context is not None and context.flow is not None else None
    if module is None:
        yield
        return
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _machines() -> list[Machine]:
    import ray

    return [
        Machine(
            node=node["NodeID"],
            name=node["NodeManagerHostname"],
            cpus=node["Resources"].get("CPU", 0.0),
            gpus=node["Resources"].get("GPU", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def asked_of_ray(settings: BuildSettings, machines: list[Machine]) -> dict[str, float]:
    """Return what a batch asks of Ray: `num_cpus` and `num_gpus`.

    Ray does not set aside what nobody asks for. A batch uses as many threads as it has cores.
    """
    gpus = 0.0 if settings.device == "cpu" else settings.ray.gpus or 1.0
    if settings.ray.cpus:
        return {"num_cpus": settings.ray.cpus, "num_gpus": gpus}
    able = [machine for machine in machines if machine.cpus >= 1 and machine.gpus >= gpus]
    shares = [machine.cpus * gpus / machine.gpus if gpus else machine.cpus / 2 for machine in able]
    return {"num_cpus": max(1, int(min(shares, default=1))), "num_gpus": gpus}


def _require_able(
    machines: list[Machine], asked: dict[str, float], corpus: str, work: str, episodes: list[Any]
) -> None:
    """Have each machine that would get batches try what they need.

    Raises:
        ClusterError: One of them can't do batches.
    """
    able = [machine for machine in machines if machine.cpus >= asked["num_cpus"] and machine.gpus >= asked["num_gpus"]]
    if not able:
        has = "; ".join(f"{machine.name}: {machine.cpus:g} and {machine.gpus:g}" for machine in machines)
        raise ClusterError(
            f"no machine of the Ray cluster has {asked['num_cpus']:g} cores and {asked['num_gpus']:g} GPUs, which a "
            f"batch asks for ({has}): lower ray.cpus or ray.gpus, or add a machine"
        )
    folders = sorted({str(_file(episode.locator).parent) for episode in episodes if episode.is_local})
    place, mark = Corpus.at(corpus).place, f".ray-{uuid.uuid4().hex}"
    place.write(mark, b"1")
    try:
        problems = _probe(able, corpus, mark, work, folders)
    finally:
        place.delete(mark)
    if problems:
        raise ClusterError(f"nothing was handed out to Ray: {'; '.join(problems)}")


def _probe(machines: list[Machine], corpus: str, mark: str, work: str, folders: list[str]) -> list[str]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    settings = get_current_settings()
    given = (corpus, mark, work, folders, str(settings.api.url), str(settings.results.local_storage_path))
    # In a process of its own: libraries that were loaded with no core would give a later batch one thread.
    probe = ray.remote(num_cpus=0, max_calls=1)(found_wanting)
    asked = [
        probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(machine.node, soft=False)).remote(*given)
        for machine in machines
    ]
    ray.wait(asked, num_returns=len(asked), timeout=PROBE)
    problems = []
    for machine, reference in zip(machines, asked, strict=True):
        try:
            problem = ray.get(reference, timeout=0)
        except ray.exceptions.GetTimeoutError:
            problem = f"it does not answer within {PROBE:g} s"
        except Exception as error:  # whatever keeps the machine from importing this module
            problem = f"{_reason(error)}; it needs the same release of fsclap, with its extra ray"
        if problem:
            problems.append(f"{machine.name}: {problem}")
    return problems


def found_wanting(corpus: str, mark: str, work: str, folders: list[str], api: str, results: str) -> str:
    """Say in words what keeps this machine from doing batches; empty if nothing does.

    Args:
        corpus: Location of the corpus.
        mark: Name of a file that the build has just written there.
        work: Folder of work files; FSCLAP_WORK goes before it.
        folders: Those of local recordings.
        api: Address of the Prefect server.
        results: Folder of Prefect's results, from the settings of the build.
    """
    try:
        seen = Place.at(corpus).exists(mark)
    except OSError as error:
        return f"the corpus {corpus} can't be reached from it ({error})"
    if not seen:
        return f"its {corpus} is not the corpus of the build: put the corpus where all machines see it"
    for folder in folders:
        if not Path(folder).is_dir():
            return f"it has no folder {folder}, in which recordings are"
    remedies = {
        os.environ.get(WORK) or work: f"set {WORK} where Ray starts on it",
        results: "set PREFECT_RESULTS_LOCAL_STORAGE_PATH for the build",
    }
    for folder, remedy in remedies.items():
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            writable = os.access(folder, os.W_OK)
        except OSError:
            writable = False
        if not writable:
            return f"it can't write to {folder}: {remedy}"
    try:
        httpx.get(f"{api.rstrip('/')}/health", timeout=30)
    except httpx.HTTPError as error:
        return f"it does not reach the Prefect server at {api} ({error}): set PREFECT_API_URL to an address that it can"
    return ""


def _show_crashed(run: uuid.UUID, message: str | None) -> None:
    """Tell the server that a task crashed, whose dead worker can't: it would be shown as running for ever."""
    with suppress(httpx.HTTPError, ObjectNotFound), get_client(sync_client=True) as client:
        client.set_task_run_state(run, Crashed(message=message), force=True)


def _absolute(corpus: str) -> str:
    """Return a location that is the same in whatever folder a worker was started."""
    place = Place.at(corpus)
    return str(place.folder.absolute()) if place.is_local else place.location


def _file(locator: str) -> Path:
    return Path(os.fsdecode(unquote_to_bytes(urlsplit(locator).path)))


def _reason(message: object) -> str:
    """Return the line of an error of Ray that says why: after the traceback of a worker, if there is one."""
    lines = str(message or "no reason is known").strip().splitlines()
    return lines[-1] if "ray::" in lines[0] else lines[0]
