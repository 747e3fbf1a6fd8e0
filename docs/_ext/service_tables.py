"""
The directives ``option-table`` and ``metric-table``: the options and the metrics of ``twistd txserf``.

Both are made from the tables that the code itself uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from txserf.service import metrics, settings


def definition_list(entries: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """Write terms and their paragraphs in reStructuredText."""
    lines: list[str] = []
    for term, paragraphs in entries:
        lines.append(term)
        for paragraph in paragraphs:
            lines += [f"    {paragraph}", ""]
    return lines


# The placeholder of an option's value, where it is not the name of its kind.
_PLACEHOLDERS = {settings.Takes.TABLES: "SRC:DEST[:RELOAD]"}


def option_entry(row: settings.Setting) -> tuple[str, list[str]]:
    """Describe an option."""
    takes = "" if row.kind is settings.Takes.FLAG else f" *{_PLACEHOLDERS.get(row.kind, row.kind.name)}*"
    short = "" if row.short is None else f", ``-{row.short}``"
    numbers = (settings.Takes.NUMBER, settings.Takes.SECONDS)
    notes = [row.rule] if row.kind in numbers or row.choices else []
    if row.kind in (settings.Takes.LIST, settings.Takes.TABLES, settings.Takes.FLAG):
        notes.append(f"in the file {row.rule}")
    if row.default is not None:
        notes.append(f"default ``{row.shown_default}``")
    if not row.in_file:
        notes.append("on the command line only")
    elif row.reloads:
        notes.append("read again on SIGHUP")
    more = "; ".join(notes)
    return f"``--{row.name}``{takes}{short}", [
        f"{row.help} {more[0].upper()}{more[1:]}." if more else row.help
    ]


def metric_entry(row: metrics.Row) -> tuple[str, list[str]]:
    """Describe a metric."""
    labels = f", by {' and '.join(f'``{label}``' for label in row.labels)}" if row.labels else ""
    return f"``{row.name}`` ({row.kind.value}{labels})", [row.help]


class Entries(SphinxDirective):
    """Puts a paragraph for each entry where the directive stands."""

    def entries(self) -> Iterable[tuple[str, Sequence[str]]]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        holder = nodes.container()
        self.state.nested_parse(StringList(definition_list(self.entries()), source="txserf"), 0, holder)
        return holder.children


class OptionTable(Entries):
    """Put a paragraph for each option where the directive stands."""

    def entries(self) -> Iterable[tuple[str, Sequence[str]]]:
        return map(option_entry, settings.SETTINGS)


class MetricTable(Entries):
    """Put a paragraph for each metric where the directive stands."""

    def entries(self) -> Iterable[tuple[str, Sequence[str]]]:
        return map(metric_entry, metrics.ROWS)


def setup(app: Sphinx) -> ExtensionMetadata:
    tables: dict[str, type[Directive]] = {"option-table": OptionTable, "metric-table": MetricTable}
    for name, directive in tables.items():
        app.add_directive(name, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
