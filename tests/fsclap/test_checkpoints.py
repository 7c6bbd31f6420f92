"""Published checkpoints, downloaded from a server on localhost: in one go, interrupted, damaged, or not at all."""

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cli.main import main
from fsclap.checkpoints import CHECKPOINTS, SYSTEMS, Checkpoint, fetch_checkpoint, published
from fsclap.model.systems import SYSTEMS as MODELS
from fsclap.weights import WeightsError

CONTENT = bytes(range(256)) * 40
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """Serves CONTENT at /file, by a redirect from /hub, and how it misbehaves.

    Attributes:
        ends_after: Bytes after which an answer breaks off; None: it does not.
        kind: Content type.
        tag: ETag of the file.
        checksum: What the redirect says of the file.
        ranges: Range headers asked with.
    """

    content: bytes = CONTENT
    ends_after: int | None = None
    kind: str = "application/octet-stream"
    tag: str = '"v1"'
    checksum: str = DIGEST
    ranges: list[str | None] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("FSCLAP_WEIGHTS", str(tmp_path))
    made = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/hub":
                self.send_response(302)
                self.send_header("Location", f"{made.address}/file")
                self.send_header("X-Linked-ETag", f'"{made.checksum}"')
                self.end_headers()
                return
            if self.path != "/file":
                self.send_error(404)
                return
            wanted = self.headers.get("Range")
            made.ranges.append(wanted)
            start = int(wanted[6:-1]) if wanted and self.headers.get("If-Range") == made.tag else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(made.content) - start))
            self.send_header("Content-Type", made.kind)
            self.send_header("ETag", made.tag)
            self.end_headers()
            self.wfile.write(made.content[start : made.ends_after])

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    made.address = f"http://127.0.0.1:{http.server_address[1]}"
    yield made
    http.shutdown()
    http.server_close()
    thread.join()


def checkpoint(server: Server, path: str = "/hub") -> Checkpoint:
    known = published("audioclip")
    return replace(known, url=f"{server.address}{path}", size=len(CONTENT))


def test_a_checkpoint_is_fetched_once_and_says_where_it_is_from(server: Server, tmp_path: Path) -> None:
    path = fetch_checkpoint(checkpoint(server))
    assert path == tmp_path / "systems/audioclip/AudioCLIP-Full-Training.pt"
    assert path.read_bytes() == CONTENT
    record = json.loads(path.with_name(path.name + ".json").read_text())
    assert record == {"url": f"{server.address}/hub", "size": len(CONTENT), "sha256": DIGEST, "licence": "MIT"}
    assert fetch_checkpoint(checkpoint(server)) == path
    assert len(server.ranges) == 1
    assert {file.name for file in path.parent.iterdir()} == {path.name, f"{path.name}.json"}


def test_an_interrupted_download_goes_on_where_it_stopped(server: Server) -> None:
    server.ends_after = 5000
    with pytest.raises(WeightsError, match=r"5,000 of 10,240|goes on"):
        fetch_checkpoint(checkpoint(server))
    server.ends_after = None
    assert fetch_checkpoint(checkpoint(server)).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=5000-"]


def test_a_file_that_changed_meanwhile_is_fetched_whole(server: Server) -> None:
    server.content, server.ends_after = bytes(len(CONTENT)), 5000
    with pytest.raises(WeightsError):
        fetch_checkpoint(checkpoint(server))
    server.content, server.ends_after, server.tag = CONTENT, None, '"v2"'
    assert fetch_checkpoint(checkpoint(server)).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"checksum": "0" * 64}, "another SHA-256"),
        ({"kind": "text/html"}, "a page, not a file"),
        ({"content": CONTENT + b"more"}, "10,244 bytes, and the published file has 10,240"),
    ],
)
def test_what_is_not_the_file_is_removed(server: Server, fault: dict[str, object], said: str) -> None:
    for name, value in fault.items():
        setattr(server, name, value)
    wanted = checkpoint(server)
    with pytest.raises(WeightsError, match=said):
        fetch_checkpoint(wanted)
    assert list(wanted.path.parent.iterdir()) == []


def test_a_checksum_of_the_table_counts(server: Server) -> None:
    with pytest.raises(WeightsError, match="another SHA-256"):
        fetch_checkpoint(replace(checkpoint(server, "/file"), sha256="0" * 64))
    assert fetch_checkpoint(replace(checkpoint(server, "/file"), sha256=DIGEST)).is_file()


def test_what_can_not_be_fetched_says_what_to_do(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WeightsError, match="has moved"):
        fetch_checkpoint(checkpoint(server, "/gone"))
    with pytest.raises(WeightsError, match="by https alone"):
        fetch_checkpoint(replace(checkpoint(server), url="http://example.org/a.pt"))
    with pytest.raises(WeightsError, match="GB to fetch, but the disk has"):
        fetch_checkpoint(replace(checkpoint(server), size=10**18))
    assert main(["models", "fetch", "mga_clap"]) == 1
    assert "put it at" in capsys.readouterr().err
    assert main(["models", "fetch", "ra_clap"]) == 1
    assert "no weights of RA-CLAP are public" in capsys.readouterr().err
    assert main(["models", "fetch", "audioclip", "--file", "x.pt"]) == 1
    assert "it has AudioCLIP-Full-Training.pt, AudioCLIP-Partial-Training.pt" in capsys.readouterr().err


def test_the_command_says_where_size_and_licence(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsclap.checkpoints.CHECKPOINTS", (checkpoint(server),))
    assert main(["models", "fetch", "audioclip"]) == 0
    said = capsys.readouterr().out
    assert f"from {server.address}/hub, licence MIT" in said
    assert Path(said.splitlines()[-1]).read_bytes() == CONTENT
    assert main(["models", "systems"]) == 0
    assert "not fetched" not in capsys.readouterr().out


def test_every_system_has_a_checkpoint_or_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(SYSTEMS) == set(MODELS)
    assert all(one.url.startswith("https://") and one.licence and (one.size or one.by_hand) for one in CHECKPOINTS)
    assert main(["models", "systems"]) == 0
    said = capsys.readouterr().out
    assert "CLAP_weights_2023.pth" in said
    assert "about 690 MB, licence MS-PL (code: MIT)" in said
    assert "537 MB" in said
