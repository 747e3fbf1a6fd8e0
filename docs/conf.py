"""How Sphinx builds the documentation."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "txserf"
author = "The txserf authors"
copyright = "2026, The txserf authors"
release = version = installed_version("txserf")

extensions = ["sphinx.ext.autodoc", "command_table", "service_tables"]
exclude_patterns = ["_build"]
default_role = "py:obj"
autodoc_member_order = "bysource"

html_theme = "alabaster"
html_theme_options = {"description": "Serf's agent RPC for Twisted", "page_width": "1100px"}
