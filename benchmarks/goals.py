"""The figures that are wanted: ratios of one run, but for the few that are bytes or milliseconds."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from benchmarks import cluster, go
from benchmarks.bare import UNPACKING
from benchmarks.imports import BOTH, SERF, TWISTED
from benchmarks.results import Result, Row, Spread, aligned, shown_spread


@attrs.frozen(kw_only=True)
class Goal:
    """
    A figure of a table, and its bound.

    :ivar row: and ``at``: the row that it is about.
    :ivar of: the row that it is compared with, turn by turn; empty where the figure itself counts.
    :ivar of_at: that row's size.
    :ivar cpu: it is about the CPU of a call.
    """

    what: str
    table: str
    row: str
    of: str = ""
    at: int | None = None
    of_at: int | None = None
    cpu: bool = False
    at_least: float | None = None
    at_most: float | None = None

    def reached(self, result: Result) -> Spread | None:
        """Return its figure; None where that was not measured."""
        row, base = result.row(self.row, self.at), result.row(self.of, self.of_at)
        if row is None or (self.of and base is None):
            return None
        return Spread(self._of(row)) if base is None else Spread.of_ratios(self._of(row), self._of(base))

    def _of(self, row: Row) -> list[float]:
        return row.cpu if self.cpu else row.values

    @property
    def wanted(self) -> str:
        return f"at least {self.at_least}" if self.at_least is not None else f"at most {self.at_most}"

    def is_met(self, figure: Spread) -> bool:
        if self.at_least is not None:
            return figure.median >= self.at_least
        assert self.at_most is not None
        return figure.median <= self.at_most


STREAM = f"{go.ROW}, stream"
COLLECTING = "Serf.coordinate(), collector on"
GOALS = (
    Goal(
        what="calls/s, 64 in flight, of the Go client's",
        table="members",
        row="Serf",
        of=go.ROW,
        at_least=1.15,
    ),
    Goal(what="calls/s, 64 in flight, of Client's", table="members", row="Serf", of="Client", at_least=0.9),
    Goal(
        what="CPU a call, 64 in flight, of the Go client's",
        table="members",
        row="Serf",
        of=go.ROW,
        cpu=True,
        at_most=0.75,
    ),
    Goal(
        what="calls/s, one at a time, of the Go client's", table="one", row="Serf", of=go.ROW, at_least=0.95
    ),
    Goal(
        what="10,000 members to Member values, of bare unpacking",
        table="decoding",
        row="Serf.members()",
        of=UNPACKING,
        at_most=1.6,
    ),
    Goal(
        what="bytes a Member, beyond strings and tags",
        table="member-memory",
        row="Serf.members()",
        at_most=300,
    ),
    *(
        Goal(
            what=f"records/s, {row}, of bare unpacking", table="events", row=row, of=UNPACKING, at_least=least
        )
        for row, least in (("Serf, callback", 0.4), ("Serf, async for", 0.4), ("Client, callback", 0.42))
    ),
    Goal(
        what="a call with 100,000 outstanding, of one with 100",
        table="outstanding",
        row=COLLECTING,
        at=100_000,
        of=COLLECTING,
        of_at=100,
        at_most=1.3,
    ),
    Goal(
        what="bytes a member of a ClusterView of 100,000 with unique tags, beyond its own strings",
        table="view-memory",
        row=cluster.ALL + cluster.kind(unique=True),
        at=100_000,
        at_most=400,
    ),
    Goal(
        what="an event to a ClusterView of 100,000, of one to 100",
        table="view",
        row=cluster.EVENT,
        at=100_000,
        of=cluster.EVENT,
        of_at=100,
        at_most=1.3,
    ),
    Goal(what="KiB of a connected, idle Serf", table="idle", row="Serf", at_most=20),
    *(
        Goal(what=what, table="imports", row=row, of=TWISTED, at_most=1.15)
        for row, what in (
            (SERF, "import txserf; txserf.Serf, of what every program imports"),
            (BOTH, "both imports, of what every program imports"),
        )
    ),
    Goal(what="ms of a failover to the first answer", table="failover", row="Serf", at_most=3),
    *(
        Goal(
            what=f"an event to the callback, {what}, of the Go client's",
            table="delivery",
            row=f"Serf, callback: {what}",
            of=f"{STREAM}: {what}",
            at_most=1,
        )
        for what in ("median", "p99")
    ),
)


def cells(results: Iterable[Result]) -> list[list[str]]:
    """Return the header and the rows of the goals that were measured."""
    by_name = {result.name: result for result in results}
    table = [["goal", "wanted", "median (min to max)", "met"]]
    for goal in GOALS:
        figure = goal.reached(by_name[goal.table]) if goal.table in by_name else None
        if figure is not None:
            met = "yes" if goal.is_met(figure) else "no"
            table.append([goal.what, goal.wanted, shown_spread(figure), met])
    return table


def text(results: Iterable[Result]) -> str:
    """Return them for a terminal; empty where none was measured."""
    table = cells(results)
    return f"goals\n\n{aligned(table)}\n" if len(table) > 1 else ""
