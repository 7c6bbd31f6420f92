"""The job that Kubernetes gets for a run: valid to the letter, with a GPU if asked for, and without secrets."""

import asyncio
import json
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest
import yaml
from prefect.client.schemas.objects import FlowRun
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_SERVER_DATABASE_CONNECTION_URL,
    temporary_settings,
)

kubernetes_validate = pytest.importorskip("kubernetes_validate")
worker = pytest.importorskip("prefect_kubernetes.worker")

FOLDER = Path(__file__).parents[2] / "deployments" / "kubernetes"
TEMPLATE = json.loads((FOLDER / "job-template.json").read_text())
DOCUMENTS = [
    document for file in ("storage.yaml", "worker.yaml") for document in yaml.safe_load_all((FOLDER / file).read_text())
]
VERSION = "1.37.0"
AUTH, DATABASE = "user:do-not-show", "postgresql+asyncpg://prefect:nor-this@database/prefect"


class Cluster:
    """In the place of a cluster's API: the jobs that it was asked to start."""

    jobs: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, client: object) -> None:
        pass

    async def create_namespaced_job(self, namespace: str, body: dict[str, Any]) -> None:
        self.jobs.append(body)


def started(monkeypatch: pytest.MonkeyPatch, database: str | None = None, **values: Any) -> dict[str, Any]:
    """Start the job of a run with a worker that has the environment of worker.yaml; return its manifest."""
    for variable in environment():
        if "value" in variable:
            monkeypatch.setenv(variable["name"], variable["value"])
    monkeypatch.setattr(worker, "BatchV1Api", Cluster)
    settings: dict[Any, Any] = {PREFECT_API_URL: "http://prefect-server:4200/api", PREFECT_API_AUTH_STRING: AUTH}
    if database:
        settings[PREFECT_SERVER_DATABASE_CONNECTION_URL] = database

    async def start() -> None:
        configuration = await worker.KubernetesWorkerJobConfiguration.from_template_and_values(TEMPLATE, values)
        configuration.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="process-e01"))
        await worker.KubernetesWorker(work_pool_name="fsclap-kubernetes")._create_job(configuration, client=None)

    with temporary_settings(settings):
        asyncio.run(start())
    return Cluster.jobs.pop()


def environment() -> list[dict[str, Any]]:
    """Return the variables of the worker in worker.yaml."""
    (deployment,) = [document for document in DOCUMENTS if document["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    variables: list[dict[str, Any]] = container["env"]
    return variables


@pytest.mark.parametrize(("values", "gpus"), [({}, 0), ({"gpus": 1, "image": "fsclap:cuda"}, 1)])
def test_the_job_of_a_run_is_valid_and_has_what_it_needs(
    values: dict[str, Any], gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = started(monkeypatch, env={"OMP_NUM_THREADS": "2"}, **values)
    kubernetes_validate.validate(manifest, VERSION, strict=True)
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == gpus
    assert container["args"][-2:] == ["flow-run", "execute"] or "prefect.engine" in container["args"]
    assert {"name": "OMP_NUM_THREADS", "value": "2"} in container["env"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    mounted = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounted["/weights"]["readOnly"] is True
    assert manifest["spec"]["backoffLimit"] == 0, "Prefect's automation starts a crashed run again, not Kubernetes"


def test_no_secret_is_in_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = started(monkeypatch)
    assert "do-not-show" not in json.dumps(manifest)
    kubernetes_validate.validate(manifest, VERSION, strict=True)
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    (auth,) = [variable for variable in container["env"] if variable["name"] == "PREFECT_API_AUTH_STRING"]
    assert auth["valueFrom"] == {"secretKeyRef": {"name": "fsclap", "key": "auth"}}


def test_a_worker_is_not_told_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's worker copies its settings into the manifests of its jobs, as the first line shows."""
    assert "nor-this" in json.dumps(started(monkeypatch, DATABASE))
    assert not [variable for variable in environment() if "DATABASE" in variable["name"]]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["kind"])
def test_every_manifest_is_valid(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, VERSION, strict=True)


def test_a_misspelt_field_is_noticed() -> None:
    claim = DOCUMENTS[0]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**claim, "spec": {**claim["spec"], "accesModes": []}}, VERSION, strict=True)
