"""All tables, in the order in which they are printed."""

from __future__ import annotations

from benchmarks import (
    cluster,
    decoding,
    delivery,
    events,
    failover,
    handlers,
    idle,
    imports,
    lanes,
    members,
    outstanding,
    streams,
)
from benchmarks.harness import Table

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        members.IN_FLIGHT,
        members.ONE,
        decoding.TABLE,
        decoding.MEMORY,
        events.TABLE,
        idle.TABLE,
        imports.TABLE,
        failover.TABLE,
        delivery.TABLE,
        lanes.TABLE,
        handlers.TABLE,
        cluster.MEMORY,
        cluster.TABLE,
        outstanding.TABLE,
        decoding.GROWTH,
        streams.TABLE,
        idle.GROWTH,
        members.REACTORS,
        members.REACTORS_ONE,
    )
}
