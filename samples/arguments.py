"""Command-line arguments shared by the programs that read recordings from Debian packages."""

import argparse
from pathlib import Path

from samples.sources import fetch_packages


def absolute_path(text: str) -> Path:
    """Argparse type: an absolute path, so that it means the same in every child process."""
    return Path(text).expanduser().absolute()


def add_packages(parser: argparse.ArgumentParser) -> None:
    """Add --packages and --cache."""
    parser.add_argument(
        "--packages", type=absolute_path, help="folder with the packages already unpacked (usr/share/...)"
    )
    parser.add_argument(
        "--cache", type=absolute_path, default="data/packages", help="download folder (default: %(default)s)"
    )


def packages(options: argparse.Namespace) -> Path:
    """Return the folder of unpacked packages that the options name; download it if there is none.

    Raises:
        SourceError: apt-get or dpkg is missing, or a download failed.
    """
    return options.packages or fetch_packages(options.cache)
