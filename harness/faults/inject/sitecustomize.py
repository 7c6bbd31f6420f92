"""Brings about faults inside the processes of a stand (harness/faults/stand.py), which put this folder on PYTHONPATH.

Python imports a module of this name at its start. Nothing of the project knows of it: when a module that a point names
has been imported, the function that the point names is wrapped. The points are the files of the folder FSCLAP_FAULTS,
`{id}.json`; a point whose moment has come leaves `{id}.reached` with the process id, once, and then either kills its
process or waits until the stand has done something to the world and left `{id}.go`. Each request that is sent by HTTP
adds a byte to the file FSCLAP_CALLS, if there is one: a count that a kill cannot lose.
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
from pathlib import Path

FOLDER = Path(os.environ["FSCLAP_FAULTS"]) if "FSCLAP_FAULTS" in os.environ else None


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that points name as the other finders do, and wraps their functions once they are loaded."""

    def __init__(self, modules):
        self.modules = modules

    def find_spec(self, name, path=None, target=None):
        if name not in self.modules:
            return None
        self.modules.remove(name)  # the search below comes by here again
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            if name == "httpx":
                count(module)
            for point in points():
                if point["module"] == name:
                    wrap(module, point)

        spec.loader.exec_module = exec_module
        return spec


def count(httpx):
    calls = os.open(os.environ["FSCLAP_CALLS"], os.O_WRONLY | os.O_APPEND)
    for client in (httpx.Client, httpx.AsyncClient):

        @functools.wraps(client.send)
        def counted(*args, send=client.send, **kwargs):
            os.write(calls, b".")
            return send(*args, **kwargs)

        client.send = counted


def points():
    return [json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))]


def wrap(module, point):
    *path, name = point["function"].split(".")
    owner = functools.reduce(getattr, path, module)
    held = vars(owner)[name]
    kind = type(held) if isinstance(held, (classmethod, staticmethod)) else None
    function = held.__func__ if kind else held
    calls = 0

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        nonlocal calls
        if concerns(point, [*args, *kwargs.values()]):
            calls += 1
            here = calls == point["call"]
        else:
            here = False
        if here and point["when"] == "before":
            reached(point)
        result = function(*args, **kwargs)
        if here and point["when"] == "after":
            reached(point)
        return result

    setattr(owner, name, kind(wrapped) if kind else wrapped)


def concerns(point, arguments):
    wanted = point["argument"]
    if wanted is None:
        return True
    return any(wanted in (value if isinstance(value, str) else None, *names(value)) for value in arguments)


def names(value):
    return (getattr(value, "name", None), getattr(value, "stage", None))


def reached(point):
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
    wanted = {point["module"] for point in points()}
    if "FSCLAP_CALLS" in os.environ:
        wanted.add("httpx")
    if wanted:
        sys.meta_path.insert(0, Finder(wanted))
