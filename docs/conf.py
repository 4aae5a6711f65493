"""How Sphinx builds the site: `make docs`, from the pages of this folder and from the code."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import nnunet_ext

project = "nnunet_ext"
release = nnunet_ext.__version__
html_title = f"{project} {release}"
html_theme = "furo"
html_show_copyright = False  # the licence is Apache's
html_show_sourcelink = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",  # without it, equations would load MathJax from another server
    "site_extension",
]
exclude_patterns = ["_build", "README.md"]  # index.md is README.md with the navigation
smartquotes_action = "D"  # dashes only: quotes stay as they are typed

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # links name headings as on GitHub
# Blocks of several commands or of output have no language; `{generated}` is described in site_extension.py.
highlight_language = "text"

default_role = "code"  # docstrings have single backquotes
autodoc_typehints = "none"  # they would fill a signature's lines; arguments are described in words
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90

linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*"]  # GitHub makes its anchors in the browser
linkcheck_timeout = 30
linkcheck_retries = 3
