"""How Sphinx builds the documentation."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "txserf"
author = "The txserf authors"
copyright = "2026, The txserf authors"
release = version = installed_version("txserf")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "cli_tables",
    "command_table",
    "public_names",
    "benchmark_tables",
    "service_tables",
]
exclude_patterns = ["_build", "inventories"]
default_role = "py:obj"
autodoc_member_order = "bysource"

# An interface has no such name, without which a signature has its repr.
for interface in (IListeningPort, IProtocol, IProtocolFactory, IStreamClientEndpoint, IStreamServerEndpoint):
    interface.__qualname__ = interface.__name__

nitpicky = True
nitpick_ignore = [
    # Aliases and type variables of ours: their meaning is in the text beside them.
    ("py:class", "Callback"),
    ("py:class", "Hosts"),
    ("py:class", "QueryHandler"),
    ("py:class", "T"),
    ("py:class", "txserf.cluster.ring.M"),
    # Not public, but in the signature of what is.
    ("py:class", "txserf.commands.Command"),
    ("py:class", "txserf.handlers.running.Kept"),
    ("py:class", "txserf.connection.protocol.Owner"),
    ("py:class", "txserf.handlers.routes.Routes"),
]
nitpick_ignore_regex = [
    # The type variables of the decorators of `Router`.
    ("py:class", r"txserf\.handlers\.router\.\w+Handler"),
]

# A build needs no network: the inventories are small ones of our own, with the names that the pages link.
# inventories/make.py makes them.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", "inventories/python.inv"),
    "twisted": ("https://docs.twisted.org/en/stable", "inventories/twisted.inv"),
    "twisted-api": ("https://docs.twisted.org/en/stable/api", "inventories/twisted-api.inv"),
}

# A prompt and the output behind it are not copied.
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = f"txserf {version}"
html_static_path = ["_static"]
html_css_files = ["txserf.css"]
html_show_sphinx = False
