"""Whether the service in this container answers: what `HEALTHCHECK` in the Dockerfile runs.

    python -m deployments.health

It asks the address in FSCLAP_HEALTH: a worker's /health, the server's /api/health, or the search page.
"""

import os
import sys
import urllib.error
import urllib.request


def main() -> int:
    """Ask, and return the exit status: 0 if there is an answer, a request for a password included."""
    address = os.environ.get("FSCLAP_HEALTH", "http://127.0.0.1:8080/health")
    try:
        with urllib.request.urlopen(address, timeout=8):
            return 0
    except urllib.error.HTTPError as error:
        if error.code == 401:
            return 0
        problem: object = error
    except OSError as error:
        problem = error
    print(f"{address}: {problem}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
