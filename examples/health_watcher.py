"""
Print the members that fail and those that come back, until it is ended.

    SERF_RPC_ADDR=10.0.0.1,10.0.0.2 python health_watcher.py

If the agent dies, it connects to the next one and compares the members, so that it misses no failure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.task import react

import txserf


class Health:
    """Prints each change of a member's status; keeps the last one."""

    def __init__(self) -> None:
        self.status: dict[str, str] = {}

    def update(self, members: Iterable[txserf.Member]) -> None:
        for member in members:
            old = self.status.get(member.name)
            if old != member.status:
                self.status[member.name] = member.status
                print(f"{member.name} ({member.address}): {old or 'unknown'} -> {member.status}", flush=True)


async def main(reactor: Any) -> None:
    health = Health()
    async with txserf.Serf() as serf:
        # Subscribe before asking for the members: no change is missed in between.
        events = serf.stream("member-join,member-leave,member-failed,member-update", gaps=True)
        await events.when_active()
        health.update(await serf.members())
        async for event in events:
            if isinstance(event, txserf.Gap):
                print(f"{event.resumed_at - event.lost_at:.1f} s without an agent", flush=True)
                health.update(await serf.members())
            elif isinstance(event, txserf.MemberEvent):
                health.update(event.members)


if __name__ == "__main__":
    react(main)
