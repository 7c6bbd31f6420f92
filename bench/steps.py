"""How a training goes on with its steps: `python -m bench.steps [--out data/ablation] [--at 1 5 10 20 30 40 60]`.

Reads what the runs of bench.ablation (or bench.systems) left in their folders: mAP@10 of the validation part, which
has speakers never heard, after some epochs, and the mean loss of these epochs. Mean over the seeds, and standard
deviation where there are several. Nothing is trained.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

from bench import report
from fsclap.training.record import METRICS


@dataclass(frozen=True)
class Point:
    """A row after some epochs.

    Attributes:
        step: Steps taken until then.
        validation: mAP@10 of the validation part in percent, mean of both directions.
        deviation: Standard deviation of that over the seeds; 0 with one.
        loss: Mean training loss of the epoch.
    """

    row: str
    seeds: int
    epoch: int
    step: int
    validation: float
    deviation: float
    loss: float


def epochs_of(folder: Path) -> dict[int, dict[str, float]]:
    """Return what a run wrote at the end of each epoch."""
    entries = map(json.loads, (folder / METRICS).read_text(encoding="utf-8").splitlines())
    return {entry["epoch"]: entry for entry in entries if "validation" in entry}


def points(out: Path, at: Sequence[int]) -> Iterator[Point]:
    runs: defaultdict[str, list[dict[int, dict[str, float]]]] = defaultdict(list)
    for file in sorted(out.glob(f"*/{METRICS}")):
        runs[file.parent.name.rsplit("-", 1)[0]].append(epochs_of(file.parent))
    for row, seeds in runs.items():
        for epoch in at:
            found = [own[epoch] for own in seeds if epoch in own]
            if found:
                figures = [100 * entry["validation"] for entry in found]
                deviation = stdev(figures) if len(figures) > 1 else 0.0
                loss = mean(entry["epoch_loss"] for entry in found)
                yield Point(row, len(found), epoch, int(found[0]["step"]), mean(figures), deviation, loss)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.steps", __doc__)
    parser.add_argument("--out", type=report.absolute_path, default="data/ablation", help="default: %(default)s")
    parser.add_argument("--at", type=int, nargs="+", default=[1, 5, 10, 20, 30, 40, 60], help="epochs")
    options = parser.parse_args(arguments)
    rows = list(points(options.out, options.at))
    if not rows:
        parser.exit(1, f"error: no run under {options.out}: `python -m bench.ablation` makes them\n")
    print("\n".join(report.table(rows)))
    report.write(options.json, {"points": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
