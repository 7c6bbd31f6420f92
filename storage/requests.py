"""What people asked the next build to do again: `again.json`, next to the tables of a corpus.

A request stays until a build has committed its source, so neither a killed build nor one of other
sources loses it.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from storage.build_record import parse_record
from storage.corpus import Corpus

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
    return _requests(corpus, corpus.place.read(AGAIN))


def add_requests(corpus: Corpus, source_ids: Iterable[str], *, fetch: bool) -> None:
    """Ask the next build to decide sources again, and with `fetch` to download them again."""
    ids = frozenset(source_ids)
    _change(corpus, lambda known: Requests(known.retry | ids, known.fetch | (ids if fetch else frozenset())))


def clear_requests(corpus: Corpus, source_ids: Iterable[str]) -> None:
    """Note that these sources were done again."""
    done = frozenset(source_ids)
    _change(corpus, lambda known: Requests(known.retry - done, known.fetch - done))


def _change(corpus: Corpus, to: Callable[[Requests], Requests]) -> None:
    def changed(content: bytes | None) -> bytes | None:
        before = _requests(corpus, content)
        after = to(before)
        return None if after == before else _content(after)

    corpus.place.change(AGAIN, changed)


def _requests(corpus: Corpus, content: bytes | None) -> Requests:
    record = parse_record(content, where=f"{corpus.location}/{AGAIN}", remedy="Delete it, and ask again") or {}
    return Requests(*(frozenset(map(str, record.get(name) or ())) for name in ("retry", "fetch")))


def _content(requests: Requests) -> bytes:
    return json.dumps({name: sorted(ids) for name, ids in asdict(requests).items()}, indent=1).encode()
