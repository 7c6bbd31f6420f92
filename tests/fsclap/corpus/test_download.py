"""Listing and fetching, against real files and a real server on localhost."""

import os
from pathlib import Path

import pytest

from fsclap.corpus.download import DownloadSettings, Episode, clean_text, fetch, list_episodes
from fsclap.corpus.refusal import Refused, Unavailable
from tests.flows.pages import serve

SETTINGS = DownloadSettings(connection_retries=0, socket_timeout=5)
SAMPLES = Path(__file__).parents[3] / "samples"


@pytest.fixture
def media() -> Path:
    return sorted(SAMPLES.glob("*/*.mp4"))[0]


def episode(locator: str) -> Episode:
    return Episode("0" * 16, locator, "series", "e01", "title")


def test_a_feed_lists_its_episodes_in_order_with_titles_and_series(media: Path) -> None:
    with serve({"b.mp4": media, "a.mp4": media}) as (address, _):
        found = list_episodes(f"{address}/feed.xml", SETTINGS)
    assert [(one.series, one.name, one.title) for one in found] == [
        ("Test series", "a", "a.mp4"),
        ("Test series", "b", "b.mp4"),
    ]
    assert len({one.source_id for one in found}) == 2
    assert all("#" not in one.locator for one in found)


def test_an_address_names_the_same_source_in_every_run(media: Path) -> None:
    with serve({"a.mp4": media}) as (address, _):
        once = list_episodes(f"{address}/feed.xml", SETTINGS)
        again = list_episodes(f"{address}/a.mp4", SETTINGS)
    assert once[0].source_id == again[0].source_id


def test_fetching_brings_the_very_bytes(media: Path, tmp_path: Path) -> None:
    with serve({"a.mp4": media}) as (address, _):
        fetched = fetch(episode(f"{address}/a.mp4"), tmp_path, SETTINGS)
    assert fetched.path.read_bytes() == media.read_bytes()
    assert fetched.path.parent == tmp_path
    assert len(fetched.sha256) == 64


@pytest.mark.parametrize(
    ("name", "reason", "kind"),
    [
        ("status-404.mp4", "http_404", Refused),
        ("status-403.mp4", "http_403", Refused),
        ("status-503.mp4", "http_503", Unavailable),
        ("status-429.mp4", "http_429", Unavailable),
        ("loop.mp4", "redirect_loop", Refused),
        ("page.html", "not_media", Refused),
        ("page.mp4", "not_media", Refused),
        ("empty.mp4", "empty_file", Refused),
        ("short-of.mp4", "connection_lost", Unavailable),
    ],
)
def test_what_a_server_does_wrong_is_explained(name: str, reason: str, kind: type, tmp_path: Path) -> None:
    with serve({}) as (address, _), pytest.raises(Refused) as raised:
        fetch(episode(f"{address}/{name}"), tmp_path, SETTINGS)
    assert (raised.value.reason, type(raised.value)) == (reason, kind)
    assert name in raised.value.detail


def test_a_stream_without_end_is_cut_at_the_size_limit(tmp_path: Path) -> None:
    with serve({}) as (address, _), pytest.raises(Refused) as raised:
        fetch(episode(f"{address}/endless.mp4"), tmp_path, DownloadSettings(max_megabytes=2))
    assert raised.value.reason == "too_large"


def test_a_host_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as raised:
        fetch(episode("http://127.0.0.1:1/a.mp4"), tmp_path, SETTINGS)
    assert raised.value.reason == "unreachable"


def test_other_schemes_than_http_are_refused() -> None:
    with pytest.raises(Refused, match="unsupported_scheme"):
        list_episodes("file:///etc/passwd", SETTINGS)


def test_a_folder_lists_every_file_by_series(tmp_path: Path) -> None:
    for name in ("one/e01.mp4", "one/e02.mp4", "two/e01.mp4", "two/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [(one.series, one.name) for one in list_episodes(str(tmp_path), SETTINGS)] == [
        ("one", "e01"),
        ("one", "e02"),
        ("two", "e01"),
    ]


def test_a_changed_local_file_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(b"one")
    before = list_episodes(str(file), SETTINGS)[0]
    file.write_bytes(b"other")
    after = list_episodes(str(file), SETTINGS)[0]
    assert before.source_id == after.source_id
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize(("path", "reason"), [("gone.mp4", "no_such_file"), (".", "empty_folder")])
def test_what_is_not_there_is_refused(path: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=reason):
        list_episodes(str(tmp_path / path), SETTINGS)


def test_a_title_becomes_plain_text() -> None:
    assert clean_text("../a\x00b\ud800\n c\x1b[31m") == "../a b c [31m"
    assert len(clean_text("x" * 1000)) == 200


def test_a_file_name_that_is_no_text_can_be_listed_and_fetched(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"sound")
    (found,) = list_episodes(str(folder), SETTINGS)
    assert found.locator.isascii()
    assert found.name == "caf"
    assert fetch(found, tmp_path, SETTINGS).path.read_bytes() == b"sound"
