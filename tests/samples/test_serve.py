import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yt_dlp

from samples.serve import make_server, serve

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture
def site(tmp_path) -> Iterator[tuple[Path, str]]:
    root = tmp_path / "site"
    shutil.copytree(SAMPLES / "dve-ryby", root / "dve ryby")
    (root / "secret.txt").write_text("not served")
    with serve(root) as address:
        yield root, address


def playlist(url: str) -> dict:
    with yt_dlp.YoutubeDL({"quiet": True, "no_warnings": True}) as client:
        info = client.extract_info(url, download=False, process=False)
    return {**info, "entries": list(info["entries"])}


def test_yt_dlp_reads_a_feed_as_a_playlist(site) -> None:
    _, address = site
    info = playlist(f"{address}/dve%20ryby/feed.xml")
    assert (info["_type"], info["title"]) == ("playlist", "Dvě ryby")
    assert [entry["title"] for entry in info["entries"]] == ["Město", "Bohové", "Vikingové", "Dlažba"]
    assert info["entries"][0]["url"].startswith(f"{address}/dve%20ryby/e01.mp4")


def test_a_new_file_is_a_new_episode(site) -> None:
    root, address = site
    shutil.copy(SAMPLES / "crossed-lines/e04.mp4", root / "dve ryby" / "e05.mp4")
    info = playlist(f"{address}/dve%20ryby/feed.xml")
    assert [entry["title"] for entry in info["entries"]][-1] == "A New World"
    assert len(info["entries"]) == 5


def test_yt_dlp_downloads_an_episode_byte_for_byte(site, tmp_path) -> None:
    root, address = site
    options = {"quiet": True, "no_warnings": True, "noprogress": True, "playlist_items": "2"}
    options["outtmpl"] = str(tmp_path / "%(id)s.%(ext)s")
    with yt_dlp.YoutubeDL(options) as client:
        client.extract_info(f"{address}/dve%20ryby/feed.xml")
    (fetched,) = tmp_path.glob("*.mp4")
    assert fetched.name == "dve ryby-e02.mp4"
    assert fetched.read_bytes() == (root / "dve ryby" / "e02.mp4").read_bytes()


def test_the_index_links_every_series(site) -> None:
    _, address = site
    with urllib.request.urlopen(f"{address}/") as page:
        assert '<a href="/dve%20ryby/feed.xml">Dvě ryby</a>' in page.read().decode()


@pytest.mark.parametrize("path", ["/secret.txt", "/dve%20ryby/", "/none/feed.xml", "/dve%20ryby/../secret.txt"])
def test_nothing_else_is_served(site, path) -> None:
    _, address = site
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(address + path)


def test_a_root_that_is_no_folder_is_refused(tmp_path) -> None:
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        make_server(tmp_path / "none", 0)
