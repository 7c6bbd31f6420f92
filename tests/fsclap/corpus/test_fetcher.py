"""The guard of the process in which yt-dlp runs. What it fetches and refuses is in test_download.py."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from fsclap import sandbox
from fsclap.corpus.download import FETCHER, DownloadLimits, DownloadSettings, list_episodes
from fsclap.corpus.fetcher import _require_fetchable, _status
from fsclap.refusal import Refused, Unavailable
from tests.flows.pages import serve

GUARDED = """
import json, os, socket, subprocess, sys
from fsclap.corpus.fetcher import _Downloader, _Guard
guard = _Guard(private_addresses=json.loads(sys.argv[1]))
sys.addaudithook(guard)
for code in json.loads(sys.argv[2]):
    guard.refused.clear()
    try:
        exec(code)
    except Exception as error:
        said = f"{type(error).__name__} {error}"
    else:
        said = "done"
    print(json.dumps([said, guard.refused]), flush=True)
"""
PROGRAMS = [
    'subprocess.run(["true"])',
    'subprocess.run("true", shell=True)',
    'os.system("true")',
    'os.posix_spawn("/bin/true", ["true"], {})',
    'os.execv("/bin/true", ["true"])',
    "os.fork()",
]
PRIVATE = {
    'socket.create_connection(("127.0.0.1", 9))': "127.0.0.1",
    'socket.create_connection(("localhost", 9))': "127.0.0.1",
    'socket.create_connection(("2130706433", 9))': "127.0.0.1",
    'socket.create_connection(("0177.0.0.1", 9))': "127.0.0.1",
    'socket.create_connection(("0x7f.1", 9))': "127.0.0.1",
    'socket.create_connection(("169.254.169.254", 80))': "169.254.169.254",
    'socket.socket(socket.AF_INET6).connect(("::1", 9))': "::1",
    'socket.socket(socket.AF_UNIX).connect("/run/docker.sock")': "'/run/docker.sock'",
    'socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("10.0.0.1", 53))': "10.0.0.1",
}

Outcome = tuple[str, list[str]]


def guarded(*codes: str, private: bool = False) -> list[Outcome]:
    """Run pieces of Python in one guarded process: for each, what came of it and which addresses were refused."""
    command = [sys.executable, "-I", "-c", GUARDED, json.dumps(private), json.dumps(codes)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [tuple(json.loads(line)) for line in lines]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    codes = [*PROGRAMS, *PRIVATE]
    return dict(zip(codes, guarded(*codes), strict=True))


@pytest.mark.parametrize("code", PROGRAMS)
def test_no_other_program_runs(code: str, outcomes: dict[str, Outcome]) -> None:
    assert "no other program" in outcomes[code][0]


@pytest.mark.parametrize("code", PRIVATE)
def test_no_private_address_is_connected_to(code: str, outcomes: dict[str, Outcome]) -> None:
    said, refused = outcomes[code]
    assert said == f"PermissionError {PRIVATE[code]} is not a public address"
    assert PRIVATE[code] in refused


def test_a_name_that_turns_private_when_it_is_connected_to_is_seen() -> None:
    """DNS rebinding: whatever a name resolved to before, the address that counts is the one connected to."""
    with serve({}) as (address, hits):
        port = int(address.rsplit(":", 1)[1])
        ((said, _),) = guarded(
            f"socket.getaddrinfo = lambda *a, **k: [(2, 1, 6, '', ('127.0.0.1', {port}))]; "
            f"_Downloader({{'quiet': True}}).urlopen('http://public.example:{port}/page.html')"
        )
    assert "127.0.0.1 is not a public address" in said
    assert hits == []


def test_an_intranet_can_be_allowed() -> None:
    with serve({}) as (address, hits):
        ((said, _),) = guarded(f'_Downloader({{"quiet": True}}).urlopen("{address}/page.html")', private=True)
    assert said == "done"
    assert hits == ["page.html"]


def test_the_proxy_of_the_worker_is_connected_to_whatever_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve({}) as (address, hits):
        monkeypatch.setenv("http_proxy", address)
        ((_, refused),) = guarded('_Downloader({"quiet": True}).urlopen("http://public.example/page.html")')
    assert (refused, hits) == ([], ["http://public.example/page.html"])


def test_plugins_that_lie_about_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = tmp_path / "yt-dlp" / "plugins" / "any" / "yt_dlp_plugins" / "extractor" / "spy.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(f"open({str(tmp_path / 'loaded')!r}, 'w')")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(sandbox, "PASSED", (*sandbox.PASSED, "XDG_CONFIG_HOME"))
    with serve({}) as (address, _), pytest.raises(Refused, match="not_media"):
        list_episodes(
            f"{address}/page.html",
            DownloadSettings(private_addresses=True, limits=DownloadLimits(connection_retries=0)),
        )
    assert not (tmp_path / "loaded").exists()
    subprocess.run([sys.executable, "-c", "import yt_dlp; yt_dlp.YoutubeDL({'quiet': True})"], check=True)
    assert (tmp_path / "loaded").exists(), "the plugin is none, so this test shows nothing"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, Refused), (404, Refused), (410, Refused), (429, Unavailable), (500, Unavailable), (503, Unavailable)],
)
def test_a_status_says_whether_another_try_may_help(status: int, kind: type) -> None:
    refused = _status("http://example.org/a", status, "Reason")
    assert (refused.reason, type(refused)) == (f"http_{status}", kind)


@pytest.mark.parametrize("protocol", ["rtmp", "rtmp_ffmpeg", "mms", "ftp", "websocket_frag", "mhtml", "f4m", None])
def test_protocols_that_yt_dlp_leaves_to_other_programs_are_refused(protocol: str | None) -> None:
    offered = {"protocol": "https", "requested_formats": [{"protocol": "https"}, {"protocol": protocol}]}
    with pytest.raises(Refused, match="unsupported_protocol"):
        _require_fetchable(offered, "http://example.org/a")
    _require_fetchable({"protocol": "m3u8_native"}, "http://example.org/a")


def test_it_ends_with_its_parent() -> None:
    with serve({}) as (address, _):
        code = (
            "import subprocess, sys\n"
            f"child = subprocess.Popen({FETCHER!r}, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)\n"
            f"child.stdin.write({json.dumps(_request(f'{address}/stammering.mp4'))!r}.encode() + b'\\n')\n"
            "child.stdin.flush(); print(child.pid, flush=True); child.wait()"
        )
        parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        parent.communicate()
        ended = _wait(child)
    assert ended


def _wait(child: int, seconds: int = 30) -> bool:
    try:
        return bool(select.select([child], [], [], seconds)[0])
    finally:
        os.close(child)


def _request(url: str) -> dict[str, object]:
    return {
        "action": "list",
        "url": url,
        "shown": url,
        "private_addresses": True,
        "cookies": None,
        "socket_timeout": 60,
        "connection_retries": 0,
    }
