"""Settings of how media are fetched are not part of what a row says."""

from pathlib import Path

import pytest

from fsclap.corpus.download import DownloadSettings, Episode
from fsclap.corpus.settings import BuildSettings
from storage.work import WorkStore
from tasks.batches import Item
from tasks.download import download_stage
from tasks.plan import recipe

EPISODE = Episode("0" * 16, "http://example.org/a.mp4", "series", "a", "A")


@pytest.mark.parametrize(
    "other",
    [
        {"private_addresses": True},
        {"cookies": "cookies.txt"},
        {"max_episodes": 5},
        {"max_megabytes": 5},
        {"timeout": 5},
    ],
)
def test_how_media_are_fetched_changes_no_recipe(other: dict[str, object], tmp_path: Path) -> None:
    usual = BuildSettings().resolved()
    chosen = usual.model_copy(update={"download": DownloadSettings.model_validate(other)})
    assert recipe(chosen, EPISODE) == recipe(usual, EPISODE)
    store, item = WorkStore(str(tmp_path)), Item(episode=EPISODE)
    assert download_stage(store, chosen).step(item) == download_stage(store, usual).step(item)


def test_which_track_is_fetched_does() -> None:
    usual = BuildSettings().resolved()
    chosen = usual.model_copy(update={"download": DownloadSettings(format="worst")})
    assert recipe(chosen, EPISODE) != recipe(usual, EPISODE)
