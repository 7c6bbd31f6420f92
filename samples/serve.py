"""Serve the sample series over HTTP, with one feed per series: `python -m samples.serve`.

/                     the series, as HTML
/<series>/feed.xml    RSS made at each request: a new mp4 in the folder is a new episode
/<series>/<name>.mp4  the episode
"""

import argparse
import html
import io
import logging
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

import imageio_ffmpeg

log = logging.getLogger(__name__)


@contextmanager
def serve(root: Path, port: int = 0) -> Iterator[str]:
    """Serve `root` on 127.0.0.1 while the context lasts.

    Args:
        root: Folder whose subfolders hold mp4 files.
        port: 0 for any free one.

    Yields:
        The address, "http://127.0.0.1:PORT".
    """
    with serving(make_server(root, port)) as address:
        yield address


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[str]:
    """Run a server of this machine in a thread while the context lasts; yields its address."""
    with server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def make_server(root: Path, port: int) -> ThreadingHTTPServer:
    """Make the server, bound to 127.0.0.1 and not yet serving.

    Raises:
        NotADirectoryError: `root` is no folder.
    """
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder: name one that holds a folder of mp4 files a series")
    return ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, directory=str(root)))


class _Handler(SimpleHTTPRequestHandler):
    """Serves the index, the feeds and the episodes; anything else in the folder is a 404."""

    def send_head(self) -> IO[bytes] | None:  # type: ignore[override]
        path = unquote(urlsplit(self.path).path)
        root = Path(self.directory)
        if path in ("/", "/index.html"):
            return self._send(_index(root), "text/html; charset=utf-8")
        match = re.fullmatch(r"/([^/]+)/(feed\.xml|[^/]+\.mp4)", path)
        if match is None or match[1] not in _series(root):
            self.send_error(HTTPStatus.NOT_FOUND, f"no such page: {path}")
            return None
        if match[2] == "feed.xml":
            host = self.headers.get("Host") or f"127.0.0.1:{self.connection.getsockname()[1]}"
            return self._send(_feed(root / match[1], f"http://{host}"), "application/rss+xml; charset=utf-8")
        return super().send_head()

    def _send(self, body: bytes, kind: str) -> IO[bytes]:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        return io.BytesIO(body)

    def copyfile(self, source: IO[bytes], outputfile: IO[bytes]) -> None:  # type: ignore[override]
        try:
            super().copyfile(source, outputfile)
        except ConnectionError:
            # yt-dlp reads the first bytes of a file to see what it is, and hangs up
            log.debug("%s hung up on %s", self.address_string(), self.path)

    def log_message(self, format: str, *args: object) -> None:
        log.info("%s %s", self.address_string(), format % args)


def _series(root: Path) -> list[str]:
    return sorted({path.parent.name for path in root.glob("*/*.mp4")})


def _index(root: Path) -> bytes:
    items = "".join(
        f'<li><a href="/{quote(slug)}/feed.xml">{html.escape(_series_title(root / slug))}</a></li>'
        for slug in _series(root)
    )
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Series</title><h1>Series</h1><ul>{items}</ul>'
    return page.encode()


def _feed(folder: Path, site: str) -> bytes:
    """RSS 2.0 of a series: an item for each mp4, sorted by name."""
    rss = ElementTree.Element("rss", version="2.0")
    channel = ElementTree.SubElement(rss, "channel")
    title = _series_title(folder)
    _add(channel, title=title, link=f"{site}/{quote(folder.name)}/feed.xml", description=title)
    for path in sorted(folder.glob("*.mp4")):
        url = f"{site}/{quote(folder.name)}/{quote(path.name)}"
        item = ElementTree.SubElement(channel, "item")
        _add(item, title=_tags(path).get("title", path.stem), guid=f"{folder.name}-{path.stem}", link=url)
        length = str(path.stat().st_size)
        ElementTree.SubElement(item, "enclosure", url=url, length=length, type="video/mp4")
    return ElementTree.tostring(rss, encoding="utf-8", xml_declaration=True)


def _add(parent: ElementTree.Element, **texts: str) -> None:
    for name, text in texts.items():
        ElementTree.SubElement(parent, name).text = text


def _series_title(folder: Path) -> str:
    """Read the `show` tag of the first episode; the folder's name when it has none."""
    return _tags(min(folder.glob("*.mp4"))).get("show", folder.name)


def _tags(path: Path) -> dict[str, str]:
    return _read_tags(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1024)
def _read_tags(path: Path, _changed: int) -> dict[str, str]:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "ffmetadata", "-"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        log.warning("%s: no tags, ffmpeg cannot read it: %s", path, result.stderr.strip()[-200:])
        return {}
    pairs = re.findall(r"^(\w+)=((?:[^\\\n]|\\.)*)$", result.stdout, flags=re.MULTILINE)
    return {key: re.sub(r"\\(.)", r"\1", value) for key, value in pairs}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m samples.serve", description=__doc__.split(":")[0])
    parser.add_argument("--port", type=int, default=8765, help="default: 8765; 0 for any free one")
    parser.add_argument("--root", type=Path, default=Path(__file__).parent, help="default: the samples folder")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        server = make_server(options.root, options.port)
    except OSError as error:
        parser.exit(1, f"error: {error}\n")
    with server:
        for slug in _series(options.root):
            log.info("http://127.0.0.1:%d/%s/feed.xml", server.server_port, quote(slug))
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            log.info("stopped")


if __name__ == "__main__":
    main()
