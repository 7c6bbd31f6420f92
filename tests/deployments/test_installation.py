"""Dockerfile, compose file and units: what must hold of them, and what their own tools say."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments import health
from deployments.bootstrap import POOLS

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deployments" / "compose" / "compose.yaml"
UNITS = sorted((ROOT / "deployments" / "systemd").glob("*.service"))
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
SECRETS = {"POSTGRES_PASSWORD": "not-this", "FSCLAP_AUTH": "user:nor-this", "FSCLAP_APP_PASSWORD": "nor-that"}
STORE = "--file", str(COMPOSE.with_name("store.yaml"))


def tool(name: str) -> str:
    """Find a program next to Python or on the PATH, or skip."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def compose(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [tool("docker-compose"), "-f", str(COMPOSE), "--profile", "gpu", "--profile", "search", *arguments]
    return subprocess.run(
        command, env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("files", [(), STORE], ids=["alone", "with a store"])
def test_compose_accepts_the_files(files: tuple[str, ...]) -> None:
    done = compose(*files, "config", "--quiet", FSCLAP_STORE_KEY="nor-those", **SECRETS)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_store_starts_without_its_key() -> None:
    done = compose(*STORE, "config", "--quiet", **SECRETS)
    assert done.returncode != 0
    assert "FSCLAP_STORE_KEY" in done.stderr
    assert "deployments/compose/.env" in done.stderr


def test_all_that_read_corpora_read_the_store() -> None:
    done = compose(*STORE, "config", "--format", "json", FSCLAP_STORE_KEY="nor-those", **SECRETS)
    services = json.loads(done.stdout)["services"]
    knowing = {name for name, service in services.items() if "AWS_SECRET_ACCESS_KEY" in service.get("environment", {})}
    with_data = {
        name for name, service in services.items() if "/data" in [v["target"] for v in service.get("volumes", ())]
    }
    assert knowing == with_data == {"worker", "batches", "gpu", "search", "store"}
    assert "ports" not in services["store"]


@pytest.mark.parametrize("missing", SECRETS)
def test_nothing_starts_without_a_password(missing: str) -> None:
    done = compose("config", "--quiet", **{name: value for name, value in SECRETS.items() if name != missing})
    assert done.returncode != 0
    assert missing in done.stderr
    assert "deployments/compose/.env" in done.stderr


def test_the_example_names_every_password() -> None:
    lines = (COMPOSE.parent / "example.env").read_text().splitlines()
    assert {line.removesuffix("=") for line in lines if not line.startswith("#")} == SECRETS.keys()


def test_only_the_server_knows_the_database() -> None:
    """A worker passes its settings on to the runs that it starts."""
    knowing = {name for name, service in SERVICES.items() if "POSTGRES_PASSWORD" in str(service.get("environment"))}
    assert knowing == {"database", "server"}


def test_what_is_reached_from_outside_asks_for_a_password() -> None:
    published = {name: service["environment"] for name, service in SERVICES.items() if "ports" in service}
    assert published.keys() == {"server", "search"}
    assert "PREFECT_SERVER_API_AUTH_STRING" in published["server"]
    assert "FSCLAP_APP_PASSWORD" in published["search"]
    for name in published:
        assert all("127.0.0.1}:" in port for port in SERVICES[name]["ports"]), "for this machine alone, by default"


def test_links_to_runs_lead_out_of_the_containers() -> None:
    services = json.loads(compose("config", "--format", "json", **SECRETS).stdout)["services"]
    addresses = [
        services[name]["environment"]["PREFECT_UI_URL"] for name in ("server", "deploy", "worker", "batches", "gpu")
    ]
    assert set(addresses) == {"http://127.0.0.1:4200"}


def test_every_pool_has_a_worker() -> None:
    commands = [service["command"] for service in SERVICES.values() if "worker" in service.get("command", ())]
    assert {command[command.index("--pool") + 1] for command in commands} == POOLS.keys()


def test_hadolint_finds_nothing_in_the_dockerfiles() -> None:
    files = [ROOT / "Dockerfile", *(ROOT / "harness" / "images").glob("*/Dockerfile")]
    done = subprocess.run([tool("hadolint"), *map(str, files)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_images_do_not_run_as_root() -> None:
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    for target in ("cpu", "cuda"):
        (stage,) = [stage for stage in stages if stage.startswith(f"runtime AS {target}\n")]
        assert stage.rstrip().endswith("USER 10001:10001")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_knows_every_key_of_a_unit(unit: Path) -> None:
    done = subprocess.run([tool("systemd-analyze"), "verify", str(unit)], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if unit.name in line or str(unit) in line]
    # The program is not installed where tests run.
    assert [line for line in said if "is not executable" not in line] == []


class _Answers(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (401, 0), (500, 1)])
def test_a_service_is_healthy_when_it_answers(
    status: int, code: int, service: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Answers, "status", status)
    monkeypatch.setenv("FSCLAP_HEALTH", f"http://127.0.0.1:{service.server_port}/health")
    assert health.main() == code


def test_a_service_that_does_not_answer_is_not_healthy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FSCLAP_HEALTH", "http://127.0.0.1:1/health")
    assert health.main() == 1
    assert "http://127.0.0.1:1/health" in capsys.readouterr().err
