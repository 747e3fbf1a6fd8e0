"""References by the short name of a public class or function are resolved in all pages and docstrings."""

from __future__ import annotations

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.typing import ExtensionMetadata

import txserf

# The pages describe each under the name by which a program imports it, and not under its module's.
FULL_NAMES = {name: f"txserf.{name}" for name in txserf.__all__}

# Names of Twisted that pages and docstrings say without their module.
OF_TWISTED = {
    "Clock": "twisted.internet.task.Clock",
    "Deferred": "twisted.internet.defer.Deferred",
    "IService": "twisted.application.service.IService",
    "IStreamClientEndpoint": "twisted.internet.interfaces.IStreamClientEndpoint",
}


def found(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Element | None:
    """Resolve a name that Sphinx has not found in the module and the class around it."""
    name, dot, rest = node["reftarget"].partition(".")
    if name in OF_TWISTED:
        node["reftarget"] = f"{OF_TWISTED[name]}{dot}{rest}"
        return None  # intersphinx comes next
    full_name = FULL_NAMES.get(name)
    if node.get("refdomain") != "py" or full_name is None:
        return None
    target = f"{full_name}{dot}{rest}"
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], target, node, content)


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("missing-reference", found, priority=400)  # before intersphinx
    return {"parallel_read_safe": True, "parallel_write_safe": True}
