"""Records of a corpus: its last build, which a refresh repeats, and its last announced version."""

import json
from collections.abc import Callable
from typing import Any

from storage.corpus import Corpus
from storage.rows import CorpusError

BUILD = "build.json"
ANNOUNCED = "announced.json"
_REMEDY = "Delete it and build the corpus again"

Record = dict[str, Any]


def read_build(corpus: Corpus) -> Record | None:
    """Return sources, work folder and settings of the last build; None before the first.

    Raises:
        CorpusError: The file is damaged.
    """
    return _build(corpus, corpus.place.read(BUILD))


def change_build(corpus: Corpus, to: Callable[[Record | None], Record]) -> None:
    """Replace the record of the last build by what `to` makes of it; two builds may do so at once."""
    corpus.place.change(BUILD, lambda content: _content(to(_build(corpus, content))))


def _build(corpus: Corpus, content: bytes | None) -> Record | None:
    build = parse_record(content, where=f"{corpus.location}/{BUILD}")
    if build is None:
        return None
    kinds = {"sources": list, "work": str, "settings": dict}
    if not all(isinstance(build.get(name), kind) for name, kind in kinds.items()):
        raise CorpusError(f"{corpus.location}/{BUILD} is damaged: it lacks {', '.join(kinds)}. {_REMEDY}")
    return build


def read_announced(corpus: Corpus) -> int | None:
    """Return the last version of the utterances that was announced; None before the first.

    Raises:
        CorpusError: The file is damaged.
    """
    where = f"{corpus.location}/{ANNOUNCED}"
    announced = parse_record(corpus.place.read(ANNOUNCED), where=where)
    if announced is None:
        return None
    version = announced.get("version")
    if type(version) is not int:
        raise CorpusError(
            f"{where} is damaged: it has no version. Delete it; the next build announces the current version again"
        )
    return version


def write_announced(corpus: Corpus, version: int) -> None:
    corpus.place.write(ANNOUNCED, _content({"version": version}))


def parse_record(content: bytes | None, *, where: str, remedy: str = _REMEDY) -> Record | None:
    """Read a JSON object; None when there is no file.

    Raises:
        CorpusError: The file is damaged.
    """
    if content is None:
        return None
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where} is damaged ({error}). {remedy}") from error
    if not isinstance(record, dict):
        raise CorpusError(f"{where} is damaged: it is not a JSON object. {remedy}")
    return record


def _content(record: Record) -> bytes:
    return json.dumps(record, indent=1).encode()
