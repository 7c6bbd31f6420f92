"""Whether an ffmpeg of 2020 builds the samples to the same rows as the one that comes with the project.

    python -m bench.old_ffmpeg

It fetches imageio-ffmpeg 0.4.9 from the package index, which carries ffmpeg 4.2.2 as Ubuntu 20.04 has
it, and builds the corpus of the samples with each. The rows must be equal, sound included.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.flow import SAMPLES, prefect_server
from storage.corpus import Corpus
from storage.rows import row_digests

PACKAGE = "imageio-ffmpeg==0.4.9"


def main() -> int:
    """Print the versions and how many rows each made; 1 when the rows differ."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder, prefect_server():
        binaries = {"new": None, "old": fetch(Path(folder))}
        rows = {name: build(Path(folder) / name, binary) for name, binary in binaries.items()}
    equal = rows["new"] == rows["old"]
    print(f"{len(rows['new'])} and {len(rows['old'])} utterances: {'equal' if equal else 'NOT EQUAL'}")
    return 0 if equal and rows["new"] else 1


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


def build(folder: Path, binary: Path | None) -> list[str]:
    """Build the corpus of the samples and return the digests of its utterances, sorted."""
    from flows.build_dataset import build_dataset
    from fsclap.ffmpeg import ffmpeg_binary

    with first_on_path(binary):
        shown = subprocess.run([ffmpeg_binary(), "-version"], check=True, capture_output=True, text=True).stdout
        print(shown.splitlines()[0], flush=True)
        sources = sorted({str(media.parent) for media in SAMPLES.glob("*/*.mp4")})
        build_dataset(sources, str(folder / "corpus"), str(folder / "work"))
    return sorted(row_digests(Corpus.open(folder / "corpus").utterances()))


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
    sys.exit(main())
