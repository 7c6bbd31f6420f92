"""Commands that maintain a corpus: `fsclap corpus ...`."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cli.errors import Run, command
from cli.forgetting import forget_command
from cli.rights import RightsError, add_statement, rights_command, still_there

if TYPE_CHECKING:
    from storage.corpus import Corpus
    from storage.maintenance import Change

_SHOWN_SOURCES = 6


def add_commands(commands: Any) -> None:
    """Add `corpus` to the subparsers of `fsclap`."""
    corpus = commands.add_parser("corpus", help="check, repair and export a corpus").add_subparsers(required=True)
    _add_verify(corpus)
    _add(corpus, "repair", _repair, help="remove what verify finds damaged; the next build makes it again")
    _add_forget(corpus)
    _add_rights(corpus)
    _add_retry(corpus)
    _add(corpus, "history", _history, help="list the versions of the utterances and what each of them changed")
    restore = _add(corpus, "restore", _restore, help="go back to an earlier version; the ones in between are kept")
    restore.add_argument("version", type=int, help="number of the version, as in the output of history")
    _add(
        corpus,
        "compact",
        _compact,
        help="write the small shards of many sources together; no row changes",
        description="Write the shards of a corpus together, which makes it faster to read, and shorten its logs. What "
        "was replaced moves aside to _superseded/ of each table, for earlier versions; vacuum deletes it. Run it "
        "while nothing builds or reads the corpus. After an interruption, run it again.",
    )
    _add_vacuum(corpus)
    _add_export(corpus)


def _add_forget(commands: Any) -> None:
    forget = _add(
        commands,
        "forget",
        forget_command,
        help="remove sources or people",
        description="Remove sources, which the next build fetches and makes again, or people, whom no build of these "
        "sources brings back. With --erase nothing is left of either, in any version, and sources stay away, too.",
    )
    forget.add_argument("source", nargs="*", help="source id, as in the ledger and in the output of verify")
    forget.add_argument(
        "--person",
        action="append",
        default=[],
        metavar="NAME",
        help="person, as linked_speaker in speakers.parquet, or any speaker who is that person; may be repeated",
    )
    forget.add_argument(
        "--speaker", action="append", default=[], metavar="NAME", help="one speaker of one source; may be repeated"
    )
    forget.add_argument(
        "--erase",
        action="store_true",
        help="leave no trace: also from earlier versions, logs, models' lists, index and work files. Without a name: "
        "of people who were forgotten before, and of what an interrupted erasure left",
    )
    forget.add_argument("--models", default="data/models", help="with --erase: location of the models")
    forget.add_argument("--index", help="with --erase: location of the index; default: CORPUS-index")
    forget.add_argument("--work", type=Path, default=Path("data/work"), help="with --erase: work folder")


def _add_verify(commands: Any) -> None:
    help_ = "check that every committed row exists exactly once, unchanged, with sound that can be decoded"
    verify = _add(commands, "verify", _verify, help=help_)
    verify.add_argument("--no-audio", dest="audio", action="store_false", help="do not decode the clips: faster")
    verify.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    verify.add_argument("--models", default="data/models", help="models to look for withdrawn sources in")
    verify.add_argument("--index", help="index to look for withdrawn sources in; default: CORPUS-index")


def _add_rights(commands: Any) -> None:
    rights = _add(
        commands,
        "rights",
        rights_command,
        help="state licence, rights holder and consent of sources, or list what is stated",
        description="State licence, rights holder and consent of sources, or list what is stated. It goes with every "
        "row into exports, the index and the card.",
    )
    rights.add_argument("source", nargs="*", help="source id, as in the ledger")
    rights.add_argument("--series", metavar="PATTERN", help="sources of the series of this name; * and ? may be used")
    rights.add_argument("--json", action="store_true", help="list as JSON")
    add_statement(rights)


def _add_retry(commands: Any) -> None:
    retry = _add(
        commands,
        "retry",
        _retry,
        help="take refusals back: the next build decides them again",
        description="Ask the next build, or refresh-corpus, to decide sources again that were refused or failed. What "
        "the corpus keeps stays until then.",
    )
    retry.add_argument("source", nargs="*", help="source id; default: every source that was refused or failed")
    retry.add_argument("--reason", action="append", help="only sources refused for this reason; may be repeated")
    retry.add_argument(
        "--fetch-again", action="store_true", help="download them again, too; also sources that are kept"
    )


def _add_vacuum(commands: Any) -> None:
    vacuum = _add(
        commands,
        "vacuum",
        _vacuum,
        help="delete files that no recent version needs",
        description="Delete shards that were replaced, and files that killed writers left, once they are older than "
        "--keep-days. Versions from before that can't be read, trained on or restored any more.",
    )
    vacuum.add_argument("--keep-days", type=float, default=30, metavar="N", help="default: %(default)s")
    vacuum.add_argument("--dry-run", action="store_true", help="only list what would be deleted")
    vacuum.add_argument("--force", action="store_true", help="allow less than a day; stop all workers first")


def _add_export(commands: Any) -> None:
    export = _add(commands, "export", _export, help="copy the current version into a clean folder")
    export.add_argument("destination", help="folder to create, or an address in an object store")
    export.add_argument(
        "--format",
        choices=("parquet", "webdataset", "shar"),
        default="parquet",
        help="parquet: tables with the card (default); webdataset: tar shards of FLAC and JSON; shar: for lhotse",
    )
    export.add_argument(
        "--licence", action="append", default=[], metavar="PATTERN",
        help='sources of this licence alone, such as CC-BY-4.0 or "CC-*"; none: without one; may be repeated',
    )  # fmt: skip
    export.add_argument(
        "--consent", action="append", default=[], metavar="WORD",
        help='sources of this consent alone: given, "not asked", withdrawn, none; may be repeated. Default: all but '
        "withdrawn",
    )  # fmt: skip


def _add(commands: Any, name: str, run: Run, **texts: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, **texts)
    parser.add_argument("corpus", help="location of the corpus: a folder, or an address such as s3://bucket/corpus")
    parser.set_defaults(run=command(run, _errors))
    return parser


def _errors() -> tuple[type[Exception], ...]:
    from storage.objects import PlaceError
    from storage.rows import CorpusError

    return (CorpusError, PlaceError, RightsError)


def _verify(options: argparse.Namespace) -> int:
    from storage.corpus import Corpus
    from storage.verify import verify

    corpus = Corpus.at(options.corpus)
    report = verify(corpus, audio=options.audio)
    if not report.problems:
        report.notes += still_there(corpus, index=options.index, models=options.models)
    if options.json:
        print(json.dumps(asdict(report), indent=1))
        return 1 if report.problems else 0
    for problem in report.problems:
        print(f"{problem.code}: {problem.message}; build again: {', '.join(problem.sources) or 'none'}")
    for note in report.notes:
        print(f"note: {note}")
    print(f"{report.sources} sources, {report.utterances} utterances, {report.shards} shards: ", end="")
    if not report.problems:
        print("intact" if options.audio else "intact; the sound was not decoded")
        return 0
    print(
        f"{len(report.problems)} problems, {len(report.damaged_sources())} sources to build again. "
        f"`fsclap corpus repair {options.corpus}` removes what is damaged; the next build, or refresh-corpus, makes "
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


def _retry(options: argparse.Namespace) -> int:
    from storage.corpus import Corpus
    from storage.requests import add_requests

    corpus = Corpus.open(options.corpus)
    with corpus.lock():
        ledger, refusals = corpus.ledger(), corpus.refusals()
        known = options.source or [source_id for source_id, row in ledger.items() if row["status"] != "kept"]
        chosen = [
            source_id
            for source_id in known
            if source_id in ledger
            and (not options.reason or refusals.get(source_id, ("", "", ""))[1] in options.reason)
        ]
        add_requests(corpus, chosen, fetch=options.fetch_again)
    print(f"{len(chosen)} sources: the next build of their addresses, or refresh-corpus, decides them again.")
    unknown = sorted(set(options.source) - ledger.keys())
    if unknown:
        print(f"not in {options.corpus}: {', '.join(unknown)}", file=sys.stderr)
    return 1 if unknown else 0


def _history(options: argparse.Namespace) -> int:
    from storage.corpus import Corpus
    from storage.maintenance import history

    corpus = Corpus.open(options.corpus)
    names = {source_id: f"{row['series']}/{row['episode']}" for source_id, row in corpus.ledger().items()}
    for change in history(corpus):
        print(_change_line(change, names))
    return 0


def _change_line(change: "Change", names: dict[str, str]) -> str:
    changes = (("+", change.added), ("~", change.replaced), ("-", change.removed))
    sources = [f"{sign}{names.get(source_id, source_id)}" for sign, ids in changes for source_id in ids]
    more = f" and {len(sources) - _SHOWN_SOURCES} more" if len(sources) > _SHOWN_SOURCES else ""
    gone = "" if change.readable else " (its shards are gone)"
    return (
        f"{change.number:6d}  {change.time:%F %T}  {change.rows:8d} rows  {change.operation}{gone}  "
        f"{', '.join(sources[:_SHOWN_SOURCES])}{more}"
    )


def _restore(options: argparse.Namespace) -> int:
    from storage.corpus import Corpus
    from storage.maintenance import restore

    corpus = Corpus.open(options.corpus)
    with corpus.lock():
        removed = restore(corpus, options.version)
    print(f"Version {corpus.version()} has the content of version {options.version}.")
    if removed:
        print(f"Removed, because half committed then or damaged since: {', '.join(removed)}")
    return 0


def _compact(options: argparse.Namespace) -> int:
    from storage.compaction import compact
    from storage.corpus import Corpus

    corpus = Corpus.open(options.corpus)
    with corpus.lock():
        tables = compact(corpus)
    for table in tables:
        print(f"{table.table}: {table.before} shards are {table.after}; {table.aside} files moved to _superseded/")
    return 0


def _vacuum(options: argparse.Namespace) -> int:
    from storage.corpus import Corpus
    from storage.maintenance import vacuum

    if options.keep_days < 1 and not options.force:
        print(
            "--keep-days below 1 could delete what a worker is writing now; stop all workers, then add --force",
            file=sys.stderr,
        )
        return 2
    corpus = Corpus.open(options.corpus)
    with corpus.lock():
        removed = vacuum(corpus, keep=timedelta(days=options.keep_days), dry_run=options.dry_run)
    print("".join(f"{file.size:12d}  {options.corpus}/{file.name}\n" for file in removed), end="")
    size = sum(file.size for file in removed)
    print(f"{len(removed)} files, {size / 1e6:.1f} MB, {'to be deleted' if options.dry_run else 'deleted'}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from storage.card import README
    from storage.copies import upload
    from storage.corpus import Corpus
    from storage.interop import export_shar, export_webdataset
    from storage.objects import Place, PlaceError
    from storage.rights import selected

    writers: dict[str, Callable[[Corpus, Path], list[Path]]] = {
        "parquet": _export_parquet, "webdataset": export_webdataset, "shar": export_shar,
    }  # fmt: skip
    corpus = selected(Corpus.open(options.corpus), licences=options.licence, consents=options.consent)
    place, write = Place.at(options.destination), writers[options.format]
    if corpus.without:
        print(f"{len(corpus.without)} sources stay out, by their licence or consent.", file=sys.stderr)
    if place.is_local:
        print("\n".join(map(str, write(corpus, place.folder))))
        return 0
    if next(place.list(), None) is not None:
        raise PlaceError(f"{place} exists: name a new place, or remove it first")
    with TemporaryDirectory() as scratch:
        folder = Path(scratch, place.name)
        files = write(corpus, folder)
        upload(folder, place, last=[README])
        print("\n".join(f"{place}/{file.relative_to(folder)}" for file in files))
    return 0


def _export_parquet(corpus: "Corpus", destination: Path) -> list[Path]:
    from fsclap.corpus.filtering.consistency import effective_threshold
    from fsclap.corpus.settings import BuildSettings
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
