"""Records of a corpus: its last build, which a refresh repeats, and its last announced version."""

import json
from pathlib import Path
from typing import Any

from storage.corpus import Corpus
from storage.files import written_aside
from storage.rows import CorpusError

BUILD = "build.json"
ANNOUNCED = "announced.json"


def read_build(corpus: Corpus) -> dict[str, Any] | None:
    """Return sources, work folder and settings of the last build; None before the first.

    Raises:
        CorpusError: The file is damaged.
    """
    path = corpus.folder / BUILD
    build = read_record(path)
    if build is None:
        return None
    kinds = {"sources": list, "work": str, "settings": dict}
    if not all(isinstance(build.get(name), kind) for name, kind in kinds.items()):
        raise CorpusError(f"{path} is damaged: it lacks {', '.join(kinds)}. Delete it and build the corpus again")
    return build


def write_build(corpus: Corpus, build: dict[str, Any]) -> None:
    _write(corpus.folder / BUILD, build)


def read_announced(corpus: Corpus) -> int | None:
    """Return the last version of the utterances that was announced; None before the first.

    Raises:
        CorpusError: The file is damaged.
    """
    path = corpus.folder / ANNOUNCED
    announced = read_record(path)
    if announced is None:
        return None
    version = announced.get("version")
    if type(version) is not int:
        raise CorpusError(
            f"{path} is damaged: it has no version. Delete it; the next build announces the current version again"
        )
    return version


def write_announced(corpus: Corpus, version: int) -> None:
    _write(corpus.folder / ANNOUNCED, {"version": version})


def read_record(path: Path, *, remedy: str = "Delete it and build the corpus again") -> dict[str, Any] | None:
    """Read a JSON object; None when there is no such file.

    Raises:
        CorpusError: The file is damaged.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise CorpusError(f"{path} is damaged ({error}). {remedy}") from error
    if not isinstance(content, dict):
        raise CorpusError(f"{path} is damaged: it is not a JSON object. {remedy}")
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    with written_aside(path) as part:
        part.write_text(json.dumps(content, indent=1))
