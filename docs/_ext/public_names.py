"""Short names of what is public are found from everywhere, as a reader of the docstrings finds them."""

from __future__ import annotations

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.typing import ExtensionMetadata

import txserf

# Where the pages have them: under the name by which a program imports them, which need not be
# that of the module where a docstring stands.
FULL_NAMES = {name: f"txserf.{name}" for name in txserf.__all__}


def found(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Element | None:
    """Resolve what Sphinx has not found in the module and the class where it is mentioned."""
    name, dot, rest = node["reftarget"].partition(".")
    full_name = FULL_NAMES.get(name)
    if node.get("refdomain") != "py" or full_name is None:
        return None
    target = f"{full_name}{dot}{rest}"
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], target, node, content)


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("missing-reference", found)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
