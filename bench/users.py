"""Many people at the web page at once: every request must be answered, and how long do they wait?

    fsclap app &
    python -m bench.users http://127.0.0.1:8420 --users 50 --rounds 5 [--upload CLIP] [--json FILE]

Each user, in each round: searches, with a filter every other time; takes the waveforms of the first
three clips and the sound of the first, as a browser does, in two ranges; asks for clips like it.
With --upload every tenth user sends that
recording. All begin at once. Prints the median and the 99th percentile by kind of request; the
status is 1 when a request failed.
"""

import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np

from bench import report

PATIENCE = 120.0
"""Seconds after which a request counts as failed."""


class User:
    """A user of the page, and how long each of its requests took."""

    def __init__(self, address: str, number: int, queries: list[str], upload: bytes | None) -> None:
        self.number, self._queries = number, queries
        self._upload = upload if number % 10 == 0 else None
        self._client = httpx.Client(base_url=address, timeout=PATIENCE, trust_env=False)
        self.seconds: list[tuple[str, float]] = []
        self.errors: list[str] = []

    def rounds(self, count: int, start: threading.Barrier) -> None:
        start.wait()
        with self._client:
            for number in range(count):
                try:
                    self._round(number)
                except httpx.HTTPError as error:
                    self.errors.append(repr(error))

    def _round(self, number: int) -> None:
        query = self._queries[(self.number + number) % len(self._queries)]
        where = ["duration >= 1.5"] if number % 2 else []
        clips = self._ask("search", "/api/search", params={"query": query, "where": where}).json()["clips"]
        for clip in clips[:3]:
            self._ask("peaks", f"/api/clips/{quote(clip['utterance_id'])}/peaks")
        for clip in clips[:1]:
            place = f"/api/clips/{quote(clip['utterance_id'])}"
            first = self._ask("audio", f"{place}/audio", headers={"Range": "bytes=0-8191"})
            if int(first.headers["content-range"].rpartition("/")[2]) > 8192:
                self._ask("audio", f"{place}/audio", headers={"Range": "bytes=8192-"})
            self._ask("like", f"{place}/like")
        if self._upload is not None:
            headers = {"Content-Type": "application/octet-stream"}
            self._ask("sound", "/api/sound", method="POST", content=self._upload, headers=headers)

    def _ask(self, kind: str, path: str, *, method: str = "GET", **options: Any) -> httpx.Response:
        begun = time.perf_counter()
        answer = self._client.request(method, path, **options)
        self.seconds.append((kind, time.perf_counter() - begun))
        if answer.is_error:
            self.errors.append(f"{path}: {answer.status_code} {answer.text[:200]}")
        return answer.raise_for_status()


def measure(address: str, *, users: int, rounds: int, upload: bytes | None = None) -> dict[str, Any]:
    """Send the requests of many users to a page that is running.

    Args:
        upload: A recording that some of them send.

    Returns: `requests`, `errors` (one text each), `seconds` in all, and `median` and `p99` by kind,
        in seconds.
    """
    about = httpx.get(f"{address}/api/corpus", timeout=PATIENCE, trust_env=False).raise_for_status().json()
    queries = [*about["examples"], "a weary voice, speaking slowly", "someone shouts, fast and high"]
    people = [User(address, number, queries, upload) for number in range(users)]
    start = threading.Barrier(users)
    begun = time.perf_counter()
    with ThreadPoolExecutor(users) as pool:
        list(pool.map(lambda user: user.rounds(rounds, start), people))
    seconds = time.perf_counter() - begun
    taken = [one for user in people for one in user.seconds]
    kinds = sorted({kind for kind, _ in taken})
    waits = {kind: np.array([wait for of, wait in taken if of == kind]) for kind in kinds}
    return {
        "users": users,
        "clips": about["clips"],
        "requests": len(taken),
        "errors": [error for user in people for error in user.errors],
        "seconds": seconds,
        "median": {kind: float(np.median(waits[kind])) for kind in kinds},
        "p99": {kind: float(np.percentile(waits[kind], 99)) for kind in kinds},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = report.parser("bench.users", __doc__)
    parser.add_argument("address")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--upload", type=report.absolute_path, metavar="CLIP")
    options = parser.parse_args(arguments)
    upload = options.upload.read_bytes() if options.upload else None
    found = measure(options.address, users=options.users, rounds=options.rounds, upload=upload)
    rate = found["requests"] / found["seconds"]
    print(
        f"{options.users} users, {found['requests']} requests in {found['seconds']:.1f} s ({rate:.0f} a second), "
        f"{len(found['errors'])} errors"
    )
    for kind, median in found["median"].items():
        print(f"{kind:8} median {1000 * median:6.0f} ms, p99 {1000 * found['p99'][kind]:6.0f} ms")
    print("\n".join(found["errors"][:10]))
    report.write(options.json, found)
    return 1 if found["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
