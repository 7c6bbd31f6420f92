"""`fsclap corpus forget`: take sources and people out of a corpus, and say what is left of them where."""

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.corpus import Corpus
    from storage.people import Forgotten
    from storage.people_past import WithoutPeople
    from storage.sought import Sought


def forget_command(options: argparse.Namespace) -> int:
    """Forget or erase; 1 if a trace is left."""
    from storage.corpus import Corpus

    corpus = Corpus.open(options.corpus)
    if not (options.source or options.person or options.speaker or options.erase):
        print("name a source, or a --person, or a --speaker", file=sys.stderr)
        return 2
    with corpus.lock():
        people = _forget_people(corpus, options)
        if options.erase:
            return _erase(corpus, options)
        return _forget_sources(corpus, options) if options.source or people is None else 0


def _forget_people(corpus: "Corpus", options: argparse.Namespace) -> "Forgotten | None":
    from storage.people import forget_speakers, one_speaker, speakers_of

    names = frozenset().union(
        *(speakers_of(corpus, name) for name in options.person),
        *(one_speaker(corpus, name) for name in options.speaker),
    )
    if not names:
        return None
    done = forget_speakers(corpus, names)
    print(
        f"{len(done.speakers)} speakers taken out of {len(done.sources)} sources: {done.clips} clips, {done.turns} "
        "refused turns. No build of these sources brings them back."
    )
    if done.of_others:
        print(f"{done.of_others} of these clips have another speaker's name: the person speaks in most of them.")
    print(
        "New sources are not known by the voice, which is not kept: if the person speaks there, take them out again. "
        "The whole recording stays in the work folder of a build, unless disk.work_files is drop."
    )
    return done


def _forget_sources(corpus: "Corpus", options: argparse.Namespace) -> int:
    from storage.maintenance import forget
    from storage.requests import add_requests

    removed = forget(corpus, options.source)
    add_requests(corpus, removed, fetch=True)
    unknown = sorted(set(options.source) - set(removed))
    print(f"{len(removed)} sources removed; the next build, or refresh-corpus, fetches and makes them again.")
    if unknown:
        print(f"not in {options.corpus}: {', '.join(unknown)}", file=sys.stderr)
    return 0


def _erase(corpus: "Corpus", options: argparse.Namespace) -> int:
    """Erase what was made of the corpus first: as long as the corpus has the ids, an interruption loses nothing."""
    from fsclap.retrieval.index import index_location
    from storage.erasure import begin, finish
    from storage.models import ModelStore
    from storage.objects import Place
    from storage.sought import Sought, search
    from storage.traces import erase_from_models, erase_from_work, erase_index

    people = _people_past(corpus, options)
    sought = begin(corpus, options.source, people.gone if people else Sought())
    models_place, index = Place.at(options.models), Place.at(options.index or index_location(options.corpus))
    has_models = not models_place.is_local or models_place.folder.is_dir()
    models = []
    if has_models:
        models = erase_from_models(ModelStore.open(models_place), sought, of_version=_of_version(corpus, people))
    had_index = erase_index(index)
    outputs = erase_from_work(options.work, sought.sources | (people.sources if people else frozenset()))
    erased = finish(corpus, sought)
    print(
        f"{len(erased.sources)} sources erased from {corpus.location}: {erased.shards} shards of all versions changed."
    )
    if had_index:
        print(f"{index} is removed; `fsclap index build` makes it again without them.")
    print(f"{outputs} outputs removed from {options.work}, and the clips and features of trainings.")
    found = {
        corpus.location: erased.search,
        str(models_place): search(models_place, sought),
        str(index): search(index, sought),
        str(options.work): search(Place.at(options.work), sought),
    }
    for where, each in found.items():
        print(f"{where}: {each.files} files searched, {len(each.traces)} have a trace.")
    _say_what_is_not_proven(models)
    traces = [f"{where}/{name}" for where, each in found.items() for name in each.traces]
    print("\n".join(traces), file=sys.stderr, end="\n" if traces else "")
    return 1 if traces else 0


def _people_past(corpus: "Corpus", options: argparse.Namespace) -> "WithoutPeople | None":
    from storage.left_out import read_left_out
    from storage.people_past import WithoutPeople

    left_out = read_left_out(corpus)
    is_asked = options.person or options.speaker or not options.source
    return WithoutPeople(corpus, left_out) if left_out and is_asked else None


def _of_version(corpus: "Corpus", people: "WithoutPeople | None") -> "Callable[[str, int | None], Sought]":
    """Make the function that says what a model, trained on a version of a corpus, must not name."""
    from storage.corpus import Corpus
    from storage.sought import Sought

    def of_version(location: str, version: int | None) -> Sought:
        if people is None or version is None or Corpus.at(location).uri("") != corpus.uri(""):
            return Sought()
        return people.gone_from(version)

    return of_version


def _say_what_is_not_proven(models: list[str]) -> None:
    print("Not in reach, and not proven:")
    if models:
        print(
            f"- the weights of {', '.join(models)}, which learnt from these clips. They are out of its lists; to be "
            "rid of what was learnt, train again, then delete the model's folder."
        )
    print(
        "- copies elsewhere: exports, backups, versions that a bucket keeps, work folders and local copies of other "
        "machines, other models and indexes than these, clips that people keep in the page of their browser."
    )
