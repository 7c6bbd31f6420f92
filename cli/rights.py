"""`fsclap corpus rights`, and what is stated of the sources of a build: licence, rights holder, consent."""

import argparse
import fnmatch
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storage.corpus import Corpus
    from storage.objects import Place
    from storage.rights import Rights

_NAMES = ("licence", "rights_holder", "consent", "consent_note", "consent_date")


class RightsError(ValueError):
    """What is stated can't be; nothing has changed."""


def add_statement(parser: argparse.ArgumentParser) -> None:
    """Add the options by which a person states something of sources."""
    parser.add_argument(
        "--licence", help="SPDX id (CC-BY-4.0), LicenseRef-NAME, the address of a licence, or its words"
    )
    parser.add_argument("--rights-holder", metavar="NAME", help="who has the rights")
    parser.add_argument(
        "--consent", metavar="WORD", help='of the people who are heard: given, "not asked" or withdrawn, which keeps a '
        "source out of exports, trainings and indexes",
    )  # fmt: skip
    parser.add_argument("--consent-note", metavar="TEXT", help="how, or by whom, it was given or withdrawn")
    parser.add_argument("--consent-date", metavar="DATE", help="when, as 2026-01-31")


def statement(options: argparse.Namespace) -> "Rights | None":
    """Return what the options state; None if they state nothing.

    Raises:
        RightsError: It can't be stated.
    """
    given = {name: value for name in _NAMES if (value := getattr(options, name)) is not None}
    return rights_of(given, where="") if given else None


def rights_of(given: Mapping[str, Any], *, where: str) -> "Rights":
    """Check a statement.

    Raises:
        RightsError: The message says, for each field, what is wrong.
    """
    from pydantic import ValidationError

    from storage.rights import Rights

    try:
        return Rights.model_validate(given)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, each['loc'])) or 'consent'}: {each['msg'].removeprefix('Value error, ')}"
            for each in error.errors()
        ]
        raise RightsError(f"{where}{'; '.join(faults)}") from error


def rights_file(path: Path) -> "dict[str, Rights]":
    """Read a JSON file: source as it is named in the build, or "*" for all -> what is stated of it.

    Raises:
        RightsError: It isn't there, or no such file.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RightsError(f"{path} can't be read as JSON: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(each, dict) for each in content.values()):
        raise RightsError(f'{path}: write {{"SOURCE": {{"licence": "CC-BY-4.0", "consent": "given"}}, ...}}')
    return {source: rights_of(given, where=f"{path}, {source}: ") for source, given in content.items()}


def rights_command(options: argparse.Namespace) -> int:
    """State licence, holder and consent of sources, or list what is stated."""
    from storage.corpus import Corpus
    from storage.rights import state

    corpus = Corpus.open(options.corpus)
    stated = statement(options)
    if stated is None:
        return _list(corpus, options)
    with corpus.lock():
        sources = _chosen(corpus, options)
        if not sources:
            raise RightsError("name the sources, or --series with a pattern, or --series '*' for all")
        changed = state(corpus, dict.fromkeys(sources, stated))
    print(f"{len(changed)} of {len(sources)} sources changed.")
    if stated.consent == "withdrawn" and changed:
        print(
            "They are out of exports from now on, and out of models and index when these are made again. "
            f"`fsclap corpus verify {options.corpus}` names those that still have them. The rows stay until "
            "`fsclap corpus forget --erase`."
        )
    return 0


def _chosen(corpus: "Corpus", options: argparse.Namespace) -> list[str]:
    ledger = corpus.ledger()
    unknown = sorted(set(options.source) - ledger.keys())
    if unknown:
        raise RightsError(f"not in {options.corpus}: {', '.join(unknown)}; source ids are those of the ledger")
    named = {key for key, row in ledger.items() if options.series and fnmatch.fnmatch(row["series"], options.series)}
    if options.series and not named:
        known = ", ".join(sorted({row["series"] for row in ledger.values()})[:5])
        raise RightsError(f"no series of {options.corpus} is called {options.series!r}; there are {known}")
    return sorted({*options.source, *named})


def _list(corpus: "Corpus", options: argparse.Namespace) -> int:
    from storage.rights import STATED, read_rights

    rights, ledger = read_rights(corpus), corpus.ledger()
    chosen = _chosen(corpus, options) or sorted(ledger)
    rows = [
        {"source_id": key, "series": ledger[key]["series"], "episode": ledger[key]["episode"]}
        | {name: rights.get(key, {}).get(name) for name in STATED.names}
        for key in chosen
    ]
    if options.json:
        json.dump(rows, sys.stdout, indent=1, default=str)
        print()
        return 0
    for row in rows:
        facts = [f"{name} {row[name]}" for name in STATED.names if row[name] is not None]
        print(f"{row['source_id']}  {row['series']}/{row['episode']}: {', '.join(facts) or 'nothing stated'}")
    counts = Counter(row["licence"] or "not stated" for row in rows)
    print("; ".join(f"{licence}: {count} sources" for licence, count in counts.most_common()))
    return 0


def still_there(corpus: "Corpus", *, index: str | None, models: str) -> list[str]:
    """Say what still has clips of sources whose consent is withdrawn, one sentence each."""
    from fsclap.retrieval.index import SearchError, index_location
    from storage.objects import Place
    from storage.rights import withdrawn

    sources = withdrawn(corpus)
    if not sources:
        return []
    kept = sum(row["turns_kept"] for key, row in corpus.ledger().items() if key in sources)
    said = [f"consent is withdrawn for {len(sources)} sources: {kept} clips, which stay in the tables alone"]
    place = Place.at(index or index_location(corpus.location))
    try:
        if count := _in_index(place, sources):
            said.append(f"{place} still has {count} clips of them: `fsclap index build` takes them out")
    except SearchError as error:
        said.append(f"whether {place} still has clips of them is not known: {error}")
    for model, count in _in_models(Place.at(models), sources).items():
        said.append(f"{model} was trained on {count} clips of them: train again, then delete its folder")
    return said


def _in_index(place: "Place", sources: frozenset[str]) -> int:
    from fsclap.retrieval.index import RECORD, Index
    from storage.copies import local_copy

    if not place.exists(RECORD):
        return 0
    return sum(source_id in sources for source_id in Index.open(local_copy(place)).rows["source_id"].to_pylist())


def _in_models(place: "Place", sources: frozenset[str]) -> dict[str, int]:
    from storage.models import ModelStore

    if place.is_local and not place.folder.is_dir():
        return {}
    store = ModelStore.open(place)
    found = {}
    for name in store.names():
        split = json.loads(store.place(name).read("split.json") or b"{}")
        count = sum(clip.rsplit("-", 1)[0] in sources for clip in split.get("train", ()))
        if count:
            found[str(store.place(name))] = count
    return found
