"""Tables as a picture, by matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.results import Result, Spread


def draw(results: list[Result], file: Path) -> None:
    """Draw each table, one beside the other."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, places = pyplot.subplots(1, len(results), figsize=(6 * len(results), 4), squeeze=False)
    for place, result in zip(places[0], results, strict=True):
        place.set_title(result.title, fontsize=9)
        (_lines if result.growth else _bars)(place, result)
    figure.tight_layout()
    figure.savefig(file, dpi=100)


def _bars(place: Any, result: Result) -> None:
    rows = result.rows[::-1]
    spreads = [Spread(row.values) for row in rows]
    medians = [each.median for each in spreads]
    errors = [[each.median - each.least for each in spreads], [each.most - each.median for each in spreads]]
    place.barh([row.name for row in rows], medians, xerr=errors, color="tab:blue", ecolor="gray")
    place.set_xlabel(rows[0].unit)


def _lines(place: Any, result: Result) -> None:
    """Draw the cost of each by the size, with a level line for what grows in proportion."""
    for name in dict.fromkeys(row.name for row in result.rows):
        rows = [row for row in result.rows if row.name == name]
        sizes = [row.at for row in rows]
        spreads = [Spread(row.values) for row in rows]
        (line,) = place.plot(sizes, [each.median for each in spreads], marker="o", label=name)
        place.fill_between(
            sizes,
            [each.least for each in spreads],
            [each.most for each in spreads],
            color=line.get_color(),
            alpha=0.2,
        )
        base = next(
            (each.median for row, each in zip(rows, spreads, strict=True) if str(row.at) == result.base), None
        )
        if base is not None:
            place.axhline(base, color=line.get_color(), linestyle=":", label=f"{name}, if it is linear")
    place.set_xscale("log")
    place.set_ylim(bottom=0)
    place.set_xlabel(result.growth)
    place.set_ylabel(f"{result.rows[0].unit} each")
    place.legend(fontsize=8)
