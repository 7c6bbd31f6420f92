"""Start a build, maintain a corpus, search it, fetch the weights of models."""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from cli import corpus, models, retrieval


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Arguments after `fsclap`; default: those of the process.

    Returns:
        The exit status: 0 for success, 1 for an error or a problem that was found, 2 for wrong
        arguments.
    """
    options = _parser().parse_args(arguments)
    status: int = options.run(options)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fsclap", description=__doc__)
    commands = parser.add_subparsers(required=True)
    _add_build(commands)
    corpus.add_commands(commands)
    retrieval.add_commands(commands)
    models.add_commands(commands)
    return parser


def _add_build(commands: Any) -> None:
    build = commands.add_parser("build", help="run the deployment build-dataset/build-dataset and watch it")
    build.add_argument("source", nargs="*", help="address, file or folder; default: the deployment's sources")
    build.add_argument("--corpus", help="folder of the corpus; default: the deployment's corpus")
    build.add_argument(
        "--fetch-again",
        action="store_true",
        help="download every recording again, also those that the corpus has: they may have been replaced",
    )
    build.add_argument(
        "--singletons",
        choices=("drop", "keep"),
        help="what becomes of a speaker's only turn in a recording, which can't be compared with others; keep it for "
        "recordings of one sentence each; default: drop",
    )
    build.set_defaults(run=_build)


def _build(options: argparse.Namespace) -> int:
    # In a process of its own, because this package may not import Prefect.
    command = [sys.executable, "-m", "prefect", "deployment", "run", "build-dataset/build-dataset", "--watch"]
    if options.source:
        command += ["--param", f"sources={json.dumps(options.source)}"]
    if options.corpus:
        command += ["--param", f"corpus={json.dumps(options.corpus)}"]
    settings: dict[str, Any] = {}
    if options.fetch_again:
        settings["download"] = {"limits": {"fetch_again": True}}
    if options.singletons:
        settings["consistency"] = {"singletons": options.singletons}
    if settings:
        command += ["--param", f"settings={json.dumps(settings)}"]
    return subprocess.call(command)


if __name__ == "__main__":
    sys.exit(main())
