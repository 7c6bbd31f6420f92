"""The `fsclap` command: short ways to what the flows and a corpus offer."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from cli.inventory import check_packages, check_weights, needed, table
from cli.retrieval import add_commands
from fsclap.corpus.filtering.consistency import effective_threshold
from fsclap.corpus.settings import BuildSettings, Profile
from fsclap.weights import Hub, WeightsError, WeightsSettings, place

if TYPE_CHECKING:
    from storage.corpus import Corpus


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

    _add_corpus(commands.add_parser("corpus", help="look after a corpus").add_subparsers(required=True))

    add_commands(commands)

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


def _add_corpus(commands: Any) -> None:
    verify = commands.add_parser("verify", help="is every row that was committed there, once, unaltered and audible?")
    verify.add_argument("--no-audio", dest="audio", action="store_false", help="do not decode the clips: faster")
    verify.add_argument("--json", action="store_true", help="one JSON document instead of lines")
    repair = commands.add_parser("repair", help="take out what verify finds damaged; the next build makes it again")
    forget = commands.add_parser("forget", help="take sources out, so that the next build makes them again")
    history = commands.add_parser("history", help="the versions of the utterances, and what each of them changed")
    restore = commands.add_parser("restore", help="go back to an earlier version; the ones in between stay")
    vacuum = commands.add_parser(
        "vacuum",
        help="remove files that no recent version needs",
        description="Remove shards that were replaced, and what killed writers left, once they are older than "
        "--keep-days. Versions from before that can't be read, trained on or restored any more afterwards.",
    )
    vacuum.add_argument("--keep-days", type=float, default=30, metavar="N", help="default: 30")
    vacuum.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    vacuum.add_argument("--force", action="store_true", help="allow less than a day: no worker may be writing then")
    export = commands.add_parser("export", help="copy the current version into a clean folder")
    runs = {
        verify: _verify, repair: _repair, forget: _forget, history: _history, restore: _restore, vacuum: _vacuum,
        export: _export,
    }  # fmt: skip
    for command, run in runs.items():
        command.add_argument("corpus", help="folder of the corpus")
        command.set_defaults(run=_corpus_command(run))
    forget.add_argument("source", nargs="+", help="source id, as in the ledger and in what verify prints")
    restore.add_argument("version", type=int, help="number of the version, as in history")
    export.add_argument("destination", type=Path, help="folder to make")
    export.add_argument(
        "--format",
        choices=("parquet", "webdataset", "shar"),
        default="parquet",
        help="parquet: tables with the card (default); webdataset: tar shards of FLAC and JSON; shar: of lhotse",
    )


def _build(options: argparse.Namespace) -> int:
    # As a process: this package knows nothing of Prefect.
    command = [sys.executable, "-m", "prefect", "deployment", "run", "build-dataset/build-dataset", "--watch"]
    if options.source:
        command += ["--param", f"sources={json.dumps(options.source)}"]
    if options.corpus:
        command += ["--param", f"corpus={json.dumps(options.corpus)}"]
    return subprocess.call(command)


def _corpus_command(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """A command for which a corpus that is not as it should be is an answer, not a crash."""

    def wrapped(options: argparse.Namespace) -> int:
        from storage.rows import CorpusError

        try:
            return run(options)
        except CorpusError as error:
            print(error, file=sys.stderr)
            return 1

    return wrapped


def _verify(options: argparse.Namespace) -> int:
    from storage.corpus import Corpus
    from storage.verify import verify

    report = verify(Corpus.at(options.corpus), audio=options.audio)
    if options.json:
        print(json.dumps(asdict(report), indent=1))
        return 1 if report.problems else 0
    for problem in report.problems:
        print(f"{problem.code}: {problem.message}; build again: {', '.join(problem.sources) or 'none'}")
    for note in report.notes:
        print(f"note: {note}")
    print(f"{report.sources} sources, {report.utterances} utterances, {report.shards} shards: ", end="")
    if not report.problems:
        print("whole" if options.audio else "whole; their sound was not decoded")
        return 0
    print(
        f"{len(report.problems)} problems, {len(report.damaged_sources())} sources to build again. "
        f"`fsclap corpus repair {options.corpus}` takes out what is damaged; the next build, or refresh-corpus, makes "
        "it again from the work files."
    )
    return 1


def _repair(options: argparse.Namespace) -> int:
    from storage.corpus import Corpus
    from storage.deltalog import require_corpus
    from storage.maintenance import repair

    corpus = Corpus.at(options.corpus)
    require_corpus(corpus)
    with corpus.lock():
        done = repair(corpus)
    print("\n".join(done) or "Nothing was damaged.")
    return 0


def _forget(options: argparse.Namespace) -> int:
    from storage.corpus import Corpus
    from storage.maintenance import forget

    corpus = Corpus.open(options.corpus)
    with corpus.lock():
        taken = forget(corpus, options.source)
    unknown = sorted(set(options.source) - set(taken))
    print(f"{len(taken)} sources taken out; the next build, or refresh-corpus, makes them again.")
    if unknown:
        print(f"not in {options.corpus}: {', '.join(unknown)}", file=sys.stderr)
    return 0


def _history(options: argparse.Namespace) -> int:
    from storage.corpus import Corpus
    from storage.maintenance import history

    corpus = Corpus.open(options.corpus)
    names = {source_id: f"{row['series']}/{row['episode']}" for source_id, row in corpus.ledger().items()}
    for change in history(corpus):
        parts = [
            f"{sign}{names.get(source_id, source_id)}"
            for sign, sources in (("+", change.added), ("~", change.replaced), ("-", change.removed))
            for source_id in sources
        ]
        told = ", ".join(parts[:6]) + (f" and {len(parts) - 6} more" if len(parts) > 6 else "")
        gone = "" if change.readable else " (its shards are gone)"
        print(f"{change.number:6d}  {change.time:%F %T}  {change.rows:8d} rows  {change.operation}{gone}  {told}")
    return 0


def _restore(options: argparse.Namespace) -> int:
    from storage.corpus import Corpus
    from storage.maintenance import restore

    corpus = Corpus.open(options.corpus)
    with corpus.lock():
        half = restore(corpus, options.version)
    print(f"Version {corpus.version()} holds what version {options.version} held.")
    if half:
        print(f"Taken out, being half committed at that moment, or damaged since: {', '.join(half)}")
    return 0


def _vacuum(options: argparse.Namespace) -> int:
    from storage.corpus import Corpus
    from storage.maintenance import vacuum

    if options.keep_days < 1 and not options.force:
        print(
            "--keep-days below 1 could remove what a worker is just writing; stop all workers, then add --force",
            file=sys.stderr,
        )
        return 2
    corpus = Corpus.open(options.corpus)
    with corpus.lock():
        removed = vacuum(corpus, keep=timedelta(days=options.keep_days), dry_run=options.dry_run)
    print("".join(f"{file.size:12d}  {file.path}\n" for file in removed), end="")
    size = sum(file.size for file in removed)
    print(f"{len(removed)} files, {size / 1e6:.1f} MB, {'to be removed' if options.dry_run else 'removed'}")
    return 0


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
    from storage.corpus import Corpus
    from storage.interop import export_shar, export_webdataset

    writers: dict[str, Callable[[Corpus, Path], list[Path]]] = {
        "parquet": _export_parquet, "webdataset": export_webdataset, "shar": export_shar,
    }  # fmt: skip
    print("\n".join(map(str, writers[options.format](Corpus.open(options.corpus), options.destination))))
    return 0


def _export_parquet(corpus: "Corpus", destination: Path) -> list[Path]:
    from storage.build_record import read_build
    from storage.export import export

    settings = BuildSettings.model_validate((read_build(corpus) or {}).get("settings", {})).resolved()
    return export(
        corpus,
        destination,
        title=f"Emotional speech: {Path(corpus.location).name}",
        settings=settings.model_dump(mode="json"),
        threshold=effective_threshold(settings.consistency, settings.engine("diarization")),
    )


if __name__ == "__main__":
    sys.exit(main())
