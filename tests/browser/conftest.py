"""The real page over a small real index, in a real browser."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from fsclap.retrieval.app import make_app
from fsclap.retrieval.index import Index
from fsclap.retrieval.search import Searcher
from harness.chromium import MISSING, find, launch
from storage.versions import CorpusVersion
from tests.fsclap.retrieval.serving import served
from tests.fsclap.retrieval.test_judging import InMemory
from tests.fsclap.training.conftest import one_thread

__all__ = ["one_thread"]

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
COLUMNS = 8
"""Of the grid in which the map has its points."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Scope module: while it runs, no other test of this process can use asyncio.
    if find() is None:
        if os.environ.get("FSCLAP_REQUIRE_BROWSER"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def mapped(
    index_folder: Path,
    searcher: Searcher,
    version: CorpusVersion,
    tmp_path_factory: pytest.TempPathFactory,
) -> Searcher:
    """A searcher with a finished map: a grid, row by row."""
    folder = tmp_path_factory.mktemp("mapped") / "index"
    shutil.copytree(index_folder, folder)
    index = Index.open(folder)
    at = np.arange(len(index.rows))
    places = np.stack([at % COLUMNS, at // COLUMNS], axis=1) / (COLUMNS - 1)
    np.save(folder / index.record.build / "map.npy", places.astype(np.float32))
    return Searcher(index, searcher.model, version.audio)


@pytest.fixture(scope="module")
def log() -> InMemory:
    return InMemory()


@pytest.fixture(scope="module")
def address(mapped: Searcher, version: CorpusVersion, log: InMemory) -> Iterator[str]:
    with served(make_app(mapped, version.audio, log)) as address:
        yield address


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on a desktop. Script errors and violations of the policy fail the test."""
    with opened(browser, DESK) as page:
        yield page


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    with opened(browser, PHONE) as page:
        yield page


@contextmanager
def opened(browser: Browser, size: dict[str, int]) -> Iterator[Page]:
    touch = size is PHONE
    context = browser.new_context(viewport=size, has_touch=touch, is_mobile=touch)  # type: ignore[arg-type]
    context.set_default_timeout(15_000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    # Tests provoke answers of 400, which appear on the console too.
    page.on(
        "console",
        lambda message: (
            complaints.append(message.text)
            if message.type == "error" and "Failed to load resource" not in message.text
            else None
        ),
    )
    yield page
    context.close()
    assert not complaints
