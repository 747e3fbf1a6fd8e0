"""Where the members are in the network, for `ClusterView.nearest`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from twisted.internet.defer import Deferred, DeferredLock, FirstError, gatherResults

from txserf import commands
from txserf.errors import RpcError
from txserf.model import Coordinate, Member
from txserf.serf.serf import Serf

# Seconds for which a coordinate is kept. Agents learn of their own by each probe, and move little by it.
_KEPT = 30.0

# Seconds for which it is kept that there is none: that of a member which has just joined is known after its first probe.
_NONE_KEPT = 2.0

# Coordinates that are asked for at once. Others wait behind them on the connection for some milliseconds.
_AT_ONCE = 256


class Coordinates:
    """
    The coordinates of members, asked for when they are needed and kept for `_KEPT` seconds, `_NONE_KEPT` where there is none.

    :param serf: asks the agent.
    """

    def __init__(self, serf: Serf) -> None:
        self._serf = serf
        self._known: dict[str, tuple[float, Coordinate | None]] = {}  # by name: when it was asked for
        self._own: tuple[object, str] | None = None  # the connection, and the name of its agent
        self._asking = DeferredLock()

    async def nearest(
        self, node: str | None, members: Sequence[Member], within: float | None
    ) -> list[tuple[Member, float]]:
        """
        Return members by their distance from a node.

        :param node: its name; None for the agent's own.
        :param within: seconds; None for any.
        """
        origin = await self._own_name() if node is None else node
        known = await self.of([origin, *(member.name for member in members)])
        start = known[origin]
        if start is None:
            message = f"the agent has no coordinate of {origin!r}"
            raise RpcError(command=commands.GET_COORDINATE.wire, message=message)
        found: list[tuple[Member, float]] = []
        for member in members:
            place = known[member.name]
            # Coordinates of other dimensions are of agents that are configured differently.
            if place is not None and len(place.vec) == len(start.vec):
                seconds = start.distance_to(place)
                if within is None or seconds <= within:
                    found.append((member, seconds))
        return sorted(found, key=lambda pair: (pair[1], pair[0].name))

    async def _own_name(self) -> str:
        connection = self._serf.factory.open_connection
        if self._own is not None and connection is not None and self._own[0] is connection:
            return self._own[1]
        stats = await self._serf.stats()
        name = stats.get("agent", {}).get("name")
        if not name:
            raise RpcError(command=commands.STATS.wire, message="the agent does not say its name")
        self._own = (self._serf.factory.open_connection, name)
        return name

    async def of(self, names: Iterable[str]) -> dict[str, Coordinate | None]:
        """Return coordinates by name; None for those that the agent does not know."""
        wanted = dict.fromkeys(names)
        await self._asking.acquire()  # those who wait find most of theirs then
        try:
            now = self._serf.clock.seconds()
            self._known = {
                name: (asked_at, place)
                for name, (asked_at, place) in self._known.items()
                if now - asked_at < (_NONE_KEPT if place is None else _KEPT)
            }
            missing = [name for name in wanted if name not in self._known]
            for first in range(0, len(missing), _AT_ONCE):
                await self._ask(missing[first : first + _AT_ONCE])
            return {name: self._known[name][1] for name in wanted}
        finally:
            self._asking.release()

    async def _ask(self, names: Sequence[str]) -> None:
        now = self._serf.clock.seconds()
        asked: list[Deferred[Coordinate | None]] = [self._serf.coordinate(name) for name in names]
        try:
            found = await gatherResults(asked, consumeErrors=True)
        except FirstError as first:
            error = first.subFailure.value
            assert error is not None
            raise error from None
        self._known.update((name, (now, place)) for name, place in zip(names, found, strict=True))
