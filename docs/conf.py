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

extensions = ["sphinx.ext.autodoc", "command_table", "public_names", "service_tables"]
exclude_patterns = ["_build"]
default_role = "py:obj"
autodoc_member_order = "bysource"

# An interface has no such name, without which a signature has its repr.
for interface in (IListeningPort, IProtocol, IProtocolFactory, IStreamClientEndpoint, IStreamServerEndpoint):
    interface.__qualname__ = interface.__name__

nitpicky = True
nitpick_ignore = [
    # Twisted's, where a docstring says them without their module.
    ("py:obj", "Clock"),
    ("py:obj", "IService"),
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
    # There is no network at a build, so that the pages of others can't be linked.
    ("py:.*", r"(collections|datetime|ipaddress|os|pathlib|twisted)\..*|Deferred"),
    # The type variables of the decorators of `Router`.
    ("py:class", r"txserf\.handlers\.router\.\w+Handler"),
]

html_theme = "alabaster"
html_theme_options = {"description": "Serf's agent RPC for Twisted", "page_width": "1100px"}
