"""The process in which yt-dlp runs, the only one that reads strangers' pages and feeds.

`fsclap.corpus.download` starts it as `python -I -m fsclap.corpus.fetcher`, bounds its memory, files
and time, and sends one request as a line of JSON; the answers are lines of JSON too. Every
connection that any library opens in this process passes `_Guard`, at the moment of connecting and
with the address that is connected to: a redirect, a segment of a manifest, or a name that resolves
to something else the second time is seen there like any other.
"""

import io
import itertools
import json
import os
import re
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import yt_dlp
from yt_dlp.cookies import YoutubeDLCookieJar
from yt_dlp.globals import plugin_dirs
from yt_dlp.networking.common import Request
from yt_dlp.networking.exceptions import CertificateVerifyError, HTTPError, TransportError
from yt_dlp.utils import ContentTooShortError, GeoRestrictedError, UnsupportedError, unsmuggle_url

from fsclap.corpus.addresses import is_public, require_fetchable
from fsclap.refusal import Refused, Unavailable

RETRYABLE_STATUS = {408, 425, 429, 500, 502, 503, 504}
HOPS = 10
"""Pages that may send on to another page, one after the other."""
PROTOCOLS = {
    "http", "https", "m3u8", "m3u8_native", "http_dash_segments", "http_dash_segments_generator", "ism", "bunnycdn",
    "soopvod",
}  # fmt: skip
"""What yt-dlp fetches by itself, over http. It would leave any other to ffmpeg or rtmpdump, which
heed no guard."""
RUNNABLE = {"deno"}
"""yt-dlp runs YouTube's player script in it, without rights to files or network."""
STARTS_A_PROCESS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.spawn"}
LONGEST_TEXT = 10_000
PAGE_FIELDS = ("title", "series", "channel")
ENTRY_FIELDS = (
    "id", "url", "webpage_url", "ie_key", "extractor_key", "title", "series", "channel", "guid",
)  # fmt: skip

Info = dict[str, Any]


class _Guard:
    """An audit hook: connects to public addresses and proxies only, runs no other program.

    A proxy resolves names itself, so behind one it is the proxy that has to keep private addresses
    out.

    Attributes:
        refused: The private addresses that something tried to connect to.
    """

    def __init__(self, *, private_addresses: bool) -> None:
        self.refused: list[str] = []
        self._private_addresses = private_addresses
        proxies = (proxy for scheme, proxy in getproxies().items() if scheme != "no")
        self._proxies = {address for proxy in proxies for address in _resolved(proxy)}

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto"):
            self._check(args[1])
        elif event in STARTS_A_PROCESS and not (
            event == "subprocess.Popen" and Path(os.fsdecode(args[0])).name in RUNNABLE
        ):
            raise PermissionError(f"{event}: no other program is run while fetching")

    def _check(self, address: Any) -> None:
        if self._private_addresses or address[:2] in self._proxies:
            return
        host = address[0] if isinstance(address, tuple) else repr(address)  # a name of a local socket
        if not isinstance(address, tuple) or not is_public(host):
            self.refused.append(host)
            # An OSError: where a name has several addresses, the next one is tried.
            raise PermissionError(f"{host} is not a public address")


def _resolved(proxy: str) -> Iterator[tuple[str, int]]:
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = parts.port or (1080 if parts.scheme.startswith("socks") else 80)
    with suppress(OSError):  # yt-dlp will say so
        for *_, address in socket.getaddrinfo(parts.hostname, port):
            yield str(address[0]), int(address[1])


class _Downloader(yt_dlp.YoutubeDL):
    """yt-dlp limited to http and https, and to HOPS pages that point to another."""

    hops = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: dict[str, dict[str, str]] = {}
        """Address -> what its server said of the version of the file there."""

    def urlopen(self, req: Request | str) -> Any:
        asked = req if isinstance(req, str) else req.url
        require_fetchable(asked)
        response = super().urlopen(req)
        for address in (asked, response.url):
            self.seen.setdefault(address, _version(response.headers))
        return response

    def extract_info(self, *args: Any, **kwargs: Any) -> Info | None:
        self.hops += 1
        if self.hops > HOPS:
            raise Refused("redirect_loop", f"{HOPS} pages sent on to another page; name the last one as a source")
        try:
            return super().extract_info(*args, **kwargs)
        finally:
            self.hops -= 1


def _version(headers: Any) -> dict[str, str]:
    """Read what a response says of the version of its file."""
    version = {name: str(headers[name])[:200] for name in ("ETag", "Last-Modified") if headers.get(name)}
    whole = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range") or "")
    length = whole[1] if whole else headers.get("Content-Length")
    return version | ({"Length": str(length)[:20]} if length else {})


class _Log:
    """Pass yt-dlp's messages on, all as debug: errors come as exceptions as well."""

    def __init__(self, say: Callable[..., None]) -> None:
        self._say = say

    def debug(self, message: str) -> None:
        self._say(log=str(message)[:LONGEST_TEXT])

    info = warning = error = debug


def main() -> None:
    """Answer the one request on standard input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else writes to standard output

    def say(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    plugin_dirs.value = []  # what lies about on a worker is no part of this program
    guard = _Guard(private_addresses=request["private_addresses"])
    sys.addaudithook(guard)
    try:
        with _Downloader(_options(request, say)) as downloader:
            for answer in {"list": _list, "fetch": _fetch, "look": _look}[request["action"]](downloader, request):
                say(**answer)
    except Exception as error:  # whatever a page makes an extractor do
        refused = _explain(request["shown"], error, guard.refused)
        say(refused=[refused.reason, refused.detail, isinstance(refused, Unavailable)])


def _end_with_parent() -> None:
    """Exit when the parent does, which holds standard input open as long as it lives."""
    while os.read(0, 1):
        pass
    os._exit(1)


def _options(request: Info, say: Callable[..., None]) -> Info:
    options: Info = {
        "quiet": True,
        "noprogress": True,
        "color": "never",
        "logger": _Log(say),
        "extract_flat": "in_playlist",
        "cachedir": False,
        "cookiefile": _cookies(request),
        "socket_timeout": request["socket_timeout"],
        "retries": request["connection_retries"],
        "fragment_retries": request["connection_retries"],
        "extractor_retries": request["connection_retries"],
        "skip_unavailable_fragments": False,  # a recording with holes is none
        # No ffmpeg: it would fetch by itself, and the audio track is decoded as it comes.
        "ffmpeg_location": "/no/ffmpeg/for/yt-dlp",
        "hls_prefer_native": True,
        "fixup": "never",
    }
    if request["action"] in ("look", "fetch"):
        options |= {"format": request["format"], "noplaylist": True}
    if request["action"] == "fetch":
        options |= {
            # Neither the title nor the address becomes part of a path: they may hold anything.
            "outtmpl": {"default": str(Path(request["folder"]).resolve() / "media").replace("%", "%%")},
            "max_filesize": request["max_bytes"],
            "progress_hooks": [_size_limit(request)],
        }
    return options


def _cookies(request: Info) -> io.StringIO | None:
    """Return the cookies as a stream: yt-dlp writes new cookies back to what it is given."""
    if request["cookies"] is None:
        return None
    try:
        text = Path(request["cookies"]).read_text()
        YoutubeDLCookieJar(io.StringIO(text)).load()
    except (OSError, ValueError, AttributeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "not in the format of Netscape"
        raise Unavailable(
            "cookies_unreadable", f"download.cookies={request['cookies']}: {why}; check the file on this worker"
        ) from None
    return io.StringIO(text)


def _size_limit(request: Info) -> Callable[[Info], None]:
    """Make a progress hook that ends a download too large, whatever was announced."""

    def check(progress: Info) -> None:
        if (progress.get("downloaded_bytes") or 0) > request["max_bytes"]:
            raise _too_large(request)

    return check


def _too_large(request: Info) -> Refused:
    return Refused(
        "too_large", f"{request['shown']}: larger than download.limits.max_megabytes={request['max_bytes'] / 1e6:g}"
    )


# Listing ----------------------------------------------------------------------------------------------


def _list(downloader: _Downloader, request: Info) -> Iterator[Info]:
    url, info = _open(downloader, request["url"])
    yield {"page": _plain(info, PAGE_FIELDS), "url": url}
    if info.get("_type") in ("playlist", "multi_video"):
        for entry in _flatten(info):
            # In a feed, the guid of an episode comes with its address.
            guid = str(unsmuggle_url(str(entry.get("url") or ""), {})[1].get("force_videoid") or "")
            yield {"entry": _plain({**entry, "guid": guid}, ENTRY_FIELDS)}
    else:
        yield {"entry": _plain(info, ENTRY_FIELDS), "alone": True}


def _open(downloader: _Downloader, url: str) -> tuple[str, Info]:
    """Open the page behind an address, following pages that point to another."""
    ie_key = None
    for _ in range(HOPS):
        info = downloader.extract_info(url, download=False, process=False, ie_key=ie_key)
        if info is None:
            raise Refused("nothing_found", "yt-dlp found nothing to download there")
        if info.get("_type") not in ("url", "url_transparent"):
            return url, info
        url, ie_key = info["url"], info.get("ie_key")
    raise Refused("redirect_loop", f"{HOPS} pages sent on to another page; name the last one as a source")


def _flatten(playlist: Info) -> Iterator[Info]:
    """Yield the videos of a playlist and of the playlists in it (a channel with seasons)."""
    for entry in playlist["entries"]:
        if entry is None:
            continue
        if entry.get("_type") == "playlist":
            yield from _flatten(entry)
        else:
            yield entry


def _plain(info: Info, fields: tuple[str, ...]) -> Info:
    """Only texts, and of no more than a page: the length of a URL is judged by who asks for it."""
    values = ((name, info.get(name)) for name in fields)
    return {name: str(value)[:LONGEST_TEXT] for name, value in values if isinstance(value, str | int | float)}


# Fetching ---------------------------------------------------------------------------------------------


def _look(downloader: _Downloader, request: Info) -> Iterator[Info]:
    """Say which version of a file there is."""
    info = _video(downloader, request)
    chosen = (info.get("requested_formats") or [info])[0]
    address = str(chosen.get("url") or request["url"])
    if address not in downloader.seen:
        downloader.urlopen(Request(address, headers=chosen.get("http_headers") or {})).close()
    yield {"served": downloader.seen[address]}


def _video(downloader: _Downloader, request: Info) -> Info:
    """Read the page of one recording.

    Raises:
        Refused: There is none, or it can't be fetched.
    """
    info = downloader.extract_info(request["url"], download=False)
    shown = request["shown"]
    if info is None:
        raise Refused("nothing_found", f"{shown}: yt-dlp found nothing to download there")
    if info.get("_type") == "playlist":
        raise Refused("is_a_playlist", f"{shown}: a list of videos, not a video; name it as a source")
    if info.get("is_live") or info.get("live_status") in ("is_live", "is_upcoming"):
        raise Refused("live_stream", f"{shown}: a live stream has no end; name its recording instead")
    _require_fetchable(info, shown)
    return info


def _fetch(downloader: _Downloader, request: Info) -> Iterator[Info]:
    shown = request["shown"]
    info = downloader.process_ie_result(_video(downloader, request), download=True)
    files = [path for path in Path(request["folder"]).iterdir() if path.suffix not in (".part", ".ytdl")]
    if not files:
        raise _too_large(request)
    if len(files) > 1:
        raise Refused(
            "several_files",
            f"{shown}: download.format={request['format']} chose {len(files)} files, which are not merged; choose one",
        )
    chosen = (info.get("requested_formats") or [info])[0]
    seen = downloader.seen.get(str(chosen.get("url")), {})
    texts = {name: str(info.get(name) or "")[:LONGEST_TEXT] for name in ("title", "license")}
    yield {"media": files[0].name, "served": seen, **texts}


def _require_fetchable(info: Info, shown: str) -> None:
    for chosen in info.get("requested_formats") or [info]:
        protocol = str(chosen.get("protocol"))
        if protocol not in PROTOCOLS:
            raise Refused(
                "unsupported_protocol",
                f"{shown}: its media are offered over {protocol[:40]}; only http and https, HLS and DASH are fetched",
            )


# Failures ---------------------------------------------------------------------------------------------


def _explain(shown: str, error: BaseException, private: list[str]) -> Refused:
    """Turn any failure into what a person and the retry logic need to know."""
    causes = list(itertools.islice(_causes(error), 50))
    refused = next((cause for cause in causes if isinstance(cause, Refused)), None)
    if refused is not None:
        return refused if shown in refused.detail else type(refused)(refused.reason, f"{shown}: {refused.detail}")
    if private:
        return Unavailable(  # with another setting it is to be tried again
            "private_address",
            f"{shown}: leads to {private[0]}, which is no public address; download.private_addresses allows them, for "
            "an intranet",
        )
    found = next((known for cause in causes if (known := _known(shown, cause)) is not None), None)
    return found or _by_its_words(shown, causes[0])


def _status(shown: str, status: int, reason: str) -> Refused:
    if status in RETRYABLE_STATUS:
        return Unavailable(f"http_{status}", f"{shown}: HTTP {status} {reason}; try again later")
    return Refused(f"http_{status}", f"{shown}: HTTP {status} {reason}")


def _known(shown: str, cause: BaseException) -> Refused | None:
    match cause:
        case HTTPError(status=status) if cause.redirect_loop:
            return Refused("redirect_loop", f"{shown}: the server redirects in a circle (HTTP {status})")
        case HTTPError(status=status, reason=reason):
            return _status(shown, status, reason)
        case UnsupportedError():
            return Refused("not_media", f"{shown}: neither media nor a page in which yt-dlp finds a video")
        case GeoRestrictedError():
            return Refused("geo_restricted", f"{shown}: not offered in this country")
        case CertificateVerifyError() | ssl.SSLCertVerificationError():
            return Refused("bad_certificate", f"{shown}: {cause}")
        case ContentTooShortError():
            return Unavailable("connection_lost", f"{shown}: the connection ended before the file did")
        case TransportError():
            return Unavailable("unreachable", f"{shown}: {cause}")
        case MemoryError() | RecursionError():
            return Refused(
                "page_too_large",
                f"{shown}: reading the page took more memory than is allowed ({type(cause).__name__})",
            )
    return None


def _by_its_words(shown: str, error: BaseException) -> Refused:
    # yt-dlp's downloader says these in words alone.
    message = str(error).removeprefix("ERROR: ")
    if "Did not get any data blocks" in message or "file is empty" in message:
        return Refused("empty_file", f"{shown}: the server sent no bytes")
    if status := re.search(r"HTTP Error (\d{3}): ?(.*)", message):
        return _status(shown, int(status[1]), status[2])
    if "more expected" in message or "Got error" in message:
        return Unavailable("connection_lost", f"{shown}: the connection ended before the file did ({message})")
    if "No connection adapters" in message:
        return Refused("unsupported_scheme", f"{shown}: leads to an address that is neither http nor https ({message})")
    if "extracted extension" in message:
        return Refused("unsafe_extension", f"{shown}: the name of its media ends as that of a program or script")
    if "ffmpeg could not be found" in message:
        return Refused("unsupported_protocol", f"{shown}: a stream that yt-dlp cannot fetch or decrypt by itself")
    if isinstance(error, yt_dlp.utils.YoutubeDLError):
        return Refused("download_error", f"{shown}: {message}")
    return Refused("extractor_error", f"{shown}: yt-dlp failed on the page ({type(error).__name__}: {message})")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        yield from getattr(error, "unexpected_errors", ())
        wrapped = getattr(error, "exc_info", None)
        error = (wrapped[1] if wrapped and wrapped[1] is not error else None) or error.__cause__ or error.__context__


if __name__ == "__main__":
    main()
