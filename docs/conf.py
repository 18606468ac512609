"""How Sphinx builds the documentation: `make docs`, strictly, from Markdown in English and Korean."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from reference import write_reference  # noqa: E402  (Sphinx runs this file from another folder)

project = "dure"
author = "the dure team"
extensions = ["myst_parser"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "dure 두레"
html_show_sphinx = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["words.css"]
smartquotes = False  # It makes a dash of the two hyphens of an option.
exclude_patterns = ["_build", "log.md", "*.ipynb"]


def setup(app: Any) -> None:
    """Write the configuration reference from the schema before the pages are read."""
    app.connect("builder-inited", lambda app: write_reference(HERE / "reference"))
