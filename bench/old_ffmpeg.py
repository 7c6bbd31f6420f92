"""Whether an ffmpeg of 2020 builds the samples to the same rows as the one that comes with the project.

    python -m bench.old_ffmpeg

It fetches imageio-ffmpeg 0.4.9 from the package index, which carries ffmpeg 4.2.2 as Ubuntu 20.04 has
it, and builds the corpus of the samples with each. Their decoders differ in the last bit of a sample, so the
sound of a row is compared within a thousandth of full scale, numbers within a thousandth, embeddings of speakers by
their cosine, the rest exactly. What the recogniser says is counted apart: it computes with 8 bits, and words that it is
not sure of change with the last bit of a sample, and with them its confidence and whether the text is English.
"""

import math
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench import report
from bench.flow import SAMPLES, prefect_server
from fsclap.audio import decode_flac
from storage.corpus import Corpus

PACKAGE = "imageio-ffmpeg==0.4.9"
TOLERANCE = 1e-3
HEARD = ("text", "text_confidence", "language")

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print how many rows each version made; exit with 1 when the rows differ."""
    parser = report.parser("bench.old_ffmpeg", __doc__)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, prefect_server():
        binaries = {"new": None, "old": fetch(Path(folder))}
        rows = {name: build(Path(folder) / name, binary) for name, binary in binaries.items()}
    print(f"{len(rows['new'])} and {len(rows['old'])} utterances")
    if rows["new"].keys() != rows["old"].keys():
        parser.exit(1, "the ids differ\n")
    found = list(differences(rows))
    texts = sum(row["text"] != rows["old"][name]["text"] for name, row in rows["new"].items())
    print("\n".join(found) or "the same rows", f"another transcript in {texts} of them", sep="\n")
    report.write(options.json, {"rows": len(rows["new"]), "differences": found, "transcripts": texts})
    if found or not rows["new"]:
        parser.exit(1)


def fetch(folder: Path) -> Path:
    """Download the package and return a folder with its binary as `ffmpeg`."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*pip, "--only-binary=:all:", "--platform=manylinux2010_x86_64", PACKAGE], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        (member,) = (name for name in wheel.namelist() if "/binaries/ffmpeg-" in name)
        binary = folder / "bin" / "ffmpeg"
        binary.parent.mkdir()
        binary.write_bytes(wheel.read(member))
    binary.chmod(0o755)
    return binary.parent


def differences(rows: dict[str, dict[str, Row]]) -> Iterator[str]:
    """Yield a line for each column of a row in which the two builds differ."""
    for name, row in rows["new"].items():
        other = rows["old"][name]
        for column, value in row.items():
            if column not in HEARD and not alike(value, other[column]):
                yield f"{name}: {column}"


def alike(one: Any, other: Any) -> bool:
    """Whether two values are the same but for rounding."""
    if isinstance(one, dict) and "bytes" in one:
        waves = [decode_flac(value["bytes"])[0] for value in (one, other)]
        return len(waves[0]) == len(waves[1]) and float(np.abs(waves[0] - waves[1]).max()) < TOLERANCE
    if isinstance(one, dict):
        return all(alike(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and one and isinstance(one[0], float):
        return len(one) == len(other) and float(np.dot(one, other)) > 1 - TOLERANCE  # of unit norm
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-5, abs_tol=TOLERANCE)
    return bool(one == other)


def build(folder: Path, binary: Path | None) -> dict[str, Row]:
    """Build the corpus of the samples and return its utterances by id."""
    from flows.build_dataset import build_dataset
    from fsclap.ffmpeg import ffmpeg_binary

    with first_on_path(binary):
        shown = subprocess.run([ffmpeg_binary(), "-version"], check=True, capture_output=True, text=True).stdout
        print(shown.splitlines()[0], flush=True)
        sources = sorted({str(media.parent) for media in SAMPLES.glob("*/*.mp4")})
        build_dataset(sources, str(folder / "corpus"), str(folder / "work"))
    return {row["utterance_id"]: row for row in Corpus.open(folder / "corpus").utterances().to_pylist()}


@contextmanager
def first_on_path(folder: Path | None) -> Iterator[None]:
    """Put a folder before the others of PATH during the block."""
    before = os.environ["PATH"]
    os.environ["PATH"] = before if folder is None else f"{folder}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before


if __name__ == "__main__":
    main()
