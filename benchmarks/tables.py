"""All tables, in the order in which they are printed."""

from __future__ import annotations

from benchmarks import members
from benchmarks.harness import Table

TABLES: dict[str, Table] = {
    table.name: table for table in (members.IN_FLIGHT, members.ONE, members.REACTORS, members.REACTORS_ONE)
}
