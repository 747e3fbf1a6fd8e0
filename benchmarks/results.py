"""The figures of a table, and how they are printed and kept."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

import attrs


@attrs.frozen
class Row:
    """
    The figures of one row, turn by turn.

    :ivar at: the size, in a table that shows how cost grows.
    :ivar other: the suffix of another commit's rows; empty for those of this tree.
    """

    name: str
    unit: str
    values: list[float] = attrs.field(factory=list)
    cpu: list[float] = attrs.field(factory=list)
    at: int | None = None
    other: str = ""


class Spread:
    """A median, and the least and the most."""

    def __init__(self, values: Sequence[float]) -> None:
        self.median = statistics.median(values)
        self.least, self.most = min(values), max(values)

    @classmethod
    def of_ratios(cls, ours: Sequence[float], theirs: Sequence[float]) -> Spread:
        """Compare turn by turn."""
        return cls([one / other for one, other in zip(ours, theirs, strict=True)])


@attrs.frozen
class Result:
    """The rows of a table; the rest is as in `harness.Table`."""

    name: str
    title: str
    base: str
    growth: str
    rows: list[Row]
    left_out: dict[str, str]

    def row(self, name: str, at: int | None = None) -> Row | None:
        return next((row for row in self.rows if row.name == name and row.at == at), None)

    def base_of(self, row: Row) -> Row | None:
        """Return the row that *row* is compared with; where cost grows, the same at the base's size."""
        if self.growth and self.base:
            return self.row(row.name, int(self.base))
        return self.row(self.base)

    def newer(self, row: Row) -> Row | None:
        """Return the row of this tree that stands against one of another commit."""
        return self.row(row.name.removesuffix(row.other), row.at) if row.other else None

    @classmethod
    def from_dict(cls, kept: dict[str, Any]) -> Result:
        """Return what `kept` has kept."""
        return cls(**{**kept, "rows": [Row(**row) for row in kept["rows"]]})


def kept(result: Result) -> dict[str, Any]:
    """Return a result for JSON."""
    found: dict[str, Any] = attrs.asdict(result)
    for row in found["rows"]:
        for figures in ("values", "cpu"):
            row[figures] = [float(f"{value:.5g}") for value in row[figures]]
    return found


def shown(value: float) -> str:
    """Return a figure with three digits at the least."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def shown_spread(spread: Spread) -> str:
    return f"{shown(spread.median)} ({shown(spread.least)} to {shown(spread.most)})"


def cells(result: Result) -> list[list[str]]:
    """Return the header and the rows of a table, as text; no column is empty."""
    base = f"of {result.base} {result.growth}".rstrip()
    table = [[result.growth, "median (min to max)", "", "CPU a call", base, "this tree's, of it"]]
    for row in result.rows:
        other, newer = result.base_of(row), result.newer(row)
        table.append(
            [
                row.name if row.at is None else f"{row.name}, {row.at:,}",
                shown_spread(Spread(row.values)),
                row.unit,
                f"{shown(statistics.median(row.cpu) * 1e6)} us" if row.cpu else "",
                shown_spread(Spread.of_ratios(row.values, other.values)) if other else "",
                shown_spread(Spread.of_ratios(newer.values, row.values)) if newer else "",
            ]
        )
    filled = [any(line[column] for line in table[1:]) for column in range(len(table[0]))]
    return [list(itertools.compress(line, filled)) for line in table]


def aligned(table: list[list[str]]) -> str:
    """Return lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for name, *figures in table:
        right = (figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=True))
        lines.append("  ".join((name.ljust(widths[0]), *right)).rstrip() + "\n")
    return "".join(lines)


def text(result: Result) -> str:
    """Return a table for a terminal."""
    turns = len(result.rows[0].values) if result.rows else 0
    left_out = "".join(f"left out: {name}: {why}\n" for name, why in result.left_out.items())
    return f"{result.name}: {result.title}; {turns} turns of each\n\n{aligned(cells(result))}{left_out}"
