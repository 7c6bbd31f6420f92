"""What the columns of the embedded features are divided by: `python -m bench.scales`.

Mean and standard deviation over the lines that the starter may be trained on (bench.starter), so no
speaker or line of the samples and of a test part counts. Prints the tables of `fsclap.model.prosody`
and `fsclap.model.functionals`.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench import report
from bench.starter import training_lines
from fsclap.corpus.captioning.attributes import track
from fsclap.model import functionals, prosody
from fsclap.pitch import RATE
from samples.arguments import add_packages, packages
from samples.sources import SourceError, load


def measured(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a line's prosodic measurements, (rows, columns), and its functionals, (columns,), unscaled."""
    frames = track(load(path, RATE), RATE)
    return prosody.measurements(frames), functionals.measurements(frames)


def scales(paths: Sequence[Path]) -> dict[str, Any]:
    with ProcessPoolExecutor() as pool:
        rows, values = zip(*pool.map(measured, paths, chunksize=8), strict=True)
    means, spreads = (np.stack([getattr(np, name)(row, axis=0) for row in rows]) for name in ("mean", "std"))
    figures = np.stack([means.mean(axis=0), means.std(axis=0), spreads.mean(axis=0), spreads.std(axis=0)], axis=1)
    clips = np.stack(values)
    usual = np.stack([np.nanmean(clips, axis=0), np.nanstd(clips, axis=0)], axis=1)
    return {
        "lines": len(paths),
        "prosody": dict(zip(prosody.SCALES, figures.round(3).tolist(), strict=True)),
        "functionals": dict(zip(functionals.SCALES, usual.round(2).tolist(), strict=True)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.scales", __doc__)
    add_packages(parser)
    options = parser.parse_args(arguments)
    try:
        paths = [clip.path for clip in training_lines(packages(options))]
    except SourceError as error:
        parser.exit(1, f"error: {error}\n")
    found = scales(paths)
    for name in ("prosody", "functionals"):
        print(name, *(f'    "{column}": {tuple(figures)},' for column, figures in found[name].items()), sep="\n")
    report.write(options.json, found)


if __name__ == "__main__":
    main()
