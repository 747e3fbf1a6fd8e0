"""
The directives ``benchmark-table`` and ``benchmark-goals``: the figures that ``python -m benchmarks --json`` has kept.

They read ``performance.json`` beside the pages.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import goals, results  # noqa: E402  # of this tree

FIGURES = ROOT / "docs" / "performance.json"


def figures() -> dict[str, results.Result]:
    """Return the results by the names of their tables."""
    kept = map(results.Result.from_dict, json.loads(FIGURES.read_text())["tables"])
    return {result.name: result for result in kept}


def table_node(cells: list[list[str]]) -> nodes.table:
    """Return a table whose first row is the header."""
    group = nodes.tgroup(cols=len(cells[0]))
    group += [nodes.colspec(colwidth=1) for _ in cells[0]]
    rows = [nodes.row("", *(nodes.entry("", nodes.paragraph(text=cell)) for cell in line)) for line in cells]
    group += [nodes.thead("", rows[0]), nodes.tbody("", *rows[1:])]
    return nodes.table("", group)


class BenchmarkTable(SphinxDirective):
    """Put the figures of a table where the directive stands: its argument is the table's name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(FIGURES))
        return [table_node(results.cells(figures()[self.arguments[0]]))]


class BenchmarkGoals(SphinxDirective):
    """Put the goals where the directive stands, with what was reached."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(FIGURES))
        return [table_node(goals.cells(figures().values()))]


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("benchmark-table", BenchmarkTable)
    app.add_directive("benchmark-goals", BenchmarkGoals)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
