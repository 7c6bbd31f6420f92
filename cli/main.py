"""Start a build, maintain a corpus, search it, compare systems, fetch the weights of models."""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli import compare, corpus, doctor, imports, models, retrieval
from cli.errors import command
from cli.rights import RightsError, add_statement, rights_file, statement

MOST_PARAMETERS = 500_000
"""Bytes of a run's parameters: Prefect's server takes 512 KiB (PREFECT_SERVER_API_MAX_PARAMETER_SIZE)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Arguments after `fsclap`; default: those of the process.

    Returns:
        The exit status: 0 for success, 1 for an error or a problem that was found, 2 for wrong
        arguments.
    """
    options = parser().parse_args(arguments)
    status: int = options.run(options)
    return status


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fsclap", description=__doc__)
    commands = parser.add_subparsers(required=True)
    _add_build(commands)
    imports.add_commands(commands)
    compare.add_commands(commands)
    corpus.add_commands(commands)
    retrieval.add_commands(commands)
    models.add_commands(commands)
    doctor.add_commands(commands)
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
    build.add_argument(
        "--rights", type=Path, metavar="FILE",
        help='JSON file: source, or "*" for all -> {"licence": ..., "rights_holder": ..., "consent": ...}',
    )  # fmt: skip
    add_statement(build)
    build.set_defaults(run=command(_build, _errors))


class BuildError(ValueError):
    """A build that can't be asked for; nothing was started."""


def _errors() -> tuple[type[Exception], ...]:
    from storage.rows import CorpusError

    return BuildError, CorpusError, RightsError


def _build(options: argparse.Namespace) -> int:
    parameters: dict[str, Any] = {}
    if options.source:
        parameters["sources"] = [_source(source) for source in options.source]
    if options.corpus:
        parameters["corpus"] = _location(options.corpus)
    if rights := _rights(options):
        parameters["rights"] = rights
    if settings := _settings(options):
        parameters["settings"] = settings
    text = json.dumps(parameters)
    if len(text) > MOST_PARAMETERS:
        raise BuildError(
            f"{len(options.source)} sources take {len(text) / 1e3:.0f} kB, and the server accepts "
            f"{MOST_PARAMETERS / 1e3:.0f} kB: name the folder that they are in, or build in several runs"
        )
    # In a process of its own, because this package may not import Prefect; by standard input, because an
    # argument has a greatest length.
    start = [sys.executable, "-m", "deployments.start", "build-dataset/build-dataset"]
    return subprocess.run(start, input=text.encode(), check=False).returncode


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if options.fetch_again:
        settings["download"] = {"limits": {"fetch_again": True}}
    if options.singletons:
        settings["consistency"] = {"singletons": options.singletons}
    return settings


def _rights(options: argparse.Namespace) -> dict[str, Any]:
    """Return what is stated of sources, by source as the build has it."""
    stated = rights_file(options.rights) if options.rights else {}
    if (of_all := statement(options)) is not None:
        stated["*"] = of_all
    return {
        source if source == "*" else _source(source): rights.model_dump(mode="json", exclude_none=True)
        for source, rights in stated.items()
    }


def _source(named: str) -> str:
    """Return what a worker in another folder understands: an address as it is, else an absolute path.

    Raises:
        BuildError: There is no such file or folder.
    """
    from fsclap.corpus.download import is_url

    if is_url(named):
        return named
    path = Path(named).expanduser().absolute()
    if not path.exists():
        raise BuildError(f"{named!a}: neither an address nor a file or folder here; check the spelling")
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return path.as_uri()
    return str(path)


def _location(named: str) -> str:
    from storage.corpus import Corpus

    corpus = Corpus.at(named)
    return str(corpus.folder.absolute()) if "://" not in corpus.location else corpus.location


if __name__ == "__main__":
    sys.exit(main())
