"""The pieces of the local run that need no Prefect server."""

import os
import signal
import socket
import subprocess
import sys
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Crashed, Failed, Running, State

from deployments.processes import process, require_free, stop
from tasks.waiting import RESTARTS, has_ended


def test_a_port_in_use_is_refused_with_the_setting_that_changes_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SystemExit, match="FSCLAP_SERVER_PORT"):
            require_free(taken.getsockname()[1], "FSCLAP_SERVER_PORT")


def test_a_child_ends_with_its_block_and_takes_its_own_children_along() -> None:
    script = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"
    with process([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
    assert child.returncode is not None
    assert _ended(grandchild)


def test_a_child_that_ignores_requests_is_killed() -> None:
    script = (
        "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)];"
        "print('up', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    child.stdout.readline()
    stop(child, patience=0.2)
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("state", "run_count", "over"),
    [
        (Running(), 1, False),
        (Completed(), 1, True),
        (Failed(), 1, True),
        (Crashed(), 1, False),
        (Crashed(), RESTARTS, False),
        (Crashed(), RESTARTS + 1, True),
        (Crashed(name="Interrupted"), 1, True),
    ],
)
def test_a_crashed_run_is_not_over_while_it_will_start_again(state: State[None], run_count: int, over: bool) -> None:
    run = FlowRun(flow_id=uuid4(), state=state, run_count=run_count)
    assert has_ended(run) == over


def _ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
        return stat.read().split()[2] == "Z"
