"""A web server on localhost that misbehaves in every way a test asks for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar


class Pages(BaseHTTPRequestHandler):
    """GET /<name>: the file of that name in `files`, or the behaviour that the name stands for."""

    files: ClassVar[dict[str, Path]] = {}
    hits: ClassVar[list[str]] = []

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        name = self.path.lstrip("/").split("?")[0]
        self.hits.append(name)
        if name in self.files:
            self._send(200, self.files[name].read_bytes(), "video/mp4")
        elif name.startswith("status-"):
            self.send_error(int(name.removeprefix("status-").split(".")[0]))
        elif name.startswith("loop"):
            self.send_response(302)
            self.send_header("Location", f"/{name}")
            self.end_headers()
        elif name.startswith("page"):
            self._send(200, b"<html><body>No video here</body></html>", "text/html")
        elif name.startswith("empty"):
            self._send(200, b"", "video/mp4")
        elif name.startswith("endless"):
            self._endless()
        elif name.startswith("short-of"):
            self._cut_off()
        elif name.endswith(".xml"):
            self._send(200, self._feed(), "application/rss+xml")
        else:
            self.send_error(404)

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _endless(self) -> None:
        """A stream of unknown length, as an internet radio sends it."""
        self.send_response(200)
        self.send_header("Content-Type", "video/mp4")
        self.end_headers()
        block = bytes(65536)
        try:
            while self.command == "GET":
                self.wfile.write(block)
        except (BrokenPipeError, ConnectionResetError):
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
    """Yields the server's address and the list of the names asked for, which grows as requests come."""
    handler = type("Handler", (Pages,), {"files": files, "hits": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.hits
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
