"""The list of paused sources: a variable of a real server."""

from pathlib import Path
from typing import Any

import pytest
from prefect.variables import Variable

from fsclap.corpus.download import Episode
from tasks.batches import Item
from tasks.paused import VARIABLE, PausedListError, is_paused, paused_sources, without_paused

FEED = "https://example.org/feed.xml"


def item(locator: str, address: str = "") -> Item:
    return Item(episode=Episode("a" * 16, locator, "Lines", "e01", "Episode 1", address=address))


@pytest.mark.parametrize(
    ("source", "listed", "paused"),
    [
        (FEED, FEED, True),
        (f"{FEED}/", FEED, True),
        (FEED, f"{FEED}/", True),
        ("/videos/series", "/videos/series/", True),
        ("/videos/a b.mp4", "file:///videos/a%20b.mp4", True),
        (f"{FEED}?page=2", FEED, False),
        ("/videos/series/e01.mp4", "/videos/series", False),
    ],
)
def test_a_source_is_paused_by_any_of_its_names(
    source: str, listed: str, paused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Variable, "get", lambda *_, **__: [listed])
    assert is_paused(source, paused_sources()) is paused


def test_single_episodes_are_paused_by_their_address_or_file(tmp_path: Path) -> None:
    file = tmp_path / "e 01.mp4"
    listed = [
        item(file.as_uri()),
        item("https://example.org/1", "https://example.org/1?token=x"),
        item("https://b.org"),
    ]
    kept, skipped = without_paused(listed, frozenset({str(file), "https://example.org/1?token=x"}))
    assert kept == listed[2:]
    assert skipped == [file.as_uri(), "https://example.org/1"], "without the token"


@pytest.mark.parametrize("value", ["https://example.org/feed.xml", {"feed": True}, [1]])
def test_a_variable_of_another_form_is_an_error(prefect_server: None, value: Any) -> None:
    assert paused_sources() == frozenset()
    Variable.set(VARIABLE, value)
    try:
        with pytest.raises(PausedListError, match=f"{VARIABLE} has to be a list of sources"):
            paused_sources()
    finally:
        Variable.unset(VARIABLE)
