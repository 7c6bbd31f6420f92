"""The `fsclap` command: short ways to what the flows and a corpus offer."""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fsclap.corpus.consistency import effective_threshold
from fsclap.corpus.settings import BuildSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0 when it did what it says, 1 when something was found wrong, 2 for a wrong call.
    """
    options = _parser().parse_args(arguments)
    status: int = options.run(options)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fsclap", description=__doc__)
    commands = parser.add_subparsers(required=True)

    build = commands.add_parser("build", help="start the deployment build-dataset/build-dataset and watch it")
    build.add_argument("source", nargs="*", help="address, file or folder; the deployment's own by default")
    build.add_argument("--corpus", help="folder of the corpus; the deployment's own by default")
    build.set_defaults(run=_build)

    corpus = commands.add_parser("corpus", help="look after a corpus").add_subparsers(required=True)
    check = corpus.add_parser("check", help="is every source and every turn accounted for?")
    check.add_argument("corpus", help="folder of the corpus")
    check.set_defaults(run=_check)
    export = corpus.add_parser("export", help="copy the current version into a clean folder")
    export.add_argument("corpus", help="folder of the corpus")
    export.add_argument("destination", type=Path, help="folder to make")
    export.set_defaults(run=_export)
    return parser


def _build(options: argparse.Namespace) -> int:
    # As a process: this package knows nothing of Prefect.
    command = [sys.executable, "-m", "prefect", "deployment", "run", "build-dataset/build-dataset", "--watch"]
    if options.source:
        command += ["--param", f"sources={json.dumps(options.source)}"]
    if options.corpus:
        command += ["--param", f"corpus={json.dumps(options.corpus)}"]
    return subprocess.call(command)


def _check(options: argparse.Namespace) -> int:
    from storage.check import check
    from storage.corpus import Corpus

    problems = check(Corpus.open(options.corpus))
    print("\n".join(map(str, problems)) or "Every source and every turn is accounted for.")
    return 1 if problems else 0


def _export(options: argparse.Namespace) -> int:
    from storage.build import read_build
    from storage.corpus import Corpus
    from storage.export import export

    corpus = Corpus.open(options.corpus)
    settings = BuildSettings.model_validate((read_build(corpus) or {}).get("settings", {}))
    files = export(
        corpus,
        options.destination,
        title=f"Emotional speech: {Path(options.corpus).name}",
        settings=settings.model_dump(mode="json"),
        threshold=effective_threshold(settings.consistency, settings.diarization.engine),
    )
    print("\n".join(map(str, files)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
