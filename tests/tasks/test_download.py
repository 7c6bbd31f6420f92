"""How media are fetched is no part of what a row depends on; which track is fetched is."""

from pathlib import Path

import pytest

from fsclap.corpus.download import Episode
from fsclap.corpus.settings import BuildSettings
from storage.work import WorkStore
from tasks.batches import Item
from tasks.declared import Plan, declare
from tasks.download import download_stage

EPISODE = Episode("0" * 16, "http://example.org/a.mp4", "series", "a", "A")


def plan(**download: object) -> Plan:
    return declare(BuildSettings.model_validate({"download": download}))


@pytest.mark.parametrize(
    "changed",
    [
        {"private_addresses": True},
        {"cookies": "cookies.txt"},
        {"limits": {"max_episodes": 5}},
        {"limits": {"max_megabytes": 5}},
        {"limits": {"timeout": 5}},
    ],
)
def test_how_media_are_fetched_changes_no_recipe(changed: dict[str, object], tmp_path: Path) -> None:
    store, item = WorkStore(str(tmp_path)), Item(episode=EPISODE)
    assert plan(**changed).recipe(EPISODE) == plan().recipe(EPISODE)
    assert download_stage(store, plan(**changed)).step(item) == download_stage(store, plan()).step(item)


def test_another_track_is_another_recipe(tmp_path: Path) -> None:
    store, item = WorkStore(str(tmp_path)), Item(episode=EPISODE)
    assert plan(format="worst").recipe(EPISODE) != plan().recipe(EPISODE)
    assert download_stage(store, plan(format="worst")).step(item) != download_stage(store, plan()).step(item)
