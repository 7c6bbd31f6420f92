"""Measure the memory of a build on one long recording.

The peak must depend on the settings, not on the length.

    python -m bench.memory --hours 3 --profile full [--json FILE]

Puts the samples one after the other until the recording is long enough, builds a corpus from that
one file through a Prefect server of its own, and prints the peak memory of the flow's process as
each stage left it. The full profile runs on small networks with random weights. What networks need
does not grow with the length; the code around them, which might, is the same as for the real ones.
"""

import functools
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from bench import report
from bench.flow import build_tasks, prefect_server, sample_waves
from fsclap.corpus.settings import BuildSettings
from fsclap.weights import LIBRARY

RATE = 44_100


def make_recording(path: Path, hours: float) -> None:
    """Write stereo FLAC: the samples again and again, each time at another level."""
    left = int(hours * 3600 * RATE)
    levels = np.random.default_rng(0)
    with sample_waves(RATE) as waves, soundfile.SoundFile(path, "w", RATE, 2) as out:
        number = 0
        while left > 0:
            wave = waves[number % len(waves)][:, :left]
            out.write(wave.T * levels.uniform(0.5, 1.0))
            left -= wave.shape[1]
            number += 1


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def build(hours: float, settings: BuildSettings) -> dict[str, Any]:
    """Build a corpus from one recording; return the peak of this process after each task."""
    from flows.build_dataset import build_dataset

    with tempfile.TemporaryDirectory() as folder, prefect_server():
        recording = Path(folder) / "episodes" / "long.flac"
        recording.parent.mkdir()
        make_recording(recording, hours)
        peaks = watch_tasks()
        before = peak_gib()
        start = time.perf_counter()
        published = build_dataset([str(recording.parent)], f"{folder}/corpus", f"{folder}/work", settings)
        seconds = time.perf_counter() - start
    return {
        "hours": hours,
        "peak_gib_before": before,
        "peak_gib_after": peaks,
        "peak_gib": peak_gib(),
        "seconds": seconds,
        "utterances": published.utterances,
    }


def watch_tasks() -> dict[str, float]:
    """Task -> peak of the process when it ended; filled in while the flow runs."""
    peaks: dict[str, float] = {}

    def around(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            peaks[name] = peak_gib()
            return result

        return watched

    for task in build_tasks():
        task.fn = around(task.fn.__name__, task.fn)
    return peaks


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.memory", __doc__)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--profile", choices=["embedded", "full"], default="full")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as weights:
        chosen: dict[str, Any] = {"profile": options.profile}
        if options.profile == "full":
            from harness.models.full_profile import write_library

            os.environ[LIBRARY] = weights
            write_library()
            # Random voices agree with nobody: the filter would leave little to store.
            chosen["consistency"] = {"threshold": 0.0, "singletons": "keep"}
        figures = build(options.hours, BuildSettings.model_validate(chosen))
    print(json.dumps(figures, indent=1))
    report.write(options.json, figures)


if __name__ == "__main__":
    main()
