"""Commands for model weights: `fsclap models fetch`, `check` and `systems`."""

import argparse
import sys
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from cli.errors import Run, command
from cli.inventory import check_carried, check_packages, check_weights, needed, table
from fsclap.corpus.settings import BuildSettings, Profile
from fsclap.weights import Hub, WeightsError, WeightsSettings, place


class SettingsError(ValueError):
    """A settings file that can't be used. The message names it."""


def add_commands(commands: Any) -> None:
    """Add `models` to the subparsers of `fsclap`."""
    models = commands.add_parser("models", help="fetch and check the weights of models").add_subparsers(required=True)
    fetch = _add(models, "fetch", _fetch, help="download weights, and compare them with the hub's file list")
    fetch.add_argument(
        "name", nargs="?", help="owner/model on a hub, or a system of the paper; default: all that the profile needs"
    )
    fetch.add_argument("--file", help="which of a system's checkpoints; default: the first that `systems` lists")
    fetch.add_argument("--hub", choices=get_args(Hub), help="hub of the model; default: as in the profile")
    fetch.add_argument("--revision", help="branch, tag or commit; default: as in the profile")
    systems = models.add_parser("systems", help="list the published checkpoints of the paper's systems")
    systems.set_defaults(run=command(_systems, lambda: (OSError,)))
    _add(models, "check", _check, help="list the weights, whether they are complete, and their licences")


def _add(commands: Any, name: str, run: Run, *, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help)
    parser.add_argument("--profile", choices=get_args(Profile), default="full", help="default: %(default)s")
    parser.add_argument("--settings", type=Path, help="JSON file with the settings of a build, instead of --profile")
    parser.set_defaults(run=command(run, lambda: (SettingsError, OSError)))
    return parser


def _fetch(options: argparse.Namespace) -> int:
    from fsclap.checkpoints import SYSTEMS
    from fsclap.hubs import fetch

    if options.name in SYSTEMS:
        return _fetch_checkpoint(options.name, options.file)
    if options.name is None and (options.hub or options.revision):
        print(
            "--hub and --revision need the name of a model, because hubs name the same model differently",
            file=sys.stderr,
        )
        return 2
    chosen = _chosen(options)
    failed = False
    for settings in chosen:
        try:
            manifest = fetch(settings)
        except WeightsError as error:
            print(error, file=sys.stderr)
            failed = True
        else:
            print(f"{settings.name}: {manifest.size / 1e6:.1f} MB in {place(settings)}, licence {manifest.licence}")
    if not chosen:
        print(f"The profile {options.profile} needs no weights from a hub: its weights are in pip packages.")
    return 1 if failed else 0


def _fetch_checkpoint(system: str, file: str | None) -> int:
    from fsclap.checkpoints import fetch_checkpoint, published

    try:
        one = published(system, file)
        print(f"{one.file} ({one.about}): {one.megabytes} from {one.url}, licence {one.licence}", flush=True)
        print(fetch_checkpoint(one))
    except WeightsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _systems(options: argparse.Namespace) -> int:
    from fsclap.checkpoints import CHECKPOINTS, UNPUBLISHED

    for one in CHECKPOINTS:
        state = str(one.path) if one.path.is_file() else "not fetched"
        print(f"{one.system}: {one.file} ({one.about})")
        print(f"    {one.megabytes}, licence {one.licence}, {state}")
        print(f"    {one.url}")
    for system, why in UNPUBLISHED.items():
        print(f"{system}: {why}")
    return 0


def _chosen(options: argparse.Namespace) -> list[WeightsSettings]:
    """List the weights to fetch: all that the profile needs, or the named ones."""
    weights = list(needed(_settings(options)).values())
    if options.name is not None:
        known = next((settings for settings in weights if settings.name == options.name), None)
        weights = [known or WeightsSettings(name=options.name, hub="huggingface", revision="main")]
    changes = {name: value for name in ("hub", "revision") if (value := getattr(options, name)) is not None}
    return [settings.model_copy(update=changes) for settings in weights]


def _check(options: argparse.Namespace) -> int:
    weights = needed(_settings(options))
    reports = list(check_weights(weights)) if weights else [*check_packages(), *check_carried()]
    print(table(reports))
    return 1 if any(report.problem for report in reports) else 0


def _settings(options: argparse.Namespace) -> BuildSettings:
    if options.settings is None:
        return BuildSettings(profile=options.profile).resolved()
    try:
        return BuildSettings.model_validate_json(options.settings.read_bytes()).resolved()
    except ValidationError as error:
        raise SettingsError(f"{options.settings} does not hold the settings of a build: {error}") from error
