"""A stand-in for both model hubs on localhost: the HTTP interface that their own clients ask, over files of a test."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the hub holds, and how it misbehaves.

    Attributes:
        models: Name -> path -> content.
        served: What is sent in place of a file's content, by path.
        status: An HTTP status for every request, such as 401 or 503.
        requests: Paths asked for.
    """

    models: dict[str, dict[str, bytes]]
    served: dict[str, bytes] = field(default_factory=dict)
    status: int | None = None
    requests: list[str] = field(default_factory=list)
    address: str = ""


@contextmanager
def serve(models: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    hub = Hub(models)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, *, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            if hub.status is not None:
                self.send(hub.status, b"{}", body=body)
                return
            parts = urlsplit(self.path)
            segments = unquote(parts.path).strip("/").split("/")
            found = huggingface(hub, segments) or modelscope(hub, segments, parse_qs(parts.query))
            if found is None:
                self.send(404, b'{"error": "not found", "Code": 10010205, "Message": "not found"}', body=body)
            else:
                content, headers = found
                self.send(200, content, body=body, headers=headers)

        def send(self, status: int, content: bytes, *, body: bool, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


Answer = tuple[bytes, dict[str, str]]


def huggingface(hub: Hub, segments: list[str]) -> Answer | None:
    match segments:
        case ["api", "models", owner, name, "revision", _] if f"{owner}/{name}" in hub.models:
            files = hub.models[f"{owner}/{name}"]
            siblings = [
                {
                    "rfilename": path,
                    "size": len(content),
                    "blobId": "0" * 40,
                    "lfs": {"sha256": sha256(content), "size": len(content), "pointerSize": 130},
                }
                for path, content in files.items()
            ]
            return json_answer({"id": f"{owner}/{name}", "sha": COMMIT, "siblings": siblings})
        case ["api", "models", owner, name, "tree", _, *_] if f"{owner}/{name}" in hub.models:
            files = hub.models[f"{owner}/{name}"]
            return json_answer(
                [
                    {
                        "type": "file",
                        "path": path,
                        "size": len(content),
                        "oid": "0" * 40,
                        "lfs": {"oid": sha256(content), "size": len(content), "pointerSize": 130},
                    }
                    for path, content in files.items()
                ]
            )
        case [owner, name, "resolve", _, *path] if f"{owner}/{name}" in hub.models:
            file = "/".join(path)
            content = hub.models[f"{owner}/{name}"].get(file)
            if content is None:
                return None
            return hub.served.get(file, content), {"ETag": f'"{sha256(content)}"', "X-Repo-Commit": COMMIT}
    return None


def modelscope(hub: Hub, segments: list[str], query: dict[str, list[str]]) -> Answer | None:
    match segments:
        case ["api", "v1", "models", owner, name, "repo", "files"] if f"{owner}/{name}" in hub.models:
            files = [
                {
                    "Path": path,
                    "Name": path.rpartition("/")[2],
                    "Size": len(content),
                    "Sha256": sha256(content),
                    "Type": "blob",
                }
                for path, content in hub.models[f"{owner}/{name}"].items()
            ]
            return json_answer({"Code": 200, "Success": True, "Data": {"Files": files}})
        case ["api", "v1", "models", owner, name, "repo"] if f"{owner}/{name}" in hub.models:
            file = query["FilePath"][0]
            content = hub.models[f"{owner}/{name}"].get(file)
            return None if content is None else (hub.served.get(file, content), {})
    return None


def json_answer(content: object) -> Answer:
    return json.dumps(content).encode(), {"Content-Type": "application/json"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
