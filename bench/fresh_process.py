"""What a process per batch costs: Prefect's workers start one for each run, and it loads the engines.

    python -m bench.fresh_process [--tries 3] [--real-time-factor 0.2] [--json FILE]

Measured in processes of their own: the import of Prefect and of the flow, the loading of the embedded engines, their
trial on a second of sound. From that: how long the sound of a batch must be for all of it to be less than 5 % of the
time in which a machine computes the batch. (A worker with --limit 2 does it while the batch before computes.)
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from statistics import median
from typing import Any

from bench import report

SHARE = 0.05
SCRIPT = """
import json, resource, time
steps, last = {}, [time.perf_counter(), 0.0]
def step(name):
    used = resource.getrusage(resource.RUSAGE_SELF)
    now = [time.perf_counter(), used.ru_utime + used.ru_stime]
    steps[name] = [now[0] - last[0], now[1] - last[1]]
    last[:] = now
import flows.process_batch
step("imports")
from fsclap.corpus.settings import BuildSettings
from tasks.declared import declare
from tasks.trial import try_out
plan = declare(BuildSettings())
step("engines")
try_out(plan)
step("trial")
print(json.dumps(steps))
"""


def measure(tries: int, real_time_factor: float) -> dict[str, Any]:
    """Start processes one after the other; medians, in seconds."""
    seen: list[dict[str, list[float]]] = []
    for _ in range(tries):
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
        seen.append(json.loads(done.stdout.splitlines()[-1]))
    figures: dict[str, Any] = {}
    for name in seen[0]:
        figures[f"{name}_wall_seconds"] = median(one[name][0] for one in seen)
        figures[f"{name}_cpu_seconds"] = median(one[name][1] for one in seen)
    for kind, at in (("wall", 0), ("cpu", 1)):
        figures[f"all_{kind}_seconds"] = median(sum(times[at] for times in one.values()) for one in seen)
    figures["minutes_of_sound_for_5_percent"] = figures["all_cpu_seconds"] / (SHARE * real_time_factor) / 60
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.fresh_process", __doc__)
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--real-time-factor", type=float, default=0.2, help="computing time over length of the sound")
    options = parser.parse_args(arguments)
    figures = measure(options.tries, options.real_time_factor)
    print("\n".join(report.name_values(figures)))
    report.write(options.json, figures)


if __name__ == "__main__":
    main()
