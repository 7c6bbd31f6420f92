"""What Prefect itself costs: seconds, task runs and API calls an episode, on many short episodes.

    python -m bench.orchestration [--episodes 200] [--seconds 20] [--json FILE]

Cuts short episodes from the sample videos, builds a corpus from them through a Prefect server of
its own, and splits the wall time of the flow in two: the bodies of the tasks, and everything else,
waiting for the concurrency slot included. The next batch is downloaded while the stages run; only
the time that the flow waits for it shows up, and counts as orchestration too.
"""

import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import soundfile

from bench import report
from bench.flow import EMBEDDED, build_tasks, prefect_server, sample_waves

RATE = 24_000


class Clock:
    """Seconds spent in, and number of, what it is wrapped around."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start
            self.calls += 1

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.running():
                return function(*args, **kwargs)

        return timed


def make_episodes(folder: Path, count: int, seconds: float) -> None:
    """Short WAV episodes of two series, cut from the samples at moving positions, no two alike."""
    length = int(seconds * RATE)
    with sample_waves(RATE) as waves:
        for number in range(count):
            wave = waves[number % len(waves)]
            start = 7919 * number % (wave.shape[1] - length)
            file = folder / f"series{number % 2}" / f"e{number:03d}.wav"
            file.parent.mkdir(exist_ok=True)
            soundfile.write(file, wave[:, start : start + length].T, RATE)


def measure(episodes: int, seconds: float) -> dict[str, Any]:
    """Build a corpus of short episodes and split the wall time."""
    from flows.build_dataset import build_dataset

    with tempfile.TemporaryDirectory() as folder, prefect_server():
        source = Path(folder) / "episodes"
        source.mkdir()
        make_episodes(source, episodes, seconds)
        warm_up()
        bodies, downloads, api = Clock(), Clock(), Clock()
        instrument(bodies, downloads, api)
        start = time.perf_counter()
        published = build_dataset([str(source)], f"{folder}/corpus", f"{folder}/work")
        wall = time.perf_counter() - start
    orchestration = wall - bodies.seconds
    return {
        "episodes": episodes,
        "seconds_of_audio_an_episode": seconds,
        "utterances": published.utterances,
        "wall_seconds": wall,
        "orchestration_seconds": orchestration,
        "orchestration_seconds_an_episode": orchestration / episodes,
        "orchestration_share": orchestration / wall,
        "task_runs_an_episode": (bodies.calls + downloads.calls) / episodes,
        "api_calls_an_episode": api.calls / episodes,
    }


def warm_up() -> None:
    """Load the models, which is neither orchestration nor part of an episode."""
    from fsclap.corpus.diarization import load_diarizer
    from fsclap.corpus.separation import load_separator

    load_separator(EMBEDDED.separation)
    load_diarizer(EMBEDDED.diarization)


def instrument(bodies: Clock, downloads: Clock, api: Clock) -> None:
    from tasks.download import download

    for task in build_tasks():
        task.fn = (downloads if task is download else bodies).around(task.fn)

    send = httpx.AsyncClient.send

    async def counted(self: httpx.AsyncClient, *args: Any, **kwargs: Any) -> httpx.Response:
        api.calls += 1
        return await send(self, *args, **kwargs)

    httpx.AsyncClient.send = counted  # type: ignore[method-assign]
    httpx.Client.send = api.around(httpx.Client.send)  # type: ignore[method-assign]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.orchestration", __doc__)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of an episode")
    options = parser.parse_args(arguments)
    figures = measure(options.episodes, options.seconds)
    print("\n".join(report.name_values(figures)))
    report.write(options.json, figures)


if __name__ == "__main__":
    main()
