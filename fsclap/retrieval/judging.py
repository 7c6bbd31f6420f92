"""Judging: people say whether a clip fits a description; this chooses the pairs."""

import datetime
import hashlib
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from fsclap.data.captions import caption_key
from fsclap.data.splits import Split
from fsclap.retrieval import playback
from fsclap.retrieval.index import SearchError
from fsclap.retrieval.nearest import nearest
from fsclap.retrieval.search import Searcher

Fit = Literal["fits", "partly", "no"]
"""A judge's verdict on one pair of description and clip."""
BEST, RANDOM = 10, 5
"""Clips to judge per query: the best by the model, and random ones, lest everything seem to fit."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]


class NewJudgement(BaseModel):
    """A judgement as the page sends it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query: Text
    utterance_id: str
    verdict: Fit
    judge: Name


class Judgement(NewJudgement):
    """A judgement as it is kept.

    Attributes:
        recipe: Recipe of the clip: the same utterance made with another recipe is another clip.
        judge: Name that the judge chose.
        model: Folder of the model that chose the clips.
        corpus, version: Corpus version of the clip.
        date: ISO date and time.
    """

    recipe: str
    model: str
    corpus: str
    version: int
    date: str


class JudgementLog(Protocol):
    """A store of rows with the fields of `Judgement`: `storage.judgements.Judgements`."""

    def add(self, row: Mapping[str, Any], /) -> None: ...
    def rows(self) -> Iterable[Mapping[str, Any]]: ...


class Judging:
    """Pairs of query and clip to judge, from the model's test part; from all clips if it has none.

    Attributes:
        part: "test" or "all".
        queries: Distinct captions of the part, in the same order for all judges.

    Raises:
        SearchError: The model's split.json is damaged.
    """

    def __init__(self, searcher: Searcher, log: JudgementLog) -> None:
        self._searcher, self._log, self._lock = searcher, log, threading.Lock()
        self._ids = np.array(searcher.index.rows["utterance_id"].to_pylist(), dtype=object)
        test = _test_part(searcher.model_folder / "split.json")
        among = np.array([id_ in test for id_ in self._ids])
        self.part: Literal["test", "all"] = "test" if among.any() else "all"
        self._among = among if among.any() else np.ones(len(self._ids), dtype=bool)
        captions = searcher.index.rows["caption"].to_pylist()
        distinct = {caption_key(captions[row]): captions[row].strip() for row in np.flatnonzero(self._among)[::-1]}
        self.queries = sorted((caption for caption in distinct.values() if caption), key=_digest)

    def pool(self, query: str) -> list[str]:
        """Choose the utterance ids to judge with a query, in an order unrelated to the model's."""
        vector = self._searcher.asked([query])[0]
        rows, _ = nearest(self._searcher.index.vectors, vector, BEST, self._among)
        rng = np.random.default_rng(int.from_bytes(_digest(query)))
        others = rng.permutation(np.setdiff1d(np.flatnonzero(self._among), rows))[:RANDOM]
        return [str(id_) for id_ in self._ids[rng.permutation(np.concatenate([rows, others]))]]

    def next(self, judge: str, query: str | None, start: int) -> dict[str, Any]:
        """Return a query with the clips that this judge has not judged yet.

        Args:
            judge: Name of the judge.
            query: A query of the judge's choice; None: the first with clips left to judge.
            start: Number of the first of `queries` to consider.

        Returns:
            `query` and its `number` in `queries`; `all` clips of its pool, `clips` that are left of it,
            `verdicts` by clip; `total` clips of all queries, and how many of these are `left`.
        """
        verdicts = self._verdicts(judge)
        size = min(BEST + RANDOM, int(self._among.sum()))
        total = size * len(self.queries)
        left = total - sum(min(size, len(verdicts.get(text, ()))) for text in self.queries)
        found = {"part": self.part, "queries": len(self.queries), "total": total, "left": left}
        candidates = enumerate(self.queries[start:], start=start) if query is None else [(None, query)]
        for number, text in candidates:
            done = verdicts.get(text, {})
            if query is None and len(done) >= size:
                continue  # saves embedding the query
            pool = self.pool(text)
            rest = [id_ for id_ in pool if id_ not in done]
            if rest or query is not None:
                given = {id_: done[id_] for id_ in pool if id_ in done}
                chosen = {"number": number, "query": text, "clips": rest, "all": pool, "verdicts": given}
                return found | chosen | {"pool": len(pool)}
        return found | {"number": None, "query": None, "clips": [], "all": [], "verdicts": {}, "pool": 0}

    def add(self, new: NewJudgement) -> None:
        """Keep a judgement.

        Raises:
            HTTPException: 404; the index has no such clip.
        """
        row = playback.row_of(self._searcher, new.utterance_id)
        record = self._searcher.index.record
        judgement = Judgement(
            **new.model_dump(),
            recipe=row["recipe"],
            model=record.model,
            corpus=record.corpus,
            version=record.version,
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        with self._lock:
            self._log.add(judgement.model_dump())

    def _verdicts(self, judge: str) -> dict[str, dict[str, str]]:
        """Map each query to the clips that this judge has judged with it, and the latest verdicts."""
        given: dict[str, dict[str, str]] = {}
        for row in self._log.rows():
            if row["judge"] == judge:
                given.setdefault(row["query"], {})[row["utterance_id"]] = row["verdict"]
        return given


def routes(judging: Judging) -> APIRouter:
    router = APIRouter(prefix="/api")

    @router.get("/judging")
    def pairs(
        judge: Annotated[Name, Query()],
        query: Annotated[Text | None, Query()] = None,
        start: Annotated[int, Query(ge=0)] = 0,
    ) -> dict[str, Any]:
        return judging.next(judge, query, start)

    @router.post("/judgements", status_code=201)
    def add(new: NewJudgement) -> dict[str, str]:
        judging.add(new)
        return {"kept": new.verdict}

    return router


def _test_part(file: Path) -> set[str]:
    try:
        return set(Split.load(file).test)
    except FileNotFoundError:
        return set()
    except (OSError, ValidationError) as error:
        raise SearchError(f"{file} is damaged ({error}); train the model again") from error


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
