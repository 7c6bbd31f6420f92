"""Compare systems: start the comparison, or write the report of what is finished."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cli.errors import command

_PUBLISHED = {"validation_series": ["*-validation"], "test_series": ["*-test"]}


def add_commands(commands: Any) -> None:
    """Add `fsclap compare`."""
    parser = commands.add_parser(
        "compare",
        help="run the deployment compare-systems/compare-systems and watch it",
        description="Train and evaluate every system on every corpus with every seed, and write one report. What is "
        "finished is not done again. All settings: docs/systems.md.",
    )
    parser.add_argument(
        "corpus",
        nargs="*",
        help="folder of a corpus, or NAME=FOLDER; TextrolSpeech, GigaSpeech and Zhvoice as NAME show the paper's "
        "figures beside; default: the deployment's",
    )
    parser.add_argument("--out", help="folder of the report; default: the deployment's")
    parser.add_argument("--systems", nargs="+", metavar="SYSTEM", help="default: all")
    parser.add_argument("--seeds", type=int, help="trainings of each system on each corpus; default: 3")
    parser.add_argument("--ablation", action="store_true", default=None, help="also the rows of Table 3")
    parser.add_argument("--preset", choices=("embedded", "paper"), help="encoders and budget; default: embedded")
    parser.add_argument("--epochs", type=int, help="of every training; default: that of the preset")
    parser.add_argument("--published-parts", action="store_true", help="keep the parts of imported data sets")
    parser.add_argument("--settings", metavar="JSON", help="other settings of the comparison")
    parser.add_argument(
        "--report", action="store_true", help="train nothing: write the report of what is finished in --out"
    )
    parser.set_defaults(run=command(_compare, _errors))


def _errors() -> tuple[type[Exception], ...]:
    from pydantic import ValidationError

    from fsclap.comparison.grid import ComparisonError
    from fsclap.evaluation.vectors import VectorsError

    return ComparisonError, VectorsError, ValidationError, json.JSONDecodeError


def _compare(options: argparse.Namespace) -> int:
    if options.report:
        from fsclap.comparison.report import report

        print(report(Path(options.out or "data/comparison")))
        return 0
    parameters = json.dumps(_parameters(options)).encode()
    # In a process of its own, because this package may not import Prefect.
    start = [sys.executable, "-m", "deployments.start", "compare-systems/compare-systems"]
    return subprocess.run(start, input=parameters, check=False).returncode


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    from fsclap.comparison.settings import ComparedCorpus, ComparisonSettings

    given: dict[str, Any] = json.loads(options.settings) if options.settings else {}
    given |= {
        name: value
        for name in ("systems", "seeds", "ablation", "preset")
        if (value := getattr(options, name)) is not None
    }
    if options.epochs is not None:
        given["training"] = given.get("training", {}) | {"epochs": options.epochs}
    ComparisonSettings.model_validate(given)  # refused here rather than by the server
    parameters: dict[str, Any] = {"settings": given} if given else {}
    if options.corpus:
        corpora = [_corpus(named, published=options.published_parts) for named in options.corpus]
        parameters["corpora"] = [ComparedCorpus(**corpus).model_dump(exclude_unset=True) for corpus in corpora]
    if options.out:
        out = Path(options.out).absolute()
        parameters |= {"out": str(out), "models": str(out / "models")}
    return parameters


def _corpus(named: str, *, published: bool) -> dict[str, Any]:
    from fsclap.comparison.paper import DATA_SETS

    name, separator, folder = named.rpartition("=")
    corpus: dict[str, Any] = {"corpus": folder if "://" in folder else str(Path(folder).expanduser().absolute())}
    if separator:
        corpus |= {"name": name, "paper": name if name in DATA_SETS else None}
    return corpus | ({"split": _PUBLISHED} if published else {})
