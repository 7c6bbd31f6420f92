"""How a corpus was built, kept beside it so that a refresh can do the same again."""

import json
import os
from pathlib import Path
from typing import Any

from storage.corpus import Corpus

BUILD = "build.json"
ANNOUNCED = "announced.json"


def read_build(corpus: Corpus) -> dict[str, Any] | None:
    """The sources, the work folder and the settings of the last build; None when there was none."""
    path = corpus.folder / BUILD
    return json.loads(path.read_text()) if path.exists() else None


def write_build(corpus: Corpus, build: dict[str, Any]) -> None:
    _write(corpus.folder / BUILD, build)


def read_announced(corpus: Corpus) -> int | None:
    """The last version of the utterances that was announced; None when none was."""
    path = corpus.folder / ANNOUNCED
    return json.loads(path.read_text())["version"] if path.exists() else None


def write_announced(corpus: Corpus, version: int) -> None:
    _write(corpus.folder / ANNOUNCED, {"version": version})


def _write(path: Path, content: dict[str, Any]) -> None:
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    aside.write_text(json.dumps(content, indent=1))
    aside.replace(path)
