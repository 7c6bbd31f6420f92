"""Start a run of a deployment and watch it: what `fsclap build` does.

    echo '{"corpus": "/data/corpus"}' | python -m deployments.start build-dataset/build-dataset

The parameters come from standard input as JSON. What is missing is said in a sentence before anything
starts; the exit status is that of `prefect deployment run --watch`.
"""

import asyncio
import subprocess
import sys
from typing import Any

from prefect.settings import PREFECT_API_URL

from deployments.processes import PREFECT

START = "`make ui` starts one on this machine, at http://127.0.0.1:4200/api"


def main() -> int:
    """Check that the deployment can be run, and run it."""
    (deployment,) = sys.argv[1:]
    parameters = sys.stdin.buffer.read()
    problem = asyncio.run(missing(deployment))
    if problem is not None:
        print(problem, file=sys.stderr)
        return 1
    hint = asyncio.run(nobody_works(deployment))
    if hint is not None:
        print(hint, file=sys.stderr)
    command = [*PREFECT, "deployment", "run", deployment, "--params", "-", "--watch"]
    return subprocess.run(command, input=parameters, check=False).returncode


async def missing(deployment: str) -> str | None:
    """Say what keeps a deployment ("flow/name") from being run; None when nothing does."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    url: Any = PREFECT_API_URL.value()
    if url is None:
        return f"No Prefect server is named: set PREFECT_API_URL to the address of its API ({START})."
    try:
        async with get_client() as client:
            await client.read_deployment_by_name(deployment)
    except ObjectNotFound:
        return (
            f"The Prefect server at {url} has no deployment {deployment}: run `python -m deployments.bootstrap` and "
            "`prefect --no-prompt deploy --all` in the checkout."
        )
    except (httpx.HTTPError, OSError, RuntimeError) as error:
        return f"No Prefect server answers at {url} ({error}): start it ({START}), or correct PREFECT_API_URL."
    return None


async def nobody_works(deployment: str) -> str | None:
    """Say why a run of a deployment would wait: its pool is paused, or has no worker; None when it would not."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import WorkerStatus

    async with get_client() as client:
        name = (await client.read_deployment_by_name(deployment)).work_pool_name
        if name is None:
            return None
        if (await client.read_work_pool(name)).is_paused:
            return f"The work pool {name} is paused: the run waits until `prefect work-pool resume {name}`."
        workers = await client.read_workers_for_work_pool(name)
    if any(worker.status == WorkerStatus.ONLINE for worker in workers):
        return None
    return f"No worker asks the work pool {name} for runs: this one waits until `prefect worker start --pool {name}`."


if __name__ == "__main__":
    sys.exit(main())
