"""The `fsclap` command: short ways to what the flows and a corpus offer."""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from fsclap.corpus.consistency import effective_threshold
from fsclap.corpus.settings import BuildSettings, Profile
from fsclap.inventory import check_packages, check_weights, needed, table
from fsclap.weights import Hub, WeightsError, WeightsSettings, place


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

    models = commands.add_parser("models", help="fetch and check the weights of models").add_subparsers(required=True)
    fetch = models.add_parser("fetch", help="download weights into the library, and compare them with the hub's list")
    fetch.add_argument("name", nargs="?", help="owner/model on a hub; without one, all that the profile needs")
    fetch.add_argument("--hub", choices=get_args(Hub), help="where to get the model; default: as the profile says")
    fetch.add_argument("--revision", help="branch, tag or commit; default: as the profile says")
    fetch.set_defaults(run=_fetch)
    check_models = models.add_parser("check", help="which weights are here, whole, and under which licence?")
    check_models.set_defaults(run=_check_models)
    for command in (fetch, check_models):
        command.add_argument("--profile", choices=get_args(Profile), default="full", help="default: full")
        command.add_argument(
            "--settings", type=Path, help="JSON file with the settings of a build, instead of a profile's defaults"
        )
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


def _fetch(options: argparse.Namespace) -> int:
    from fsclap.hubs import fetch

    wanted = list(needed(_settings(options)).values())
    if options.name is None and (options.hub or options.revision):
        print(
            "--hub and --revision go with the name of a model: hubs call the same model by other names", file=sys.stderr
        )
        return 2
    if options.name is not None:
        known = next((one for one in wanted if one.name == options.name), None)
        wanted = [known or WeightsSettings(name=options.name, hub="huggingface", revision="main")]
    chosen = {name: value for name in ("hub", "revision") if (value := getattr(options, name)) is not None}
    failed = False
    for settings in (one.model_copy(update=chosen) for one in wanted):
        try:
            manifest = fetch(settings)
        except WeightsError as error:
            print(error, file=sys.stderr)
            failed = True
        else:
            print(f"{settings.name}: {manifest.size / 1e6:.1f} MB in {place(settings)}, licence {manifest.licence}")
    if not wanted:
        print(f"The profile {options.profile} needs no weights from a hub: its own come in pip packages.")
    return 1 if failed else 0


def _check_models(options: argparse.Namespace) -> int:
    wanted = needed(_settings(options))
    reports = list(check_weights(wanted)) if wanted else list(check_packages())
    print(table(reports))
    return 1 if any(report.problem for report in reports) else 0


def _settings(options: argparse.Namespace) -> BuildSettings:
    if options.settings is None:
        return BuildSettings(profile=options.profile).resolved()
    return BuildSettings.model_validate_json(options.settings.read_bytes()).resolved()


def _export(options: argparse.Namespace) -> int:
    from storage.build import read_build
    from storage.corpus import Corpus
    from storage.export import export

    corpus = Corpus.open(options.corpus)
    settings = BuildSettings.model_validate((read_build(corpus) or {}).get("settings", {})).resolved()
    files = export(
        corpus,
        options.destination,
        title=f"Emotional speech: {Path(options.corpus).name}",
        settings=settings.model_dump(mode="json"),
        threshold=effective_threshold(settings.consistency, settings.engine("diarization")),
    )
    print("\n".join(map(str, files)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
