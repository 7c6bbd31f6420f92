"""The image and the compose file as a team has them: build, bring up, one build of a corpus, a search.

It takes many minutes and 15 GB of disk, and is skipped where Docker is missing. With FSCLAP_REQUIRE_DOCKER=1 it fails
there instead.
"""

import base64
import json
import logging
import os
import secrets
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deployments.processes import free_port
from harness import images
from harness.docker import Docker, NoDockerError, docker

pytestmark = pytest.mark.slow

COMPOSE = Path(__file__).parents[2] / "deployments" / "compose"
IMAGE = "fsclap-test/fsclap:cpu"
CORPUS, INDEX, MODELS = "s3://fsclap/corpus", "s3://fsclap/corpus-index", "data/models"
ALWAYS = {"database", "store", "server", "worker", "batches"}
CHAIN = {"build-dataset": 1, "process-batch": 2, "train-fsclap": 1, "evaluate-fsclap": 1, "index-corpus": 1}
"""Flow -> its runs. There are eight episodes, and a batch has four here; one series alone is too small to train on."""

log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    try:
        with docker(tmp_path_factory.mktemp("docker") / "dockerd.log") as found:
            yield found
    except NoDockerError as missing:
        if os.environ.get("FSCLAP_REQUIRE_DOCKER"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def base(machine: Docker) -> images.Base:
    try:
        return images.base(machine)
    except NoDockerError as missing:
        if os.environ.get("FSCLAP_REQUIRE_DOCKER"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def secret() -> str:
    """Something in the pip.conf that must not be found in the image, as the password of an index would be."""
    return f"secret-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def image(machine: Docker, base: images.Base, secret: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    began = time.monotonic()
    with images.pip_secrets(tmp_path_factory.mktemp("pip")) as given:
        with given["pip"].open("a") as file:
            file.write(f"# {secret}\n")
        images.project(machine, base, IMAGE, given)
    size = int(machine.run("image", "inspect", "--format", "{{.Size}}", IMAGE).stdout)
    log.info("image: %.0f s, %.2f GB", time.monotonic() - began, size / 1e9)
    yield IMAGE
    machine.run("image", "rm", IMAGE)


@dataclass(frozen=True)
class Installation:
    """What `docker compose up` brought up; addresses are those of the ports on this machine."""

    compose: Callable[..., str]
    server: str
    search: str
    auth: str
    search_password: str

    def inside(self, service: str, *command: str) -> str:
        """Run a command in the container of a service, as its user; returns what it printed."""
        return self.compose("exec", "-T", service, *command)

    def containers(self) -> dict[str, dict[str, Any]]:
        """Service -> its container: State, Health, ExitCode."""
        lines = self.compose("ps", "--all", "--format", "json").splitlines()
        return {container["Service"]: container for container in map(json.loads, lines)}

    def wait_healthy(self, *services: str) -> None:
        self.until(lambda: {self.containers()[name]["Health"] for name in services} == {"healthy"}, "all are healthy")

    def runs(self) -> list[tuple[str, str]]:
        """Flow and type of state of each run, but for those that the nightly schedule plans ahead."""
        names = {flow["id"]: flow["name"] for flow in self.post("flows/filter")}
        runs = [(names[run["flow_id"]], run["state"]["type"]) for run in self.post("flow_runs/filter")]
        return sorted(run for run in runs if run[0] != "refresh-corpus")

    def post(self, path: str) -> Any:
        status, said = ask(f"{self.server}/api/{path}", self.auth, data=b"{}")
        assert status == 200, said
        return json.loads(said)

    def until(self, condition: Callable[[], bool], what: str, patience: float = 600) -> None:
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"after {patience:.0f} s not: {what}\n{self.compose('logs', '--tail', '40')}")
            time.sleep(2)


def ask(address: str, auth: str | None = None, data: bytes | None = None) -> tuple[int, bytes]:
    """Ask as a browser does; return the status of the answer, and its body."""
    headers = {"Accept": "text/html,*/*"} | ({"Content-Type": "application/json"} if data else {})
    request = urllib.request.Request(address, data=data, headers=headers)
    if auth is not None:
        request.add_header("Authorization", f"Basic {base64.b64encode(auth.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()


@pytest.fixture(scope="module")
def installation(machine: Docker, base: images.Base, image: str) -> Iterator[Installation]:
    server, search = free_port(), free_port()
    auth, search_password = f"team:{secrets.token_hex(24)}", secrets.token_hex(24)
    environment = {
        "POSTGRES_PASSWORD": secrets.token_hex(24),
        "FSCLAP_AUTH": auth,
        "FSCLAP_APP_PASSWORD": search_password,
        "FSCLAP_STORE_KEY": secrets.token_hex(24),
        "FSCLAP_IMAGE": image,
        "POSTGRES_IMAGE": images.postgres(machine, base),
        "SEAWEEDFS_IMAGE": images.store(machine, base),
        "FSCLAP_SERVER_PORT": str(server),
        "FSCLAP_SEARCH_PORT": str(search),
        "FSCLAP_INDEX": INDEX,
    }
    files = ["--file", str(COMPOSE / "compose.yaml"), "--file", str(COMPOSE / "store.yaml"), "--profile", "search"]
    client = Docker({**machine.environment, **environment}, machine.client, machine.compose, machine.own)

    def compose(*arguments: str) -> str:
        return client.run_compose("--project-name", f"fsclap-test-{server}", *files, *arguments).stdout

    began = time.monotonic()
    found = Installation(compose, f"http://127.0.0.1:{server}", f"http://127.0.0.1:{search}", auth, search_password)
    try:
        compose("up", "--detach", "--no-build", "--quiet-pull", *ALWAYS)
        found.wait_healthy(*ALWAYS)
        log.info("all services are healthy after %.0f s", time.monotonic() - began)
        yield found
    finally:
        compose("down", "--volumes", "--timeout", "20")


@pytest.fixture(scope="module")
def built(installation: Installation) -> Installation:
    """A corpus in the object store, built by both workers, and what the events of its commit started."""
    began = time.monotonic()
    settings = {"fan_out": "pool", "batch_episodes": 4}
    parameters = {"sources": ["samples/crossed-lines", "samples/dve-ryby"], "corpus": CORPUS, "settings": settings}
    options = [f"--param={name}={json.dumps(value)}" for name, value in parameters.items()]
    said = installation.inside(
        "worker", "prefect", "deployment", "run", "build-dataset/build-dataset", *options, "--watch"
    )
    log.info("build: %.0f s", time.monotonic() - began)

    def done() -> bool:
        runs = installation.runs()
        ended_badly = [run for run in runs if run[1] in ("FAILED", "CRASHED", "CANCELLED")]
        assert ended_badly == [], f"{said}\n{installation.compose('logs', '--tail', '80', 'worker', 'batches')}"
        return len(runs) == sum(CHAIN.values()) and {state for _, state in runs} == {"COMPLETED"}

    installation.until(done, "the chain has ended")
    log.info("build, training, evaluation and index: %.0f s", time.monotonic() - began)
    return installation


def test_the_image_keeps_no_secret(machine: Docker, image: str, secret: str) -> None:
    history = machine.run("history", "--no-trunc", "--format", "{{.CreatedBy}}", image).stdout
    assert "deployments.health" in history
    config = machine.run("image", "inspect", image).stdout
    for told in (secret, "find-links", "extra-index-url http://127.0.0.1"):
        assert told not in history
        assert told not in config
    as_root = ["run", "--rm", "--user", "0", "--network", "none", "--entrypoint", "sh", image, "-c"]
    # A pip.conf, or what names one, is no big file.
    looking = f"find / -xdev -type f -size -2M -exec grep -lF {secret} {{}} +; ls -A /run/secrets"
    assert machine.run(*as_root, looking, check=False).stdout == ""


def test_the_image_is_for_cpus_and_not_for_root(machine: Docker, image: str) -> None:
    says = "import os, torch; print(os.getuid(), torch.version.cuda, os.access('/opt/fsclap', os.W_OK))"
    said = machine.run("run", "--rm", "--network", "none", image, "python", "-c", says).stdout
    assert said.split() == ["10001", "None", "False"]


def test_the_server_asks_for_its_password(installation: Installation) -> None:
    filter_ = f"{installation.server}/api/flow_runs/filter"
    assert ask(filter_, data=b"{}")[0] == 401
    assert ask(filter_, "team:wrong", data=b"{}")[0] == 401
    assert ask(filter_, installation.auth, data=b"{}")[0] == 200


def test_the_server_has_its_pages(installation: Installation) -> None:
    status, page = ask(f"{installation.server}/runs")
    assert status == 200
    assert b"<script" in page


def test_weights_are_written_once_and_read_by_the_workers(machine: Docker, installation: Installation) -> None:
    (volume,) = [mount for mount in json.loads(inspect(machine, installation)) if mount["Destination"] == "/weights"]
    filling = ["run", "--rm", "--network", "none", "--volume", f"{volume['Name']}:/weights", IMAGE]
    machine.run(*filling, "sh", "-c", "echo here > /weights/one")
    assert installation.inside("worker", "cat", "/weights/one") == "here\n"
    with pytest.raises(RuntimeError, match="Read-only file system"):
        installation.inside("worker", "touch", "/weights/other")


def inspect(machine: Docker, installation: Installation) -> str:
    return machine.run("inspect", "--format", "{{json .Mounts}}", installation.containers()["worker"]["ID"]).stdout


def test_the_doctor_has_nothing_to_mend(installation: Installation) -> None:
    for worker in ("worker", "batches"):
        said = installation.inside(worker, "fsclap", "doctor", "--corpus", CORPUS, "--fan-out", "pool")
        assert "MEND" not in said, worker


def test_a_build_fills_the_store(built: Installation) -> None:
    counting = (
        "from storage.corpus import Corpus; corpus = Corpus.open('s3://fsclap/corpus'); "
        "print(corpus.utterances(columns=['source_id']).num_rows, corpus.sources().num_rows)"
    )
    rows, sources = map(int, built.inside("worker", "python", "-c", counting).split())
    assert rows > 40
    assert sources == 8
    assert Counter(name for name, _ in built.runs()) == CHAIN


def test_its_corpus_is_as_it_should_be(built: Installation) -> None:
    report = json.loads(built.inside("worker", "fsclap", "corpus", "verify", CORPUS, "--json"))
    assert report["problems"] == []


def test_volumes_have_one_owner_and_their_files(built: Installation) -> None:
    """Models lie in /data, work files in /work, where both workers find them."""
    looking = "find data/models/ -maxdepth 2 -name training.json; find data/work/ -name manifest.json | wc -l"
    model, outputs = built.inside("batches", "sh", "-c", looking).split()
    assert model.startswith("data/models/")
    assert int(outputs) > 0
    assert built.inside("batches", "readlink", "-f", "data/models", "data/work").split() == ["/data/models", "/work"]
    assert built.inside("worker", "find", "/data", "/work", "/tmp", "!", "-user", "fsclap", "-type", "f") == ""


def test_only_the_server_knows_the_database(built: Installation) -> None:
    for service in ("worker", "batches"):
        assert "POSTGRES" not in built.inside(service, "env")


def test_the_search_page_asks_for_its_password(built: Installation) -> None:
    built.compose("up", "--detach", "--no-build", "search")
    built.wait_healthy("search")
    query = f"{built.search}/api/search?query=a%20low%20voice"
    assert ask(built.search)[0] == ask(query)[0] == 401
    assert ask(query, "anybody:wrong")[0] == 401
    assert b"<html" in ask(built.search, f"anybody:{built.search_password}")[1]
    status, said = ask(query, f"anybody:{built.search_password}")
    assert status == 200
    assert json.loads(said)["clips"]
