"""A site on localhost with a feed of short episodes, whose connections can break."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from harness.samples import cut, sample_episodes

LENGTH = 25.0
"""Length of an episode in seconds."""


class Site:
    """A series on localhost.

    Attributes:
        feed: Its address. All stands of a session share it, because an episode is identified by its
            address.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.flaws: list[tuple[str, str, Path]] = []
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.feed = ""

    def next_flaw(self) -> str | None:
        """Take the next planned flaw, and mark it as reached; None if there is none."""
        with self.lock:
            if not self.flaws:
                return None
            name, flaw, folder = self.flaws.pop(0)
        (folder / f"{name}.reached").touch()
        return flaw


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Serve eight episodes, a file that is no video, and a copy of one episode."""
    made = Site(episodes(folder))
    handler = type("Handler", (_Handler,), {"site": made})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    made.feed = f"http://127.0.0.1:{server.server_port}/feed.xml"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def episodes(folder: Path) -> dict[str, bytes]:
    """Return the files of the site by name."""
    files = {}
    for number, episode in enumerate(sample_episodes()):
        name = f"e{number:02d}.mp4"
        media = cut(episode, folder / name, start=0, seconds=LENGTH, picture=False)
        files[name] = media.read_bytes()
    return {**files, "e90.mp4": b"This is no video.\n" * 100, "e91.mp4": files["e01.mp4"]}


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        if name == "feed.xml":
            self._send(self._feed(), "application/rss+xml")
        elif name not in self.site.files:
            self.send_error(404)
        else:
            flaw = self.site.next_flaw() if self.command == "GET" else None
            self._send(self.site.files[name], "video/mp4", flaw)

    def _send(self, body: bytes, kind: str, flaw: str | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            if flaw:
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                if flaw == "stall-download":
                    self.site.over.wait(30)
                self.close_connection = True
            else:
                self.wfile.write(body)
        except OSError:
            pass

    def _feed(self) -> bytes:
        base = f"http://{self.headers['Host']}"
        items = "".join(
            f'<item><title>{name}</title><enclosure url="{base}/{name}" type="video/mp4"/></item>'
            for name in sorted(self.site.files)
        )
        return (
            f'<?xml version="1.0"?><rss version="2.0"><channel><title>Faults</title>{items}</channel></rss>'
        ).encode()
