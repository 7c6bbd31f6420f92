"""Links to files and folders of the checkout: each becomes a page of the site that shows the source.

A code browser opens such a link as it is. A link to what is not there stays a warning, and `make docs` fails.
"""

import ast
import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

PAGES = "files"
"""Folder of these pages on the site."""
LANGUAGES = {
    ".py": "python", ".json": "json", ".toml": "toml", ".yaml": "yaml", ".js": "javascript", ".html": "html",
    ".css": "css", ".sh": "sh", ".service": "ini",
}  # fmt: skip
LARGEST = 200_000
"""Bytes; a longer file is only named."""
Page = tuple[str, dict[str, Any], str]


class LinkedFiles(SphinxTransform):
    """Point links to local files that are no documents, and to folders, at the pages that show them."""

    default_priority = 5

    def apply(self, **_: Any) -> None:
        root, here = Path(self.env.srcdir), Path(self.env.doc2path(self.env.docname)).parent
        for kind in (addnodes.download_reference, addnodes.pending_xref):
            for link in list(self.document.findall(kind)):
                target = (here / unquote(link["reftarget"])).resolve()
                folder = kind is addnodes.pending_xref and link.get("refdomain") is None and target.is_dir()
                if target.is_relative_to(root) and (folder or kind is addnodes.download_reference):
                    self._show(link, target.relative_to(root))

    def _show(self, link: nodes.Element, path: Path) -> None:
        linked: set[Path] = self.env.__dict__.setdefault("linked_files", set())
        linked.add(path)
        uri = self.app.builder.get_relative_uri(self.env.docname, f"{PAGES}/{path.as_posix()}")
        link.replace_self(nodes.reference("", "", *link.children, internal=True, refuri=uri))


def pages(app: Sphinx) -> Iterator[Page]:
    """Show every linked file, and every linked folder with all that is in it."""
    root = Path(app.srcdir)
    shown: set[Path] = set()
    for path in sorted(app.env.__dict__.get("linked_files", set())):
        shown |= {path, *(inner.relative_to(root) for inner in _within(root / path))}
    for path in sorted(shown):
        yield _folder_page(app, root, path) if (root / path).is_dir() else _file_page(app, root, path)


def _within(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir() and path.name.startswith((".", "__")):
            continue
        if path.is_dir() or _text(path) is not None:
            yield path
            yield from _within(path)


def _text(path: Path) -> str | None:
    """Return the text of a file that can be shown."""
    if path.stat().st_size > LARGEST:
        return None
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return None


def _file_page(app: Sphinx, root: Path, path: Path) -> Page:
    text, language = _text(root / path), LANGUAGES.get(path.suffix, "none")
    if text is None:
        body = f"<p>{(root / path).stat().st_size:,} bytes, not shown here.</p>"
    else:
        body = app.builder.highlighter.highlight_block(text, language, force=True)  # type: ignore[attr-defined]
    return _page(path, body)


def _folder_page(app: Sphinx, root: Path, path: Path) -> Page:
    shown = {inner for inner in _within(root / path) if inner.parent == root / path}
    rows = []
    for inner in sorted((root / path).iterdir(), key=lambda inner: (inner.is_file(), inner.name)):
        name = html.escape(inner.name) + ("/" if inner.is_dir() else "")
        if inner.name.startswith((".", "__pycache__")):
            continue
        if inner in shown:
            here = f"{PAGES}/{path.as_posix()}"
            uri = app.builder.get_relative_uri(here, f"{PAGES}/{inner.relative_to(root).as_posix()}")
            name = f'<a href="{html.escape(uri)}">{name}</a>'
        rows.append(f"<tr><td>{name}</td><td>{html.escape(_summary(inner))}</td></tr>")
    return _page(path, f'<table class="docutils">{"".join(rows)}</table>')


def _summary(path: Path) -> str:
    """Return the first line of a module's or package's docstring."""
    module = path / "__init__.py" if path.is_dir() else path
    if module.suffix != ".py" or not module.is_file():
        return ""
    return (ast.get_docstring(ast.parse(module.read_text())) or "").partition("\n")[0]


def _page(path: Path, body: str) -> Page:
    title = html.escape(path.as_posix())
    return f"{PAGES}/{path.as_posix()}", {"title": title, "body": f"<h1>{title}</h1>{body}"}, "page.html"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the transform and the pages."""
    app.add_transform(LinkedFiles)
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": False}
