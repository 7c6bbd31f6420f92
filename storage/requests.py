"""What people asked the next build to do again: `again.json`, next to the tables of a corpus.

A request stays until a build has committed its source, so neither a killed build nor one of other
sources loses it.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from storage.build_record import read_record
from storage.corpus import Corpus
from storage.files import written_aside

AGAIN = "again.json"


@dataclass(frozen=True, slots=True)
class Requests:
    """Ids of sources.

    Attributes:
        retry: To be decided again, whatever was refused and remembered before.
        fetch: To be downloaded again, too.
    """

    retry: frozenset[str] = frozenset()
    fetch: frozenset[str] = frozenset()

    @property
    def all(self) -> frozenset[str]:
        return self.retry | self.fetch


def read_requests(corpus: Corpus) -> Requests:
    """Return what the next build is asked to do again.

    Raises:
        CorpusError: The file is damaged.
    """
    content = read_record(corpus.folder / AGAIN, remedy="Delete it, and ask again") or {}
    return Requests(*(frozenset(map(str, content.get(name) or ())) for name in ("retry", "fetch")))


def add_requests(corpus: Corpus, source_ids: Iterable[str], *, fetch: bool) -> None:
    """Ask the next build to decide sources again, and with `fetch` to download them again."""
    known, ids = read_requests(corpus), frozenset(source_ids)
    _write(corpus, Requests(known.retry | ids, known.fetch | (ids if fetch else frozenset())))


def clear_requests(corpus: Corpus, source_ids: Iterable[str]) -> None:
    """Note that these sources were done again."""
    known, done = read_requests(corpus), frozenset(source_ids)
    if known.all & done:
        _write(corpus, Requests(known.retry - done, known.fetch - done))


def _write(corpus: Corpus, requests: Requests) -> None:
    with written_aside(corpus.folder / AGAIN) as part:
        part.write_text(json.dumps({name: sorted(ids) for name, ids in asdict(requests).items()}, indent=1))
