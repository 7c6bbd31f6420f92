"""The documentation site: `make docs` builds it into build/docs from the files of the checkout where they are.

The whole checkout is the source, so a link between two files is the same on the site and in a code browser.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the extensions of this folder

project = "FS-CLAP"
author = "the FS-CLAP authors"
html_title = "FS-CLAP"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxarg.ext",
    "docstrings",
    "linked_files",
    "flow_parameters",
]
root_doc = "docs/index"
include_patterns = [
    "README.md", "CHANGELOG.md", "SECURITY.md", "docs/**", "samples/README.md", "fsclap/*/README.md",
]  # fmt: skip
exclude_patterns = [".*", "build", "data", "docs/site"]

myst_heading_anchors = 4
# Docstrings are prose with `names` in them.
default_role = "code"
highlight_language = "none"
smartquotes = False  # values are to be copied as they are
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

html_theme = "furo"
html_theme_options = {"navigation_with_keys": True}
templates_path = ["templates"]
html_additional_pages = {"index": "start.html"}
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
