"""The commands around an index: `fsclap index`, `search`, `describe` and `app`."""

import argparse
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsclap.retrieval import PORT

if TYPE_CHECKING:
    from fastapi import FastAPI

    from fsclap.retrieval.filters import Condition
    from fsclap.retrieval.search import Hit, Searcher
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
    index = commands.add_parser("index", help="make a corpus searchable").add_subparsers(required=True)
    build = index.add_parser("build", help="embed a corpus, or what is new in it, with a model")
    build.add_argument("--corpus", default="data/corpus", help="default: %(default)s")
    build.add_argument("--version", type=int, help="of the utterances; the current one by default")
    build.add_argument("--model", type=Path, help="folder of a model; the current one of --models by default")
    build.add_argument("--models", default="data/models", help="default: %(default)s")
    build.add_argument("--device", default="auto", help="cpu, cuda or auto: a GPU when there is one; default: auto")
    show = index.add_parser("show", help="what an index holds")
    search = commands.add_parser(
        "search",
        help="find clips by how they sound",
        epilog='Example: fsclap search "an exhausted man, almost whispering" --emotion sad --min-duration 2',
    )
    what = search.add_mutually_exclusive_group(required=True)
    what.add_argument("query", nargs="?", help="how the speech should sound, in English")
    what.add_argument("--clip", type=Path, metavar="FILE", help="find what sounds like this recording")
    what.add_argument("--like", metavar="ID", help="find what sounds like this utterance of the corpus")
    search.add_argument("--top", type=_positive, default=10, metavar="N", help="clips to find; default: 10")
    for name in SHORTCUTS:
        search.add_argument(f"--{name}", metavar=name.rsplit("-", 1)[-1].upper())
    search.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="on any column, as often as you like: 'attributes.pitch_hz<150', 'events=laughter', 'title~part 2'",
    )
    search.add_argument(
        "--rerank", type=_positive, default=0, metavar="N", help="score the N best again with the matching head"
    )
    search.add_argument(
        "--export",
        type=Path,
        metavar="PATH",
        help="write the clips there: a new folder, or a file in .zip, .m3u8 or .parquet",
    )
    describe = commands.add_parser("describe", help="find the captions that fit a clip")
    one = describe.add_mutually_exclusive_group(required=True)
    one.add_argument("clip", type=Path, nargs="?", metavar="FILE", help="a recording")
    one.add_argument("--like", metavar="ID", help="an utterance of the corpus")
    describe.add_argument("--top", type=_positive, default=5, metavar="N", help="captions to find; default: 5")
    app = commands.add_parser(
        "app",
        help="search, listen and judge in the browser",
        description="Serves a page on this machine alone. To serve it to others name a --host and give a password, in "
        "the environment variable FSCLAP_APP_PASSWORD.",
    )
    app.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s")
    app.add_argument("--port", type=int, default=PORT, help="default: %(default)s")
    runs = {build: _build, show: _show, search: _search, describe: _describe, app: _app}
    for command, run in runs.items():
        command.set_defaults(run=_answered(run))
    build.add_argument("--index", type=Path, help="folder of the index; default: beside the corpus, as CORPUS-index")
    for command in (show, search, describe, app):
        command.add_argument(
            "--index", type=Path, default=Path(INDEX), help="folder of the index; default: %(default)s"
        )
    for command in (search, describe, app):
        command.add_argument("--model", type=Path, help="folder of the index's model, if it was moved")
    for command in (show, search, describe):
        command.add_argument("--json", action="store_true", help="one JSON document instead of lines")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _answered(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """A command for which what can't be used is an answer, not a crash."""

    def wrapped(options: argparse.Namespace) -> int:
        from fsclap.model.fsclap import ModelError
        from fsclap.refusal import Refused
        from fsclap.retrieval.index import SearchError
        from fsclap.weights import WeightsError
        from storage.models import ModelStoreError
        from storage.rows import CorpusError

        try:
            return run(options)
        except (SearchError, CorpusError, ModelStoreError, ModelError, WeightsError, Refused, OSError) as error:
            print(error, file=sys.stderr)
            return 1

    return wrapped


def _build(options: argparse.Namespace) -> int:
    from fsclap.retrieval.index import SearchError, build_index, index_folder
    from storage.models import ModelStore
    from storage.versions import CorpusVersion

    model = options.model
    if model is None:
        store = ModelStore.open(options.models)
        name = store.to_search_with()
        if name is None:
            raise SearchError(f"{options.models} has no finished model; train one, or name one with --model")
        model = store.folder(name)
    folder = options.index or index_folder(options.corpus)
    version = CorpusVersion.open(options.corpus, options.version)
    index = build_index(folder, model, version, device=options.device)
    print(f"{folder}: {_summary(index.record)}")
    return 0


def _show(options: argparse.Namespace) -> int:
    from fsclap.retrieval.index import Index

    record = Index.open(options.index).record
    print(record.model_dump_json(indent=1) if options.json else _summary(record))
    return 0


def _summary(record: Any) -> str:
    left_out = f", {len(record.left_out)} left out" if record.left_out else ""
    return (
        f"{record.clips} clips and {record.captions} captions of {record.corpus} version {record.version}{left_out}, "
        f"with {record.model} ({record.date})"
    )


def _search(options: argparse.Namespace) -> int:
    searcher, version = _open(options)
    where = _conditions(options)
    if options.like:
        hits = searcher.like_clip(options.like, top=options.top, where=where)
    elif options.clip:
        hits = searcher.like_sound(*_wave(options.clip, searcher), top=options.top, where=where)
    else:
        hits = searcher.search(options.query, top=options.top, where=where, rerank=options.rerank)
    if options.export and hits:
        from fsclap.retrieval.export import export_hits

        asked = options.query or str(options.clip or options.like)
        print(f"written to {export_hits(hits, version.audio, options.export, query=asked)}", file=sys.stderr)
    if options.json:
        print(json.dumps([{"score": hit.score, "match": hit.match, **hit.row} for hit in hits], indent=1))
    else:
        print("\n".join(map(told, hits)) or "No clip meets these conditions.")
    return 0


def told(hit: "Hit") -> str:
    """A clip that was found, in two lines."""
    row = hit.row
    match = "" if hit.match is None else f"  match {hit.match:+.2f}"
    text = " ".join(row["text"].split())
    words = f': "{text}"' if text else ""
    return (
        f"{hit.rank:3d}  {hit.score:+.3f}{match}  {hit.caption}\n"
        f"     {row['speaker']}, {row['start']:.1f} to {row['end']:.1f} s{words}  [{hit.utterance_id}]"
    )


def _describe(options: argparse.Namespace) -> int:
    searcher, _ = _open(options)
    vector = searcher.vector(options.like) if options.like else searcher.embedded(*_wave(options.clip, searcher))
    found = searcher.describe(vector, top=options.top)
    if options.json:
        print(json.dumps([asdict(description) for description in found], indent=1))
    else:
        print("\n".join(f"{description.score:+.3f}  {description.caption}" for description in found))
    return 0


def _open(options: argparse.Namespace) -> "tuple[Searcher, CorpusVersion]":
    """The searcher, and the version of the corpus that its clips come from."""
    from fsclap.retrieval.index import Index, SearchError
    from fsclap.retrieval.search import Searcher
    from storage.corpus import Corpus
    from storage.versions import CorpusVersion

    record = Index.open(options.index).record
    version = CorpusVersion.open(record.corpus, record.version)
    if version.table != record.table:
        raise SearchError(
            f"{record.corpus} is another corpus than the one that {options.index} was built from; build the index "
            f"again: {_again(options.index, record)}"
        )
    current = Corpus.open(record.corpus).version()
    if current != record.version:
        print(
            f"{options.index} holds version {record.version} of {record.corpus}, which is at version {current} now; "
            f"bring it up to date: {_again(options.index, record)}",
            file=sys.stderr,
        )
    return Searcher.open(options.index, model=options.model, sound=version.audio), version


def _again(index: Path, record: Any) -> str:
    return f"fsclap index build --corpus {shlex.quote(record.corpus)} --index {shlex.quote(str(index))}"


def _conditions(options: argparse.Namespace) -> "list[Condition]":
    from fsclap.retrieval.filters import Condition

    given = {form: getattr(options, name.replace("-", "_")) for name, form in SHORTCUTS.items()}
    texts = [form.format(value) for form, value in given.items() if value is not None]
    return [Condition.parse(text) for text in [*texts, *options.where]]


def _wave(file: Path, searcher: "Searcher") -> "tuple[Any, int]":
    """A recording as mono, at the rate that the model hears."""
    from fsclap.audio import DecodeSettings, decode

    rate = searcher.model.audio_encoder.sample_rate
    with tempfile.TemporaryDirectory() as folder:
        wave = decode(file, Path(folder) / "wave", sample_rate=rate, settings=DecodeSettings())
        return wave.mean(axis=0), rate


def _app(options: argparse.Namespace) -> int:
    from fsclap.retrieval.app import allowed_hosts, make_app, serve
    from fsclap.retrieval.index import RECORD
    from fsclap.retrieval.live import live_app
    from storage.corpus import Corpus
    from storage.judgements import Judgements

    password = os.environ.get("FSCLAP_APP_PASSWORD") or None
    hosts = allowed_hosts(options.host, password)

    def make() -> "FastAPI":
        searcher, version = _open(options)
        judgements = Judgements(version.location) if Corpus.at(version.location).is_local else None
        return make_app(searcher, version.audio, judgements, password=password, hosts=hosts)

    app = live_app(make, options.index / RECORD)
    print(f"http://{options.host}:{options.port}  (Ctrl-C ends it)", flush=True)
    serve(app, options.host, options.port)
    return 0
