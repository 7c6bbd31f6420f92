"""People judge: does a clip fit a description? Which pairs they are asked about, and what is kept of their answers."""

import datetime
import hashlib
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from fsclap.data.splits import Split
from fsclap.retrieval import playback
from fsclap.retrieval.index import SearchError
from fsclap.retrieval.search import Searcher, nearest

Verdict = Literal["fits", "partly", "no"]
BEST, RANDOM = 10, 5
"""Clips that a query is judged with: the best by the model, and others, without which everything might seem to fit."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]


class Heard(BaseModel):
    """What a judge sends."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query: Text
    utterance_id: str
    verdict: Verdict
    judge: Name


class Judgement(Heard):
    """What is kept of it.

    Attributes:
        recipe: Of the clip: made by another one, it is another clip.
        judge: A name that the judge chose.
        model: Folder of the model that chose the clips.
        corpus, version: Where the clip is.
        date: ISO date and time.
    """

    recipe: str
    model: str
    corpus: str
    version: int
    date: str


class JudgementLog(Protocol):
    """Where judgements are kept, as rows with the fields of `Judgement`: `storage.judgements.Judgements`."""

    def add(self, row: Mapping[str, Any], /) -> None: ...
    def rows(self) -> Iterable[Mapping[str, Any]]: ...


class Judging:
    """The pairs of query and clip that are judged: those of the model's test part, or of all clips without one.

    Attributes:
        part: "test" or "all".
        queries: The distinct captions of the part, in an order that is the same for all judges.

    Raises:
        SearchError: The model's split.json is damaged.
    """

    def __init__(self, searcher: Searcher, log: JudgementLog) -> None:
        self._searcher, self._log, self._lock = searcher, log, threading.Lock()
        self._ids = np.array(searcher.index.rows["utterance_id"].to_pylist(), dtype=object)
        test = _test_part(Path(searcher.index.record.model) / "split.json")
        among = np.array([id_ in test for id_ in self._ids])
        self.part: Literal["test", "all"] = "test" if among.any() else "all"
        self._among = among if among.any() else np.ones(len(self._ids), dtype=bool)
        captions = searcher.index.rows["caption"].to_pylist()
        distinct = {captions[row].strip() for row in np.flatnonzero(self._among)} - {""}
        self.queries = sorted(distinct, key=_digest)

    def pool(self, query: str) -> list[str]:
        """The utterance ids that a query is judged with, in an order that says nothing of the model's."""
        vector = self._searcher.model.embed_text([query])[0].cpu().numpy()
        rows, _ = nearest(self._searcher.index.vectors, vector, BEST, self._among)
        rng = np.random.default_rng(int.from_bytes(_digest(query)))
        others = rng.permutation(np.setdiff1d(np.flatnonzero(self._among), rows))[:RANDOM]
        return [str(id_) for id_ in self._ids[rng.permutation(np.concatenate([rows, others]))]]

    def next(self, judge: str, query: str | None, start: int) -> dict[str, Any]:
        """A query and its clips that this judge has not judged.

        Args:
            query: The judge's own; None: the first from `queries[start]` on with which there is something left to do.
        """
        done = self._judged(judge)
        asked = enumerate(self.queries[start:], start=start) if query is None else [(None, query)]
        for number, text in asked:
            heard = done.get(text, set())
            if query is None and len(heard) >= min(BEST + RANDOM, self._among.sum()):
                continue  # without asking the model
            pool = self.pool(text)
            left = [id_ for id_ in pool if id_ not in heard]
            if left or query is not None:
                return {
                    "part": self.part,
                    "queries": len(self.queries),
                    "number": number,
                    "query": text,
                    "clips": left,
                    "pool": len(pool),
                }
        return {"part": self.part, "queries": len(self.queries), "number": None, "query": None, "clips": [], "pool": 0}

    def add(self, heard: Heard) -> None:
        """Keep a judgement."""
        row = playback.known(self._searcher, heard.utterance_id)
        record = self._searcher.index.record
        judgement = Judgement(
            **heard.model_dump(),
            recipe=row["recipe"],
            model=record.model,
            corpus=record.corpus,
            version=record.version,
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        with self._lock:
            self._log.add(judgement.model_dump())

    def _judged(self, judge: str) -> dict[str, set[str]]:
        """Query -> the clips that this judge has judged with it."""
        done: dict[str, set[str]] = {}
        for row in self._log.rows():
            if row["judge"] == judge:
                done.setdefault(row["query"], set()).add(row["utterance_id"])
        return done


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
    def add(heard: Heard) -> dict[str, str]:
        judging.add(heard)
        return {"kept": heard.verdict}

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
