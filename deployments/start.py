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


if __name__ == "__main__":
    sys.exit(main())
