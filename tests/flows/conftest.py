"""Copies of what the session built, for tests that change it."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.flows.built import Built


@pytest.fixture
def built(built_corpus: Built, tmp_path: Path, quick_plots: None) -> Iterator[Built]:
    """A copy of the corpus and its work files; afterwards the feed is as it was before.

    The card of `built_corpus` has its plots; the cards of copies do without.
    """
    shutil.copytree(built_corpus.corpus, tmp_path / "corpus")
    shutil.copytree(built_corpus.work, tmp_path / "work")
    shown = dict(built_corpus.shown)
    built_corpus.requests.clear()
    yield replace(built_corpus, corpus=str(tmp_path / "corpus"), work=str(tmp_path / "work"))
    built_corpus.shown.clear()
    built_corpus.shown.update(shown)
