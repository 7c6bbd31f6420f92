"""A web server on localhost that misbehaves in every way a test asks for."""

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

KINDS = {
    ".html": "text/html",
    ".m3u8": "application/x-mpegurl",
    ".mpd": "application/dash+xml",
    ".smil": "application/smil+xml",
    ".xml": "application/rss+xml",
}
"""Suffix -> what the server calls it; anything else is a video."""
PAUSE = 0.3
"""Seconds between two bytes of a server that sends one at a time."""


@cache
def gzip_bomb() -> bytes:
    """6 MB that grow to 1.3 GB."""
    packer = zlib.compressobj(1, wbits=zlib.MAX_WBITS | 16)
    return b"".join([packer.compress(b"<html>"), *(packer.compress(bytes(10**7)) for _ in range(130)), packer.flush()])


class Pages(BaseHTTPRequestHandler):
    """GET /<name>: the file of that name in `files`, or the behaviour that the name stands for."""

    files: ClassVar[dict[str, Path]] = {}
    hits: ClassVar[list[str]] = []
    over: ClassVar[threading.Event]

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        name = self.path.lstrip("/").split("?")[0]
        self.hits.append(name)
        if name.startswith("members/"):
            self._members_only(name.removeprefix("members/"))
        elif name in self.files:
            kind = KINDS.get(Path(name).suffix, "video/mp4")
            self._send(200, self.files[name].read_bytes(), kind)
        elif name.startswith("redirect"):
            self._redirect(parse_qs(urlsplit(self.path).query)["to"][0])
        elif name.startswith("chain-"):
            number = int(name.removeprefix("chain-").split(".")[0])
            self._redirect(f"/chain-{number + 1}.mp4")
        elif name.startswith("slow"):
            self._slowly(b"Content-Type: video/mp4\r\n\r\n", bytes(10**6))
        elif name.startswith("stammering"):
            self._slowly(b"", b"X-Endless: 1\r\n" * 10**6)
        elif name.startswith("gzip-bomb"):
            self._send(200, gzip_bomb(), "text/html", encoding="gzip")
        elif name.startswith("status-"):
            self.send_error(int(name.removeprefix("status-").split(".")[0]))
        elif name.startswith("loop"):
            self._redirect(f"/{name}")
        elif name.startswith("page"):
            self._send(200, b"<html><body>No video here</body></html>", "text/html")
        elif name.startswith("empty"):
            self._send(200, b"", "video/mp4")
        elif name.startswith("endless"):
            self._endless("text/html" if name.endswith("html") else "video/mp4")
        elif name.startswith("short-of"):
            self._cut_off()
        elif name.endswith(".xml"):
            self._send(200, self._feed(), "application/rss+xml")
        else:
            self.send_error(404)

    def _send(self, status: int, body: bytes, kind: str, *, encoding: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if encoding:
            self.send_header("Content-Encoding", encoding)
        self.end_headers()
        if self.command == "GET":
            self._write(body)

    def _members_only(self, name: str) -> None:
        if self.headers.get("Cookie"):
            self._send(200, self.files[name].read_bytes(), "video/mp4")
        else:
            self.send_error(403)

    def _redirect(self, address: str) -> None:
        self.send_response(302)
        self.send_header("Location", address)
        self.end_headers()

    def _slowly(self, head: bytes, body: bytes) -> None:
        self._write(b"HTTP/1.1 200 OK\r\n" + head)
        for byte in body if self.command == "GET" or not head else b"":
            if self.over.wait(PAUSE) or not self._write(bytes([byte])):
                return

    def _write(self, body: bytes) -> bool:
        try:
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _endless(self, kind: str) -> None:
        """A stream of unknown length, as an internet radio sends it."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        block = b"<html>".ljust(1 << 20)
        while self.command == "GET" and self._write(block):
            pass

    def _cut_off(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(bytes(1000))

    def _feed(self) -> bytes:
        base = f"http://{self.headers['Host']}"
        items = "".join(
            f'<item><title>{name}</title><enclosure url="{base}/{name}" type="video/mp4"/></item>'
            for name in sorted(self.files)
        )
        channel = f"<channel><title>Test series</title>{items}</channel>"
        return f'<?xml version="1.0"?><rss version="2.0">{channel}</rss>'.encode()


@contextmanager
def serve(files: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """Yields the server's address and a list of the requested names, which grows."""
    handler = type("Handler", (Pages,), {"files": files, "hits": [], "over": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.hits
    finally:
        handler.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def passing_for_public(address: str) -> dict[str, str]:
    """Environment in which one server of this machine passes for one of the internet.

    Builds may always connect to the operator's proxy; with `no_proxy=*` nothing is asked of it as a
    proxy.
    """
    return {"http_proxy": address, "no_proxy": "*"}


RSS = '<?xml version="1.0"?><rss version="2.0"><channel><title>Feed</title>{}</channel></rss>'
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:5\n{}#EXTINF:5,\n{}\n#EXT-X-ENDLIST\n"
MPD = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT9S">'
    '<Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1000">{}</Representation>'
    "</AdaptationSet></Period></MPD>"
)
ENTRIES = {
    "file:///etc/passwd": "unsupported_scheme",
    "data:video/mp4;base64,AAAA": "unsupported_scheme",
    "--exec=id": "unsupported_scheme",
    "gopher://127.0.0.1:70/1": "unsupported_scheme",
    "concat:/etc/passwd": "unsupported_scheme",
    "http://user:hunter2@127.0.0.1/listed.mp4": "credentials_in_address",
    "http://[::1": "bad_address",
}
"""What a feed may list -> why it is refused."""
TITLE = "\u202egnp.exe\u200b <script>alert(1)</script> ../../etc/passwd \u0085 {{ 7*7 }} %(title)s " + "x" * 10**6


def hostile_documents(public: str, private: str) -> dict[str, str]:
    """Feeds and manifests of a server at `public` that are after what lies at `private`."""
    laughs = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    good, secret = f"{public}/good.mp4", f"{private}/secret.mp4"
    return {
        "hls-segments.m3u8": HLS.format("", secret),
        "hls-file.m3u8": HLS.format("", "file:///etc/passwd"),
        "hls-key.m3u8": HLS.format(f'#EXT-X-KEY:METHOD=AES-128,URI="{private}/key"\n', good),
        "hls-drm.m3u8": HLS.format(f'#EXT-X-KEY:METHOD=SAMPLE-AES,URI="{public}/key"\n', good),
        "hls-variant.m3u8": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\n{private}/x.m3u8\n",
        "hls-hole.m3u8": HLS.format("", f"{good}\n#EXTINF:5,\n{public}/status-404.mp4"),
        "dash-segments.mpd": MPD.format(
            f'<SegmentTemplate media="{private}/$Number$.mp4" timescale="1" duration="5" startNumber="1"/>'
        ),
        "dash-endless.mpd": MPD.format(
            '<SegmentTemplate media="$Number$.mp4" timescale="1"><SegmentTimeline><S t="0" d="1" r="1000000000"/>'
            "</SegmentTimeline></SegmentTemplate>"
        ),
        "rtmp.smil": '<smil><body><video src="rtmp://127.0.0.1/app/a"/></body></smil>',
        "laughs.xml": f'<?xml version="1.0"?><!DOCTYPE r [<!ENTITY a0 "ha">{laughs}]>{RSS[21:].format("&a11;")}',
        "quadratic.xml": f'<!DOCTYPE r [<!ENTITY a "{"h" * 8 * 10**6}">]>{RSS[21:].format("&a;" * 2000)}',
        "many.xml": feed(*(f"{public}/{number}.mp4" for number in range(300))),
        "itself.xml": feed(f"{public}/itself.xml"),
        "entries.xml": feed(*ENTRIES),
        "newline.xml": feed(f"{public}/a&#10;b.mp4"),
        "long.xml": feed(f"{public}/{'y' * 9000}.mp4"),
        "intranet.xml": feed(secret),
        "metadata.xml": feed("http://169.254.169.254/latest/meta-data/"),
    }


def feed(*addresses: str, title: str = "An episode") -> str:
    title = title.replace("&", "&amp;").replace("<", "&lt;")
    items = (f'<item><title>{title}</title><enclosure url="{address}"/></item>' for address in addresses)
    return RSS.format("".join(items))
