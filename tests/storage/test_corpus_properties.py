"""The corpus against a dictionary: commits, repeats, failures, and writers that die between two tables."""

import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from storage.corpus import Corpus
from storage.verify import verify
from tests.properties import fewer, fuzzed
from tests.storage.conftest import rows_of

Rows = dict[str, Any]
names = st.sampled_from(["e1", "e2"])
versions = st.builds(
    lambda kept, rejected, recipe: {"kept": kept, "rejected": rejected, "recipe": f"recipe-{recipe}"},
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(1, 2),
)


class Killed(BaseException):
    """What no handler in the corpus may take for an error of its own."""


class Commits(RuleBasedStateMachine):
    """`known` is what was committed, by source; `torn` what a dead writer began and nobody has repeated."""

    @initialize()
    def an_empty_corpus(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.corpus = Corpus.open(self.root / "corpus", create=True)
        self.known: dict[str, Rows] = {}
        self.torn: dict[str, Rows] = {}

    def teardown(self) -> None:
        if not hasattr(self, "root"):
            return
        for rows in self.torn.values():
            self._repeat(rows)
        assert verify(self.corpus).problems == []
        self._compare()
        shutil.rmtree(self.root)

    @rule(name=names, version=versions)
    def commit(self, name: str, version: Rows) -> None:
        rows = rows_of(name, **version)
        same = self.known.get(name) == rows and name not in self.torn
        before = self.corpus.version()
        found = self.corpus.commit_source(**rows)
        if same:
            assert (found, self.corpus.version()) == ("unchanged", before)
        elif name not in self.torn:
            assert found == "committed"
        self._settle(name, rows)

    @rule(name=names, status=st.sampled_from(["failed", "rejected"]))
    def refuse(self, name: str, status: str) -> None:
        rows = rows_of(name, kept=0, rejected=0, status=status)
        earlier = self.known.get(name)
        kept = status == "failed" and earlier is not None and earlier["source"]["status"] == "kept"
        found = self.corpus.commit_source(**rows)
        assert (found == "kept_earlier") == kept
        if not kept:
            self._settle(name, rows)

    @rule(name=names, version=versions, after=st.integers(0, 2))
    def die_between_two_tables(self, name: str, version: Rows, after: int) -> None:
        rows = rows_of(name, **version)
        written = []
        replace = Corpus._replace

        def dying(corpus: Corpus, table: str, *args: Any, **options: Any) -> None:
            if len(written) == after:
                raise Killed
            replace(corpus, table, *args, **options)
            written.append(table)

        ledger = self.corpus.ledger().get(rows["source"]["source_id"])
        with patch.object(Corpus, "_replace", dying):
            try:
                self.corpus.commit_source(**rows)
            except Killed:
                self.torn[name] = rows
            else:
                self._settle(name, rows)
        if name in self.torn and "sources" not in written:
            assert self.corpus.ledger().get(rows["source"]["source_id"]) == ledger, "the ledger comes last"

    @rule(name=names)
    def repeat(self, name: str) -> None:
        if name in self.torn:
            self._repeat(self.torn[name])
            del self.torn[name]

    def _repeat(self, rows: Rows) -> None:
        self.corpus.commit_source(**rows)
        assert self.corpus.commit_source(**rows) == "unchanged"
        self.known[rows["source"]["episode"]] = rows

    def _settle(self, name: str, rows: Rows) -> None:
        self.torn.pop(name, None)
        self.known[name] = rows

    @invariant()
    def the_corpus_is_what_was_committed(self) -> None:
        if hasattr(self, "root") and not self.torn:
            assert verify(self.corpus).problems == []
            self._compare()

    def _compare(self) -> None:
        wanted = sorted(u["utterance_id"] for rows in self.known.values() for u in rows["utterances"])
        found = self.corpus.utterances(columns=["utterance_id", "recipe", "caption", "audio"]).to_pylist()
        assert [row["utterance_id"] for row in found] == wanted
        committed = {u["utterance_id"]: u for rows in self.known.values() for u in rows["utterances"]}
        assert all(row[name] == committed[row["utterance_id"]][name] for row in found for name in row)
        ledger = {row["episode"]: (row["status"], row["recipe"]) for row in self.corpus.ledger().values()}
        assert ledger == {name: (r["source"]["status"], r["source"]["recipe"]) for name, r in self.known.items()}
        assert self.corpus.rejects().num_rows == sum(len(rows["rejects"]) for rows in self.known.values())


TestCommits = Commits.TestCase
TestCommits.settings = fewer(10, fuzzed, stateful_step_count=12)
