"""
The directive ``command-table``: one section per row of `txserf.commands.TABLE`.

The page is made from the rows that the code itself runs on, so that it can't
say anything else than they do.
"""

from __future__ import annotations

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from txserf import commands
from txserf.arguments import Arg
from txserf.errors import RpcError


def argument_row(arg: Arg) -> list[str]:
    """Describe an argument in a row of a list table."""
    notes = ["required" if arg.required else f"default ``{arg.default!r}``"]
    if arg.secret:
        notes.append("never shown")
    if not arg.sent:
        notes.append("checked, but not sent: no agent knows it")
    return [f"   * - ``{arg.name}``", f"     - {arg.kind.name}", f"     - {', '.join(notes)}"]


def argument_table(args: tuple[Arg, ...]) -> list[str]:
    """Describe all arguments of a command."""
    if not args:
        return ["It takes no arguments."]
    head = [
        ".. list-table::",
        "   :class: stacked",
        "   :widths: 20 40 40",
        "   :header-rows: 1",
        "",
        "   * - argument",
        "     - type",
        "     -",
    ]
    return head + [line for arg in args for line in argument_row(arg)]


def row_text(row: commands.Command) -> list[str]:
    """Describe a command in reStructuredText, without its title."""
    lines = [row.summary, ""]
    lines += argument_table(tuple(row.args))
    lines += ["", f"Answered by {row.reply.value}."]
    if row.shape:
        lines += ["", f"Holds: ``{row.shape}``."]
    if row.changes:
        lines += ["", "It changes something: after a loss of the connection it is not sent again."]
    if row.road in (commands.Road.JOIN, commands.Road.KEYS):
        lines += ["", f"In the typed API it takes a connection of its own, {row.road.value}."]
    if row.error is not RpcError:
        lines += ["", f"An agent's refusal is a ``{row.error.__name__}`` in the typed API."]
    return lines


class CommandTable(SphinxDirective):
    """Put a section for each command where the directive stands."""

    def run(self) -> list[nodes.Node]:
        return [self.section(row) for row in commands.TABLE]

    def section(self, row: commands.Command) -> nodes.section:
        section = nodes.section(ids=[nodes.make_id(f"command-{row.wire}")], names=[row.wire])
        section += nodes.title("", "", nodes.literal(text=row.wire))
        self.state.nested_parse(StringList(row_text(row), source="txserf.commands"), 0, section)
        return section


def setup(app: Sphinx) -> ExtensionMetadata:
    directive: type[Directive] = CommandTable
    app.add_directive("command-table", directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
