"""Listing and fetching, against real files and a real server on localhost."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fsclap.corpus.addresses import redact
from fsclap.corpus.download import (
    DownloadLimits,
    DownloadSettings,
    Episode,
    _episode,
    clean_text,
    fetch,
    list_episodes,
    served,
    source_id,
)
from fsclap.refusal import Refused, Unavailable
from tests.flows.pages import (
    ENTRIES,
    HLS,
    feed,
    gzip_bomb,
    hostile_documents,
    passing_for_public,
    serve,
)

SETTINGS = DownloadSettings(limits=DownloadLimits(connection_retries=0, socket_timeout=5), private_addresses=True)
SAMPLES = Path(__file__).parents[3] / "samples"


def slow(*values: Any) -> Any:
    """A case for the slow tier: a yt-dlp process each, and its like is in the fast tier."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture
def media() -> Path:
    return sorted(SAMPLES.glob("*/*.mp4"))[0]


def episode(locator: str) -> Episode:
    return Episode("0" * 16, locator, "series", "e01", "title")


def limited(settings: DownloadSettings, **limits: float) -> DownloadSettings:
    return settings.model_copy(update={"limits": settings.limits.model_copy(update=limits)})


def test_a_feed_lists_its_episodes_in_order_with_titles_and_series(media: Path) -> None:
    with serve({"b.mp4": media, "a.mp4": media}) as (address, _):
        found = list_episodes(f"{address}/feed.xml", SETTINGS)
        (alone,) = list_episodes(f"{address}/a.mp4", SETTINGS)
    assert [(one.series, one.name, one.title) for one in found] == [
        ("Test series", "a", "a.mp4"),
        ("Test series", "b", "b.mp4"),
    ]
    assert len({one.source_id for one in found}) == 2
    assert alone.source_id == found[0].source_id, "an address names the same source in every run"
    assert all("#" not in one.locator for one in found)


FEED = '<rss version="2.0"><channel><title>The Show</title>{}</channel></rss>'
EPISODE = '<item><title>{0}</title><guid>{1}</guid><enclosure url="{2}/media.mp3?{3}" type="audio/mpeg"/></item>'


def test_an_episode_of_a_feed_is_known_by_its_guid(tmp_path: Path) -> None:
    """Its host touches ?updated= at each change, and puts another advertisement into it."""
    file = tmp_path / "feed.xml"
    with serve({"feed.xml": file}) as (server, _):
        ids = []
        for query in ("id=1&amp;updated=1", "id=1&amp;updated=2", "key=7"):
            file.write_text(FEED.format(EPISODE.format("A", "guid-a", server, query)))
            (episode,) = list_episodes(f"{server}/feed.xml", SETTINGS)
            ids.append(episode.source_id)
        assert len(set(ids)) == 1
        assert episode.earlier_id == source_id(f"{server}/media.mp3?key=7"), "as it was known before guids counted"
        items = [EPISODE.format("A", "same", server, "id=1"), EPISODE.format("B", "same", server, "id=2")]
        file.write_text(FEED.format("".join([*items, items[0]])))
        assert len(list_episodes(f"{server}/feed.xml", SETTINGS)) == 2, "a guid that is given twice tells nothing apart"


def test_parameters_that_say_nothing_of_a_recording_do_not_count() -> None:
    def identity(query: str) -> str:
        return _episode({"url": f"https://example.org/a.mp3{query}"}, {}, "").source_id

    assert identity("?id=1&utm_source=x&updated=17") == identity("?id=1&fbclid=3") == identity("?id=1")
    assert identity("?utm_source=x") == identity("") == source_id("https://example.org/a.mp3")
    assert identity("?id=2") != identity("?id=1")


def test_fetching_brings_the_very_bytes(media: Path, tmp_path: Path) -> None:
    with serve({"a.mp4": media}) as (address, _):
        fetched = fetch(episode(f"{address}/a.mp4"), tmp_path, SETTINGS)
    assert fetched.path.read_bytes() == media.read_bytes()
    assert fetched.path.parent == tmp_path
    assert len(fetched.sha256) == 64


def test_a_server_says_which_version_of_a_file_it_has(media: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(media.read_bytes()[:50_000])
    with serve({"a.mp4": file}) as (server, requests):
        one = episode(f"{server}/a.mp4")
        (tmp_path / "fetched").mkdir()
        assert fetch(one, tmp_path / "fetched", SETTINGS).served == served(one, SETTINGS) == "Length 50000"
        assert requests == ["a.mp4"] * 3
        file.write_bytes(media.read_bytes()[:60_000])
        assert served(one, SETTINGS) == "Length 60000"


@pytest.mark.parametrize(
    ("name", "reason", "kind"),
    [
        slow("status-404.mp4", "http_404", Refused),
        ("status-503.mp4", "http_503", Unavailable),
        ("loop.mp4", "redirect_loop", Refused),
        slow("page.html", "not_media", Refused),
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
        fetch(episode(f"{address}/endless.mp4"), tmp_path, limited(SETTINGS, max_megabytes=2))
    assert raised.value.reason == "too_large"


def test_a_host_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as raised:
        fetch(episode("http://127.0.0.1:1/a.mp4"), tmp_path, SETTINGS)
    assert raised.value.reason == "unreachable"


def test_a_folder_lists_every_file_by_series(tmp_path: Path) -> None:
    for name in ("one/e01.mp4", "one/e02.mp4", "two/e01.mp4", "two/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [(one.series, one.name) for one in list_episodes(str(tmp_path), SETTINGS)] == [
        ("one", "e01"),
        ("one", "e02"),
        ("two", "e01"),
    ]


def test_an_empty_local_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (listed,) = list_episodes(str(tmp_path / "a.mp4"), SETTINGS)
    with pytest.raises(Refused, match="empty_file"):
        fetch(listed, tmp_path, SETTINGS)


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


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("../a\x00b\ud800\n c\x1b[31m", "../a b c [31m"),
        ("a\u202egnp.exe\u2069", "agnp.exe"),
        ("zero\u200bwidth\ufeff\u00ad", "zerowidth"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("<b>&amp;{{ x }}</b>", "<b>&amp;{{ x }}</b>"),
        ("a\u2028b\u2029c\u0085d", "a b c d"),
        (None, ""),
    ],
)
def test_a_title_becomes_plain_text(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


def test_a_title_of_a_megabyte_becomes_a_line() -> None:
    assert clean_text("x" * 10**6) == "x" * 200


def test_a_file_name_that_is_no_text_can_be_listed_and_fetched(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"sound")
    (found,) = list_episodes(str(folder), SETTINGS)
    assert found.locator.isascii()
    assert found.name == "caf"
    assert fetch(found, tmp_path, SETTINGS).path.read_bytes() == b"sound"


@pytest.mark.parametrize(
    ("locator", "reason"),
    [
        ("file://host/etc/passwd", "unsupported_scheme"),
        ("data:video/mp4;base64,AAAA", "unsupported_scheme"),
        ("rtmp://example.org/a", "unsupported_scheme"),
        ("ytsearch:cats", "unsupported_scheme"),
        ("http://user:hunter2@example.org/a.mp4", "credentials_in_address"),
        ("-rf", "no_such_file"),
        ("%(title)s", "no_such_file"),
        ("a\0b", "no_such_file"),
        ("a\nb", "no_such_file"),
        ("x" * 5000, "no_such_file"),
        ("~nobody-of-this-name/a", "no_such_file"),
    ],
)
def test_what_is_no_source_is_refused(locator: str, reason: str) -> None:
    with pytest.raises(Refused) as raised:
        list_episodes(locator, SETTINGS)
    assert raised.value.reason == reason
    assert "hunter2" not in str(raised.value)


def test_a_colon_in_the_name_of_a_file_makes_no_address_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talk: one.mp4").write_bytes(b"sound")
    assert [one.name for one in list_episodes("talk: one.mp4", SETTINGS)] == ["talk: one"]


# A stranger's pages -----------------------------------------------------------------------------------

STRICT = DownloadSettings(
    limits=DownloadLimits(connection_retries=0, socket_timeout=30, timeout=60, max_megabytes=40, max_episodes=200)
)


@dataclass
class Strangers:
    """A server that passes for one of the internet, one that does not, and what was asked of the latter."""

    public: str
    private: str
    asked: list[str]

    def attempt(self, name: str, folder: Path, settings: DownloadSettings = STRICT) -> Refused:
        with pytest.raises(Refused) as raised:
            fetch(list_episodes(f"{self.public}/{name}", settings)[0], folder, settings)
        return raised.value


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strangers]:
    folder = tmp_path_factory.mktemp("strangers")
    media = sorted(SAMPLES.glob("*/*.mp4"))[0]
    files = {"good.mp4": media, "get.php": media, "a%20;rm%20-rf%20$HOME%20%25(title)s.mp4": media}
    with (
        serve({"secret.mp4": media}) as (private, asked),
        serve(files) as (public, _),
        pytest.MonkeyPatch.context() as patch,
    ):
        documents = hostile_documents(public, private)
        documents |= {
            "hls.m3u8": HLS.format("", f"{public}/good.mp4"),
            "folge.xml": feed(f"{public}/good.mp4?token=S3CRET"),
        }
        for name, text in documents.items():
            (folder / name).write_text(text)
            files[name] = folder / name
        for variable, value in passing_for_public(public).items():
            patch.setenv(variable, value)
        gzip_bomb()
        yield Strangers(public, private, asked)


@pytest.mark.parametrize(
    "name",
    [
        "intranet.xml",
        "hls-key.m3u8",
        "redirect.mp4?to={private}/secret.mp4",
        slow("metadata.xml"),
        slow("hls-segments.m3u8"),
        slow("hls-variant.m3u8"),
        slow("dash-segments.mpd"),
        slow("redirect.mp4?to=http://169.254.169.254/latest/meta-data/"),
        slow("redirect.xml?to={private}/feed.xml"),
    ],
)
def test_no_page_leads_to_a_private_address(name: str, strangers: Strangers, tmp_path: Path) -> None:
    refused = strangers.attempt(name.format(private=strangers.private), tmp_path)
    assert refused.reason == "private_address"
    assert isinstance(refused, Unavailable)  # the next run tries again: a setting may have changed
    assert "download.private_addresses" in refused.detail
    assert strangers.asked == []
    assert not (tmp_path / "media").exists()


# test_fetcher.py tries more ways, at the socket.
@pytest.mark.parametrize("host", [slow("0x7f.1"), "[::ffff:127.0.0.1]"])
def test_no_way_to_write_it_makes_this_machine_public(host: str, strangers: Strangers) -> None:
    with pytest.raises(Unavailable) as raised:
        list_episodes(strangers.private.replace("127.0.0.1", host) + "/secret.mp4", STRICT)
    assert raised.value.reason == "private_address"
    assert strangers.asked == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("redirect.mp4?to=file:///etc/passwd", "unsupported_scheme"),
        ("hls-hole.m3u8", "http_404"),
        ("many.xml", "too_many_episodes"),
        ("gzip-bomb.html", "page_too_large"),
        ("get.php", "unsafe_extension"),
        slow("hls-file.m3u8", "unsupported_scheme"),
        slow("redirect.mp4?to=ftp://127.0.0.1/a", "unsupported_scheme"),
        slow("newline.xml", "bad_address"),
        slow("long.xml", "bad_address"),
        slow("hls-drm.m3u8", "unsupported_protocol"),
        slow("rtmp.smil", "unsupported_scheme"),
        slow("itself.xml", "is_a_playlist"),
        slow("redirect.xml?to=/many.xml", "too_many_episodes"),
        slow("chain-1.mp4", "redirect_loop"),
        slow("laughs.xml", "not_media"),
        slow("quadratic.xml", "page_too_large"),
        slow("endless.html", "page_too_large"),
    ],
)
def test_what_a_page_may_try(name: str, reason: str, strangers: Strangers, tmp_path: Path) -> None:
    refused = strangers.attempt(name, tmp_path)
    assert refused.reason == reason
    assert "hunter2" not in str(refused)
    assert "root:" not in str(refused)
    assert not (tmp_path / "media").exists()


@pytest.mark.parametrize(
    "name",
    ["slow.mp4", *(pytest.param(name, marks=pytest.mark.slow) for name in ("stammering.mp4", "dash-endless.mpd"))],
)
def test_time_ends_whatever_trickles_in(name: str, strangers: Strangers, tmp_path: Path) -> None:
    refused = strangers.attempt(name, tmp_path, limited(STRICT, timeout=3))
    # A fast machine reads the endless list to the limit of its memory before the time is over.
    others = {"page_too_large", "fetcher_died"} if name == "dash-endless.mpd" else set()
    assert refused.reason in {"download_timeout", *others}


@pytest.mark.parametrize("name", ["hls.m3u8", "a%20;rm%20-rf%20$HOME%20%25(title)s.mp4", "redirect.mp4?to=/good.mp4"])
def test_what_is_only_unusual_is_fetched(name: str, media: Path, strangers: Strangers, tmp_path: Path) -> None:
    (found,) = list_episodes(f"{strangers.public}/{name}", STRICT)
    fetched = fetch(found, tmp_path, STRICT)
    assert fetched.path == tmp_path / "media"
    assert fetched.path.read_bytes() == media.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["media"]


def test_a_feed_may_list_anything(strangers: Strangers, tmp_path: Path) -> None:
    listed = list_episodes(f"{strangers.public}/entries.xml", STRICT)
    reasons = {}
    for one in listed:
        with pytest.raises(Refused) as raised:
            fetch(one, tmp_path, STRICT)
        reasons[one.locator] = raised.value.reason
        assert "hunter2" not in one.locator + str(raised.value)
    assert reasons == {redact(address): reason for address, reason in ENTRIES.items()}


def test_a_listed_file_does_not_pass_for_the_file(strangers: Strangers) -> None:
    listed = list_episodes(f"{strangers.public}/entries.xml", STRICT)[0]
    (local,) = list_episodes("/etc/passwd", STRICT)
    assert listed.locator == local.locator
    assert (listed.is_local, local.is_local) == (False, True)
    assert listed.source_id != local.source_id


# Secrets ----------------------------------------------------------------------------------------------


def test_a_token_is_used_and_shown_nowhere(
    media: Path,
    strangers: Strangers,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG, "fsclap.corpus.download")  # which Prefect may have set to INFO
    with serve({"a.mp4": media}) as (address, _):
        (found,) = list_episodes(f"{address}/a.mp4?v=1&token=S3CRET", SETTINGS)
        assert fetch(found, tmp_path, SETTINGS).path.read_bytes() == media.read_bytes()
        with pytest.raises(Refused) as raised:
            list_episodes(f"{address}/gone.mp4?X-Amz-Signature=S3CRET", SETTINGS)
        (again,) = list_episodes(f"{address}/a.mp4?v=1&token=0THER", SETTINGS)
    assert found.locator == f"{address}/a.mp4?v=1&token=REDACTED"
    assert found.address.endswith("token=S3CRET")
    assert found.source_id == again.source_id
    assert "REDACTED" in caplog.text, "nothing was logged, so this test shows nothing"
    said = "".join([caplog.text, *capfd.readouterr(), repr(found), str(raised.value)])
    assert "S3CRET" not in said
    assert "S3CRET" not in "".join(map(str, [found.title, found.name, found.series]))


def test_cookies_open_the_door_and_stay_as_they_are(
    media: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "fsclap.corpus.download")  # which Prefect may have set to INFO
    (tmp_path / "in").mkdir()
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t4102444800\tsession\tS3CRET\n")
    before = cookies.read_bytes()
    with serve({"private.mp4": media}) as (address, _):
        with pytest.raises(Refused, match="http_403"):
            list_episodes(f"{address}/members/private.mp4", SETTINGS)
        members = SETTINGS.model_copy(update={"cookies": cookies})
        (found,) = list_episodes(f"{address}/members/private.mp4", members)
        assert fetch(found, tmp_path / "in", members).path.read_bytes() == media.read_bytes()
    assert cookies.read_bytes() == before
    assert "S3CRET" not in caplog.text


@pytest.mark.parametrize(("text", "why"), [(None, "No such file"), ("session=S3CRET", "not in the format of Netscape")])
def test_cookies_that_cannot_be_read_are_named_and_not_shown(text: str | None, why: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "cookies.txt").write_text(text)
    with pytest.raises(Unavailable, match="cookies_unreadable") as raised:
        list_episodes("http://example.org/a.mp4", SETTINGS.model_copy(update={"cookies": tmp_path / "cookies.txt"}))
    assert why in raised.value.detail
    assert "S3CRET" not in raised.value.detail
