"""Break a whole installation again and again, and report the results.

    python -m harness.faults.run [--only NAME ...] [--json FILE]

`make faults` runs this. Each campaign takes a new installation from empty folders to an index while
its faults strike, and compares corpus, model and index with those of an undisturbed installation.
The campaign that fills the disk mounts a small file system in memory, which needs root.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.faults.campaign import Strike, Trial, reference, trial
from harness.faults.plan import FULL
from harness.faults.points import FAULTS, STAGES
from harness.faults.site import site


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="run only campaigns whose name contains one of these")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    chosen = {name: strikes for name, strikes in FULL.items() if any(part in name for part in options.only)}
    results: dict[str, Trial] = {}
    with tempfile.TemporaryDirectory() as folder, site(Path(folder) / "site") as videos:
        undisturbed = reference(Path(folder) / "undisturbed", videos)
        print(f"undisturbed: {undisturbed.seconds:.0f} s, {undisturbed.rows} rows", flush=True)
        for number, (name, strikes) in enumerate(chosen.items()):
            try:
                results[name] = trial(Path(folder) / str(number), videos, strikes, undisturbed)
            except TimeoutError as error:
                print(f"{name}: HANGS, {error}", flush=True)
            else:
                print(f"{name}: {_line(results[name])}", flush=True)
                _save(results, options.json)
    print(table([strike for result in results.values() for strike in result.struck]))
    return 0 if len(results) == len(chosen) and all(result.unharmed for result in results.values()) else 1


def table(struck: Sequence[Strike]) -> str:
    """Format the number of faults by stage and kind as a Markdown table."""
    counts = Counter((strike.moment.stage, strike.fault) for strike in struck)
    head = ["stage", *FAULTS, "sum"]
    rows: list[list[Any]] = [
        [stage, *(counts[stage, fault] or "" for fault in FAULTS), sum(counts[stage, fault] for fault in FAULTS)]
        for stage in STAGES
    ]
    rows.append(["sum", *(sum(counts[stage, fault] for stage in STAGES) for fault in FAULTS), len(struck)])
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _save(results: dict[str, Trial], file: Path | None) -> None:
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({name: asdict(result) for name, result in results.items()}, indent=1))


def _line(result: Trial) -> str:
    return (
        f"{len(result.struck)} faults, {result.seconds:.0f} s; rows lost {result.lost}, doubled {result.doubled}; "
        f"runs left running {result.left_running}; the same model: {'yes' if result.same_models else 'NO'}, "
        f"the same index: {'yes' if result.same_index else 'NO'}; "
        f"problems: {result.problems or 'none'}; started by hand {result.started} times, by itself {result.restarted}"
    )


if __name__ == "__main__":
    sys.exit(main())
