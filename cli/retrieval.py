"""Commands for the index: `fsclap index`, `search`, `describe` and `app`."""

import argparse
import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from cli.errors import command
from fsclap.retrieval import PORT, By

if TYPE_CHECKING:
    from fastapi import FastAPI

    from fsclap.retrieval.filters import Condition
    from fsclap.retrieval.hits import Hit
    from fsclap.retrieval.index import Record
    from fsclap.retrieval.search import Searcher
    from storage.objects import Place
    from storage.versions import CorpusVersion

INDEX = "data/corpus-index"
SHORTCUTS = {
    "emotion": "emotion={}",
    "speaker": "speaker~{}",
    "series": "series~{}",
    "language": "language={}",
    "says": "text~{}",
    "min-duration": "duration>={}",
    "max-duration": "duration<={}",
}
"""Option -> the condition that it stands for."""


def add_commands(commands: Any) -> None:
    """Add the commands to the subparsers of `fsclap`."""
    index = commands.add_parser("index", help="make a corpus searchable").add_subparsers(required=True)
    _add_build(index)
    _add_show(index)
    _add_search(commands)
    _add_describe(commands)
    _add_app(commands)


def _add_build(commands: Any) -> None:
    parser = commands.add_parser("build", help="embed a corpus with a model, or only what is new in it")
    parser.add_argument("--corpus", default="data/corpus", help="location of the corpus; default: %(default)s")
    parser.add_argument("--version", type=int, help="version of the utterances; default: the current one")
    parser.add_argument("--model", help="location of a model; default: the current one of --models")
    parser.add_argument("--models", default="data/models", help="location of all models; default: %(default)s")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto for a GPU if there is one; default: auto")
    parser.add_argument("--index", help="location of the index; default: CORPUS-index, next to the corpus")
    parser.set_defaults(run=command(_build, _errors))


def _add_show(commands: Any) -> None:
    parser = commands.add_parser("show", help="show what an index contains")
    _add_options(parser, model=False)
    parser.set_defaults(run=command(_show, _errors))


def _add_search(commands: Any) -> None:
    parser = commands.add_parser(
        "search",
        help="find clips by how they sound",
        epilog='Example: fsclap search "an exhausted man, almost whispering" --emotion sad --min-duration 2',
    )
    query = parser.add_mutually_exclusive_group(required=True)
    query.add_argument("query", nargs="?", help="how the speech should sound, in English")
    query.add_argument(
        "--clip", type=Path, metavar="FILE", help="find clips that sound like this recording of at most a minute"
    )
    query.add_argument("--like", metavar="ID", help="find clips that sound like this utterance of the corpus")
    parser.add_argument(
        "--by",
        choices=get_args(By),
        help="rank by the trained model, by the words of the clips' styles, which needs no training, or by both; "
        "default: words, or the model where the clips have no styles",
    )
    parser.add_argument("--top", type=_positive, default=10, metavar="N", help="number of clips; default: 10")
    for name, condition in SHORTCUTS.items():
        metavar = name.rsplit("-", 1)[-1].upper()
        parser.add_argument(f"--{name}", metavar=metavar, help=f"short for --where '{condition.format(metavar)}'")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="condition on any column; may be repeated: 'attributes.pitch_hz<150', 'events=laughter', 'title~part 2'",
    )
    parser.add_argument(
        "--rerank", type=_positive, default=0, metavar="N", help="score the N best again with the matching head"
    )
    parser.add_argument(
        "--export",
        type=Path,
        metavar="PATH",
        help="write the clips to a new folder, or to a new .zip, .m3u8 or .parquet file",
    )
    _add_options(parser)
    parser.set_defaults(run=command(_search, _errors))


def _add_describe(commands: Any) -> None:
    parser = commands.add_parser("describe", help="find the captions that fit a clip best")
    clip = parser.add_mutually_exclusive_group(required=True)
    clip.add_argument("clip", type=Path, nargs="?", metavar="FILE", help="a recording of at most a minute")
    clip.add_argument("--like", metavar="ID", help="an utterance of the corpus")
    parser.add_argument(
        "--top", type=_positive, default=5, metavar="N", help="number of captions; default: %(default)s"
    )
    _add_options(parser)
    parser.set_defaults(run=command(_describe, _errors))


def _add_app(commands: Any) -> None:
    parser = commands.add_parser(
        "app",
        help="search, listen and judge in the browser",
        description="Serve the search page to this machine only. To serve other machines too, name a --host and set a "
        "password in the environment variable FSCLAP_APP_PASSWORD.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s")
    parser.add_argument("--port", type=int, default=PORT, help="default: %(default)s")
    _add_options(parser, json=False)
    parser.set_defaults(run=command(_app, _errors))


def _add_options(parser: argparse.ArgumentParser, *, model: bool = True, json: bool = True) -> None:
    parser.add_argument("--index", default=INDEX, help="location of the index; default: %(default)s")
    if model:
        parser.add_argument("--model", help="location of the index's model, if it was moved")
        parser.add_argument("--corpus", help="location of the index's corpus, if it was moved")
    if json:
        parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")


def _errors() -> tuple[type[Exception], ...]:
    from fsclap.model.systems.base import ModelError
    from fsclap.retrieval.index import SearchError
    from fsclap.weights import WeightsError
    from storage.models import ModelStoreError
    from storage.rows import CorpusError

    return (SearchError, CorpusError, ModelStoreError, ModelError, WeightsError, OSError)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _build(options: argparse.Namespace) -> int:
    from fsclap.retrieval.build import build_index
    from fsclap.retrieval.index import RECORD, index_location
    from fsclap.retrieval.status import model_status
    from storage.copies import local_copy, upload
    from storage.models import ModelStore
    from storage.objects import Place
    from storage.versions import CorpusVersion

    model = _model(options)
    folder = local_copy(model)
    current = ModelStore.open(model.parent).promoted() if folder.is_dir() else None
    status = model_status(folder, promoted=current is not None and current.model == model.name)
    place = Place.at(options.index or index_location(options.corpus))
    version = CorpusVersion.open(options.corpus, options.version)
    index = build_index(
        local_copy(place), folder, version, model_location=model.location, status=status, device=options.device
    )
    upload(index.folder, place, last=[RECORD])
    print(f"{place}: {_summary(index.record)}")
    return 0


def _model(options: argparse.Namespace) -> "Place":
    """Return the place of the model that was named, or of the current one."""
    from fsclap.retrieval.index import SearchError
    from storage.models import ModelStore
    from storage.objects import Place

    if options.model is not None:
        place = Place.at(options.model)
        return Place(str(place.folder.resolve())) if place.is_local else place
    store = ModelStore.open(options.models)
    name = store.to_search_with()
    if name is None:
        raise SearchError(f"{options.models} has no finished model; train one, or name one with --model")
    return store.place(name)


def _show(options: argparse.Namespace) -> int:
    from fsclap.retrieval.index import Index

    record = Index.open(_copy(options.index)).record
    print(record.model_dump_json(indent=1) if options.json else _summary(record))
    return 0


def _summary(record: "Record") -> str:
    left_out = f", {len(record.left_out)} left out" if record.left_out else ""
    status = f"\n{record.model_status.sentence()}" if record.model_status else ""
    return (
        f"{record.clips} clips and {record.captions} captions of {record.corpus} version {record.version}{left_out}, "
        f"with {record.model} ({record.date}){status}"
    )


def _search(options: argparse.Namespace) -> int:
    searcher, version = _open(options)
    where = _conditions(options)
    if options.like:
        hits = searcher.like_clip(options.like, top=options.top, where=where)
    elif options.clip:
        hits = searcher.like_sound(*searcher.wave_of(options.clip), top=options.top, where=where)
    else:
        hits = searcher.search(options.query, by=options.by, top=options.top, where=where, rerank=options.rerank)
    for note in _notes(searcher, options.query, options.by or searcher.default):
        print(note, file=sys.stderr)
    if options.export and hits:
        from fsclap.retrieval.export import export_hits

        query = options.query or str(options.clip or options.like)
        print(f"written to {export_hits(hits, version.audio, options.export, query=query)}", file=sys.stderr)
    shares = _shares(searcher, hits, options)
    if options.json:
        print(json.dumps([_entry(hit, share) for hit, share in zip(hits, shares, strict=True)], indent=1))
    else:
        print("\n".join(map(_lines, hits, shares)) or "No clip meets these conditions.")
    return 0


def _shares(searcher: "Searcher", hits: "list[Hit]", options: argparse.Namespace) -> list[float | None]:
    """Say how much of what was asked for each clip has, 0 to 1; None where that is unknown, as for a guess."""
    if not hits or (options.query and searcher.guesses(options.query)):
        return [None] * len(hits)
    known = searcher.calibration((options.by or searcher.default) if options.query else "sound")
    return [None if known is None else known.share(hit.score) for hit in hits]


def _notes(searcher: "Searcher", query: str | None, by: str) -> list[str]:
    """Say what of a query could not be used, and whether the model can be trusted."""
    status = searcher.index.record.model_status
    warning = status.warning() if status and (query is None or by != "words") else ""
    return [*(map(str, searcher.notes(query)) if query else []), *([warning] if warning else [])]


def _entry(hit: "Hit", share: float | None) -> dict[str, Any]:
    found = {
        "score": hit.score,
        "share": share,
        "match": hit.match,
        "why": list(hit.why),
        "lacks": list(hit.told.lacks),
    }
    return found | hit.row


def _lines(hit: "Hit", share: float | None) -> str:
    """Word a hit; its number is that of the page: the share of what was asked for, or the bare score."""
    row = hit.row
    score = f"{hit.score:+.3f}" if share is None else f"{share:4.0%}"
    match = "" if hit.match is None else f"  match {hit.match:+.2f}"
    text = " ".join(row["text"].split())
    words = f': "{text}"' if text else ""
    why = f"  ({', '.join(hit.why)})" if hit.why else ""
    return (
        f"{hit.rank:3d}  {score}{match}  {hit.caption}{why}\n"
        f"     {row['speaker']}, {row['start']:.1f} to {row['end']:.1f} s{words}  [{hit.utterance_id}]"
    )


def _describe(options: argparse.Namespace) -> int:
    searcher, _ = _open(options)
    vector = searcher.vector(options.like) if options.like else searcher.embedded(*searcher.wave_of(options.clip))
    descriptions = searcher.describe(vector, top=options.top)
    if options.json:
        print(json.dumps([asdict(description) for description in descriptions], indent=1))
    else:
        print("\n".join(f"{description.score:+.3f}  {description.caption}" for description in descriptions))
    return 0


def _open(options: argparse.Namespace) -> "tuple[Searcher, CorpusVersion]":
    """Open the index, and the corpus version of its clips; warn if the corpus has a newer one."""
    from fsclap.retrieval.index import Index, SearchError
    from fsclap.retrieval.search import Searcher
    from storage.corpus import Corpus
    from storage.versions import CorpusVersion

    folder = _copy(options.index)
    record = Index.open(folder).record
    record = record.model_copy(update={"corpus": options.corpus or record.corpus})
    version = CorpusVersion.open(record.corpus, record.version)
    if version.table != record.table:
        raise SearchError(
            f"{record.corpus} is another corpus than the one that {options.index} was built from; build the index "
            f"again: {_build_command(options.index, record)}"
        )
    current = Corpus.open(record.corpus).version()
    if current != record.version:
        print(
            f"{options.index} holds version {record.version} of {record.corpus}, which is at version {current} now; "
            f"bring it up to date: {_build_command(options.index, record)}",
            file=sys.stderr,
        )
    return Searcher.open(folder, model=_copy(options.model or record.model), sound=version.audio), version


def _copy(location: str) -> Path:
    """Return a folder with the files of a location, which may be in an object store."""
    from storage.copies import local_copy
    from storage.objects import Place

    return local_copy(Place.at(location))


def _build_command(index: str, record: "Record") -> str:
    return f"fsclap index build --corpus {shlex.quote(record.corpus)} --index {shlex.quote(index)}"


def _conditions(options: argparse.Namespace) -> "list[Condition]":
    from fsclap.retrieval.filters import Condition

    values = {form: getattr(options, name.replace("-", "_")) for name, form in SHORTCUTS.items()}
    texts = [form.format(value) for form, value in values.items() if value is not None]
    return [Condition.parse(text) for text in [*texts, *options.where]]


def _app(options: argparse.Namespace) -> int:
    from fsclap.retrieval.app import address, listening, make_app, serve
    from fsclap.retrieval.guard import allowed_hosts
    from fsclap.retrieval.index import RECORD
    from fsclap.retrieval.live import live_app
    from storage.judgements import Judgements
    from storage.objects import Place

    password = os.environ.get("FSCLAP_APP_PASSWORD") or None
    hosts = allowed_hosts(options.host, password)

    def make() -> "FastAPI":
        searcher, version = _open(options)
        return make_app(searcher, version.audio, Judgements(version.location), password=password, hosts=hosts)

    with listening(options.host, options.port) as place:
        app = live_app(make, lambda: Place.at(options.index).version(RECORD))
        print(f"{address(options.host, options.port)}  (Ctrl-C stops it)", flush=True)
        serve(app, place)
    return 0
