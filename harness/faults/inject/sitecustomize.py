"""Inject faults into the processes of a stand, which puts this folder on PYTHONPATH.

Python imports a module of this name when it starts, so the project needs no hooks: once a module
that a point names has been imported, the function that the point names is wrapped. The points are
the files `{id}.json` in the folder FSCLAP_FAULTS. When its moment comes, a point writes the process
id to `{id}.reached`, once; then it kills the process, or waits until the stand has caused the fault
and written `{id}.go`. Each HTTP request adds a byte to the file FSCLAP_CALLS, if that is set: a
count that survives a kill. With FSCLAP_SLEEP, engines only sleep (`sleeping.py`).
"""

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

ASLEEP = {"fsclap.corpus.separation", "fsclap.corpus.diarization"} if "FSCLAP_SLEEP" in os.environ else set()
FOLDER = Path(os.environ["FSCLAP_FAULTS"]) if "FSCLAP_FAULTS" in os.environ else None


class Finder(importlib.abc.MetaPathFinder):
    """Find the modules that points name, and wrap their functions once they are loaded."""

    def __init__(self, modules: set[str]) -> None:
        self.modules = modules

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name not in self.modules:
            return None
        self.modules.remove(name)  # find_spec below calls this method again
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            if name == "httpx":
                count(module)
            if name in ASLEEP:
                importlib.import_module("sleeping").install(module)
            for point in points():
                if point["module"] == name:
                    wrap(module, point)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def count(httpx: Any) -> None:
    calls = os.open(os.environ["FSCLAP_CALLS"], os.O_WRONLY | os.O_APPEND)
    for client in (httpx.Client, httpx.AsyncClient):

        @functools.wraps(client.send)
        def counted(*args: Any, send: Any = client.send, **kwargs: Any) -> Any:
            os.write(calls, b".")
            return send(*args, **kwargs)

        client.send = counted


def points() -> list[dict[str, Any]]:
    assert FOLDER is not None
    return [json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))]


def wrap(module: ModuleType, point: dict[str, Any]) -> None:
    *path, name = point["function"].split(".")
    owner: Any = functools.reduce(getattr, path, module)
    member = vars(owner)[name]
    kind: Any = type(member) if isinstance(member, (classmethod, staticmethod)) else None
    function = member.__func__ if kind else member
    calls = 0

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        counts = concerns(point, [*args, *kwargs.values()])
        calls += counts
        here = counts and calls == point["call"]
        if here and point["when"] == "before":
            reached(point)
        result = function(*args, **kwargs)
        if here and point["when"] == "after":
            reached(point)
        return result

    setattr(owner, name, kind(wrapped) if kind else wrapped)


def concerns(point: dict[str, Any], arguments: Iterable[Any]) -> bool:
    text = point["argument"]
    if text is None:
        return True
    return any(text in (value if isinstance(value, str) else None, *names(value)) for value in arguments)


def names(value: Any) -> tuple[Any, Any]:
    return (getattr(value, "name", None), getattr(value, "stage", None))


def reached(point: dict[str, Any]) -> None:
    assert FOLDER is not None
    mark = FOLDER / f"{point['id']}.reached"
    try:
        handle = os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return
    os.write(handle, str(os.getpid()).encode())
    os.close(handle)
    if point["action"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    go = FOLDER / f"{point['id']}.go"
    while not go.exists():
        time.sleep(0.05)


if FOLDER is not None and FOLDER.is_dir():
    wanted = {point["module"] for point in points()} | ASLEEP
    if "FSCLAP_CALLS" in os.environ:
        wanted.add("httpx")
    if wanted:
        sys.meta_path.insert(0, Finder(wanted))
