"""What a build states of its sources, and what their pages do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from yt_dlp.extractor.common import InfoExtractor

from fsclap.corpus import download as downloads
from fsclap.corpus.download import DownloadSettings, Media
from fsclap.corpus.fetcher import _Downloader, _fetch, _options
from storage.build_record import read_build
from storage.rights import Rights, read_rights, state
from tasks.batches import Item
from tasks.publish import remember_build
from tasks.rights import require_known, state_rights
from tests.flows.pages import serve
from tests.tasks.world import World, world

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture
def show(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def test_each_episode_of_a_source_has_what_is_stated_of_it(show: World) -> None:
    for name in ("a", "b"):
        show.put(name, f"good {name}")
    listed = [Item(episode=show.episode(name)) for name in ("a", "b")]
    rights = {"*": Rights(rights_holder="Ada", licence="MIT"), "feed": Rights(licence="CC0-1.0", consent="given")}
    require_known(["feed", "file"], rights)
    with pytest.raises(ValueError, match="rights names 'fed', which is none of the sources"):
        require_known(["feed"], {"fed": Rights(licence="MIT")})
    stated = state_rights(listed, ["feed", "file"], rights, show.corpus.location)
    assert stated == sorted(map(show.id, "ab"))
    show.build()
    found = read_rights(show.corpus)
    assert [found[show.id(name)]["licence"] for name in "ab"] == ["CC0-1.0", "MIT"]
    assert [found[show.id(name)]["rights_holder"] for name in "ab"] == ["Ada", "Ada"]

    state(show.corpus, {show.id("a"): Rights(consent="withdrawn")})
    assert state_rights(listed, ["feed", "file"], rights, show.corpus.location) == []
    assert read_rights(show.corpus)[show.id("a")]["consent"] == "withdrawn", "a refresh doesn't take that back"

    remember_build(show.corpus.location, ["feed", "file"], "w", show.plan().settings, rights)
    build: Any = read_build(show.corpus)
    assert build["rights"] == {
        "feed": {"licence": "CC0-1.0", "consent": "given", "rights_holder": "Ada"},
        "file": {"licence": "MIT", "rights_holder": "Ada"},
    }


def test_a_page_states_the_licence_where_nobody_does(show: World) -> None:
    fetch = show.fetch

    def licensed(*arguments: Any) -> Media:
        media = fetch(*arguments)
        return Media(media.path, media.sha256, media.title, media.served, "Creative Commons Attribution")

    for name in ("a", "b"):
        show.put(name, f"good {name}")
    state(show.corpus, {show.id("a"): Rights(licence="MIT")})
    # Not by the fixture monkeypatch, which is undone after `show`, and would leave its server to other tests.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downloads, "fetch", licensed)
        show.build()
    found = {key: (row["licence"], row["licence_from"]) for key, row in read_rights(show.corpus).items()}
    assert found == {show.id("a"): ("MIT", "user"), show.id("b"): ("Creative Commons Attribution", "site")}


class Site(InfoExtractor):
    """A site that names the licence of its recordings, as YouTube and Vimeo do."""

    _VALID_URL = r"(?P<server>http://127\.0\.0\.1:\d+)/watch/(?P<id>\w+)"

    def _real_extract(self, url: str) -> dict[str, Any]:
        server = self._match_valid_url(url).group("server")
        return {"id": "1", "title": "A talk", "license": "CC BY 4.0", "url": f"{server}/a.mp4", "ext": "mp4"}


def test_the_licence_that_a_site_names_comes_with_the_recording(tmp_path: Path) -> None:
    media = sorted(SAMPLES.glob("*/*.mp4"))[0]
    limits = DownloadSettings().limits.model_dump(mode="json")
    with serve({"a.mp4": media}) as (server, _):
        request = {
            "action": "fetch", "url": f"{server}/watch/1", "shown": "it", "folder": str(tmp_path), "cookies": None,
            "max_bytes": 10**9, **DownloadSettings().model_dump(mode="json", exclude={"limits", "cookies"}), **limits,
        }  # fmt: skip
        with _Downloader(_options(request, lambda **_: None), auto_init=False) as downloader:
            downloader.add_info_extractor(Site())
            (answer,) = _fetch(downloader, request)
    assert (answer["title"], answer["license"]) == ("A talk", "CC BY 4.0")
    assert (tmp_path / answer["media"]).read_bytes() == media.read_bytes()
