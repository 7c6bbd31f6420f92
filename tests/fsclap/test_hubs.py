"""`fsclap models fetch`, with the hubs' real clients against a stand-in for the hubs on localhost."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsclap.hubs import declared_licence
from fsclap.weights import WeightsError, WeightsSettings, find_weights, read_manifest
from tests.fsclap.hub_server import Hub, serve

ROOT = Path(__file__).parents[2]
FILES = {
    "config.json": b"{}",
    "weights/model.bin": bytes(range(256)) * 40,
    "README.md": b"---\nlicense: mit\n---\nA model",
    "example/speech.wav": b"RIFF",
}

Fetch = Callable[..., subprocess.CompletedProcess[str]]
hubs = pytest.mark.parametrize("kind", ["huggingface", "modelscope"])
# ModelScope's client takes seconds to import in each process: what does not depend on it runs in the slow tier.
hubs_slowly = pytest.mark.parametrize("kind", ["huggingface", pytest.param("modelscope", marks=pytest.mark.slow)])


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve({"owner/net": dict(FILES)}) as running:
        yield running


@pytest.fixture
def fetch(hub: Hub, tmp_path: Path) -> Fetch:
    def run(kind: str, *more: str, address: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "FSCLAP_WEIGHTS": str(tmp_path),
            "HF_ENDPOINT": address or hub.address,
            "MODELSCOPE_ENDPOINT": address or hub.address,
            "HF_HOME": str(tmp_path / "hf"),
            "MODELSCOPE_CACHE": str(tmp_path / "ms"),
        }
        command = [
            sys.executable,
            "-m",
            "cli.main",
            "models",
            "fetch",
            "owner/net",
            "--hub",
            kind,
            "--revision",
            "v1",
        ]
        return subprocess.run([*command, *more], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)

    return run


def settings(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> WeightsSettings:
    monkeypatch.setenv("FSCLAP_WEIGHTS", str(tmp_path))
    return WeightsSettings.model_validate({"name": "owner/net", "hub": kind, "revision": "v1"})


@hubs
def test_a_model_is_fetched_whole_and_found(
    kind: str, fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = fetch(kind)
    assert done.returncode == 0, done.stderr
    assert f"owner/net: 0.0 MB in {tmp_path / kind / 'owner/net/v1'}, licence mit" in done.stdout
    found = find_weights(settings(tmp_path, kind, monkeypatch), setting="model", needs=["weights/*.bin"])
    assert (found.folder / "weights/model.bin").read_bytes() == FILES["weights/model.bin"]
    assert not (found.folder / "example").exists()
    manifest = read_manifest(found.folder)
    assert manifest is not None
    assert set(manifest.files) == {"config.json", "weights/model.bin"}


@hubs_slowly
def test_what_is_here_is_not_downloaded_again(kind: str, fetch: Fetch, hub: Hub) -> None:
    fetch(kind)
    hub.requests.clear()
    assert fetch(kind).returncode == 0
    assert not [line for line in hub.requests if line.startswith("GET") and "model.bin" in line]


@hubs_slowly
def test_a_damaged_download_is_removed_and_told(kind: str, fetch: Fetch, hub: Hub, tmp_path: Path) -> None:
    hub.served["weights/model.bin"] = b"\0" * len(FILES["weights/model.bin"])
    done = fetch(kind)
    assert done.returncode == 1
    assert "model.bin" in done.stderr
    assert read_manifest(tmp_path / kind / "owner/net/v1") is None
    hub.served.clear()
    assert fetch(kind).returncode == 0


@hubs_slowly
def test_a_hub_that_cannot_be_reached(kind: str, fetch: Fetch) -> None:
    done = fetch(kind, address="http://127.0.0.1:9")
    endpoint = {"huggingface": "HF_ENDPOINT", "modelscope": "MODELSCOPE_ENDPOINT"}[kind]
    assert done.returncode == 1
    assert f"{kind}: owner/net, revision v1" in done.stderr
    assert f"{endpoint} names a mirror" in done.stderr
    assert "Traceback" not in done.stderr


@hubs_slowly
@pytest.mark.parametrize(("status", "advice"), [(404, "no such model or revision"), (401, "logged in")])
def test_a_hub_that_refuses(kind: str, status: int, advice: str, fetch: Fetch, hub: Hub) -> None:
    hub.status = status
    done = fetch(kind)
    assert done.returncode == 1
    assert advice in done.stderr
    assert "Traceback" not in done.stderr


def test_a_disk_that_is_too_small(tmp_path: Path) -> None:
    from fsclap.hubs import _require_space

    with pytest.raises(WeightsError, match="make room, or name a folder on another disk in FSCLAP_WEIGHTS"):
        _require_space(tmp_path / "library" / "owner" / "net", 10**18)


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [speech]\n---\n# Model", "apache-2.0"),
        ("---\ntags: [speech]\n---\n# Model", "unknown"),
        ("# Model\n---\nlicense: mit\n---\n", "unknown"),
        ("---\n: : broken [\n---\n", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_licence_is_the_one_that_the_page_declares(readme: str | None, licence: str, tmp_path: Path) -> None:
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    assert declared_licence(tmp_path) == licence
