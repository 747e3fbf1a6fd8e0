"""
The directives ``cli-commands``, ``cli-common``, ``cli-outputs`` and ``cli-exit-codes``: the command ``txserf``.

All are made from the table that the program's own parser is made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from service_tables import Entries, definition_list
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from txserf.cli import table


def parameter_entry(row: table.Parameter) -> tuple[str, list[str]]:
    """Describe an argument or an option."""
    if not row.is_option:
        return f"``{row.shown}``", [_sentence(row)]
    takes = "" if row.shown is None else f" *{row.shown}*"
    first, *others = reversed(row.names)
    return f"``{first}``{takes}" + "".join(f", ``{name}``" for name in others), [_sentence(row)]


def _sentence(row: table.Parameter) -> str:
    default = row.default is not None and row.default != 0
    return f"{row.help} Default ``{row.default}``." if default else row.help


def usage(row: table.CliCommand) -> str:
    """Return the line that shows the arguments of a command."""
    words = ["txserf", row.name]
    for each in row.parameters:
        if not each.is_option:
            word = f"{each.shown}..." if each.many else str(each.shown)
            words.append(f"[{word}]" if each.optional else word)
    return " ".join(words) + (" ..." if row.handed_on is not None else "")


def command_text(row: table.CliCommand) -> list[str]:
    """Describe a command in reStructuredText, without its title."""
    lines = [".. code-block:: text", "", f"    {usage(row)}", "", f"{row.summary} {row.more}".strip(), ""]
    lines += definition_list(map(parameter_entry, row.parameters))
    if row.outputs:
        lines += [f"Outputs: {', '.join(f'``{name}``' for name in row.outputs)}."]
    return lines


class CliCommands(SphinxDirective):
    """Put a section for each command where the directive stands."""

    def run(self) -> list[nodes.Node]:
        return [self.section(row) for row in table.COMMANDS]

    def section(self, row: table.CliCommand) -> nodes.section:
        section = nodes.section(ids=[nodes.make_id(f"txserf-{row.name}")], names=[f"txserf {row.name}"])
        section += nodes.title("", "", nodes.literal(text=row.name))
        self.state.nested_parse(StringList(command_text(row), source="txserf.cli.table"), 0, section)
        return section


class CliCommon(Entries):
    """Put a paragraph for each option that all commands have."""

    def entries(self) -> Iterable[tuple[str, Sequence[str]]]:
        return map(parameter_entry, table.COMMON)


class CliOutputs(Entries):
    """Put a paragraph for each output."""

    def entries(self) -> Iterable[tuple[str, Sequence[str]]]:
        return [(f"``{name}``", [text]) for name, text in table.OUTPUTS.items()]


class CliExitCodes(Entries):
    """Put a paragraph for each exit code."""

    def entries(self) -> Iterable[tuple[str, Sequence[str]]]:
        return [(f"``{code}``", [text]) for code, text in table.EXIT_CODES.items()]


def setup(app: Sphinx) -> ExtensionMetadata:
    directives: dict[str, type[Directive]] = {
        "cli-commands": CliCommands,
        "cli-common": CliCommon,
        "cli-outputs": CliOutputs,
        "cli-exit-codes": CliExitCodes,
    }
    for name, directive in directives.items():
        app.add_directive(name, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
