"""Imports go one way: flows -> tasks -> {fsclap, storage}; fsclap and storage know nothing of Prefect."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FORBIDDEN = {
    "fsclap": {"prefect", "flows", "tasks", "deployments", "storage"},
    "storage": {"prefect", "flows", "tasks", "deployments", "fsclap"},
    "tasks": {"flows"},
}
EXCEPTIONS = {("fsclap/cli.py", "storage"), ("fsclap/cli_retrieval.py", "storage")}
"""The command is the one place where a user meets both halves without Prefect."""


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    found = {(str(path.relative_to(ROOT)), name) for path in files for name in imported(path) & FORBIDDEN[package]}
    assert found - EXCEPTIONS == set()
