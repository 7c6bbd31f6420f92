"""Docstrings as they are written here: an indented example after a paragraph is code, without a mark before it."""

import re
from typing import Any

from sphinx.application import Sphinx

SECTION = re.compile(r"^[A-Z]\w+:$")
"""A heading such as `Args:`; what is indented below it is no code."""


def mark_code(_app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Put the mark of reStructuredText for code before indented blocks that follow an empty line."""
    marked: list[str] = []
    in_section = in_code = False
    for before, line in zip(["", *lines], lines, strict=False):
        in_section = in_section or bool(SECTION.match(line))
        indented = line.startswith("    ")
        if indented and not (before or in_section or in_code):
            marked += ["::", ""]
        in_code = (indented or not line) and (in_code or indented)
        marked.append(line)
    lines[:] = marked


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect before napoleon, which reads the sections."""
    app.connect("autodoc-process-docstring", mark_code, priority=400)
    return {"parallel_read_safe": True}
