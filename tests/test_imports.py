"""Imports go one way: flows -> tasks -> {fsclap, storage} <- cli, and no modules import each other in a circle."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "tasks", "cli", "fsclap", "storage", "deployments", "harness")

FORBIDDEN = {
    "fsclap": {"prefect", "flows", "tasks", "cli", "deployments", "harness", "storage"},
    "storage": {"prefect", "flows", "tasks", "cli", "deployments", "harness", "fsclap"},
    "cli": {"prefect", "flows", "tasks", "deployments", "harness"},
    "tasks": {"flows", "cli", "deployments", "harness"},
    "flows": {"cli", "deployments", "harness"},
    "harness": {"tests", "bench"},
    "bench": {"tests"},
}
BELOW = {
    "fsclap.model": ("fsclap.data", "fsclap.training", "fsclap.evaluation", "fsclap.retrieval"),
    "fsclap.data": ("fsclap.training", "fsclap.evaluation", "fsclap.retrieval"),
    "fsclap.evaluation": ("fsclap.training", "fsclap.comparison", "fsclap.retrieval"),
    "fsclap.training": ("fsclap.comparison", "fsclap.retrieval"),
    "fsclap.comparison": ("fsclap.retrieval",),
    "fsclap.corpus": ("fsclap.model", "fsclap.data", "fsclap.training", "fsclap.evaluation", "fsclap.retrieval"),
}
"""The floors of the library: a package, and those that it may not import."""
GROUND = {path.stem for path in (ROOT / "fsclap").glob("*.py")} - {"__init__"}


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Every module and every name that a file imports, at its head or inside a function, with dots."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            assert node.level == 0, f"{path}: a relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def circle(graph: dict[str, set[str]]) -> list[str] | None:
    """The modules of one circle, in order, or None."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return path[path.index(module) :]
        if module not in done:
            for other in sorted(graph[module]):
                if found := visit(other, [*path, module]):
                    return found
            done.add(module)
        return None

    return next(filter(None, (visit(module, []) for module in sorted(graph))), None)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    above = {
        (str(path.relative_to(ROOT)), name)
        for path in files
        for name in imports(path)
        if name.split(".")[0] in FORBIDDEN[package]
    }
    assert above == set()


def test_the_library_has_floors() -> None:
    above = set()
    for module, path in modules().items():
        floor = next((name for name in BELOW if module.startswith(f"{name}.") or module == name), None)
        ground = module.split(".")[0] == "fsclap" and module.count(".") == 1 and module.split(".")[1] in GROUND
        banned = (*BELOW, "fsclap.retrieval") if ground else BELOW.get(floor or "", ())
        above |= {(module, name) for name in imports(path) if name.startswith(banned)} if banned else set()
    assert above == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    files = modules()
    graph = {
        module: {name for name in imports(path) if name in files and name != module} for module, path in files.items()
    }
    assert sum(map(len, graph.values())) > 300
    assert circle(graph) is None


def test_a_circle_is_noticed() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


@pytest.mark.parametrize(
    ("module", "unused"),
    [
        ("fsclap.retrieval.search", ("matplotlib", "fsclap.training", "fsclap.evaluation", "umap")),
        ("cli.main", ("torch", "matplotlib", "storage")),
        ("flows.train_fsclap", ("torch", "fsclap.corpus")),
        ("flows.compare_systems", ("torch", "matplotlib", "fsclap.corpus")),
        ("flows.build_dataset", ("torch", "matplotlib", "demucs", "funasr")),
    ],
)
def test_a_module_loads_without_what_it_does_not_use(module: str, unused: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*(name for name in {unused!r} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
