"""Look at a copy of a published data set, and start its import."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cli.errors import command


def add_commands(commands: Any) -> None:
    """Add `fsclap import`."""
    from storage.importers.presets import PRESETS

    parser = commands.add_parser(
        "import", help="run the deployment import-corpus/import-corpus, after a look at the copy of the data set"
    )
    parser.add_argument("dataset", choices=PRESETS, help="name of the data set; generic for tables of your own")
    parser.add_argument("root", type=Path, help="folder of the data set, or one table")
    parser.add_argument("--corpus", help="folder of the corpus; default: the deployment's")
    parser.add_argument(
        "--audio-root",
        action="append",
        default=[],
        metavar="[SOURCE=]FOLDER",
        help="where the sound is; may be repeated",
    )
    parser.add_argument("--columns", metavar="JSON", help='names of columns, such as \'{"caption": ["style"]}\'')
    parser.add_argument("--join", choices=("path", "stem", "dashes"), help="how a row names its sound")
    parser.add_argument("--min-joined", type=float, metavar="SHARE", help="refuse a copy with less sound than this")
    parser.add_argument("--strip-transcript", action="store_true", help="take quoted transcripts out of captions")
    parser.add_argument("--limit", type=int, metavar="ROWS", help="import so many rows at most")
    parser.add_argument("--check", action="store_true", help="say what is there, and import nothing")
    parser.set_defaults(run=command(_import, _errors))


def _import(options: argparse.Namespace) -> int:
    from storage.importers import PRESETS, check
    from storage.importers.checking import require

    settings = _settings(options)
    found = check(options.root, PRESETS[options.dataset], settings)
    require(found, settings)
    print("\n".join(found.lines()))
    if options.check:
        return 0
    # In a process of its own, because this package may not import Prefect.
    run = [sys.executable, "-m", "prefect", "deployment", "run", "import-corpus/import-corpus", "--watch"]
    parameters = {
        "dataset": options.dataset,
        "root": str(options.root.resolve()),
        "settings": settings.model_dump(mode="json", exclude_defaults=True),
    }
    if options.corpus:
        parameters["corpus"] = options.corpus
    for name, value in parameters.items():
        run += ["--param", f"{name}={json.dumps(value)}"]
    return subprocess.call(run)


def _errors() -> tuple[type[Exception], ...]:
    from pydantic import ValidationError

    from storage.importers import ImportProblem

    return (ImportProblem, ValidationError, json.JSONDecodeError)


def _settings(options: argparse.Namespace) -> Any:
    from storage.importers import Columns, ImportSettings

    given: dict[str, Any] = {
        "join": options.join,
        "strip_transcript": options.strip_transcript,
        "limit": options.limit,
        "audio_roots": dict(_root(text) for text in options.audio_root),
    }
    if options.min_joined is not None:
        given["min_joined"] = options.min_joined
    if options.columns:
        from storage.importers import PRESETS

        preset = PRESETS[options.dataset].columns.model_dump()
        given["columns"] = Columns.model_validate(preset | json.loads(options.columns))
    return ImportSettings(**given)


def _root(text: str) -> tuple[str, str]:
    source, separator, folder = text.rpartition("=")
    return (source if separator else "*", str(Path(folder).resolve()))
