"""Sphinx configuration. Pages are Markdown; what the source already says is generated from it (`generate.py`), never copied."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

import generate

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "labxchange"
author = "the labxchange authors"
version = release = generate.version()
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "furo"
smartquotes = False
html_title = f"labxchange {release}"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
nitpicky = True
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

logging.getLogger("alembic").setLevel(logging.WARNING)

_PLACE = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def fill(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Put the generated parts in their places; a name that does not exist fails the build."""
    source[0] = _PLACE.sub(lambda found: generate.PARTS[found[1]](), source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
