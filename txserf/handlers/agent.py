"""The agent that a router works for: its name and tags, and whether its cluster has begun anew."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf.errors import RpcError, SerfError, reason_text
from txserf.handlers.handled import LTimes
from txserf.handlers.scripts import Myself
from txserf.processes import ScriptFailed
from txserf.serf.serf import Serf

_log = Logger(namespace="txserf.handlers")

# Seconds that the agent has to answer `stats`.
_STATS_TIMEOUT = 2.0

# Seconds in which an agent that rejoins hears the cluster's event clock from the others, and between two looks at it.
_CATCH_UP = 2.0
_LOOK_AGAIN = 0.2


class Identity:
    """
    Reads the agent's name, its tags and the cluster's event clock from its ``stats``.

    A cluster whose agents have all ended begins anew, with its event clock at 1. An event that looks like
    one that was handled is then another one.

    :param serf: the connection to the agent.
    :param ltimes: the events that are remembered. They are forgotten when the cluster has begun anew.
    :ivar doubtful: whether the agent's event clock was behind the events that are remembered. The cluster may have
        begun anew, or the agent may not have heard from the others yet.
    """

    def __init__(self, serf: Serf, ltimes: LTimes) -> None:
        self.doubtful: bool = False
        self._serf = serf
        self._ltimes = ltimes
        self._myself: Myself | None = None

    def myself(self) -> Deferred[Myself]:
        """
        Ask the agent for its own name and tags, which may change at any time.

        :returns: a Deferred of them. While the agent is away it has the last known ones, and fails
            with `ScriptFailed` if there are none.
        """
        if self._myself is not None and self._serf.why_disconnected is not None:
            return succeed(self._myself)

        def known(result: object) -> Myself:
            if isinstance(result, Failure):
                result.trap(SerfError)
            if self._myself is None:
                assert isinstance(result, Failure)
                raise ScriptFailed(f"not started: the agent has not told its name: {reason_text(result)}")
            return self._myself

        return self._stats().addBoth(known)

    async def compare(self) -> None:
        """Set `doubtful`, on a new connection, by comparing the agent's event clock with the events that are remembered."""
        try:
            self.doubtful = 0 < await self._event_time() <= self._ltimes.last
        except SerfError:
            self.doubtful = self._ltimes.last > 0

    async def find_out(self) -> None:
        """
        Clear `doubtful`.

        An agent that rejoins its cluster hears of later events within `_CATCH_UP` seconds. An agent of a new
        cluster does not, and then the events that are remembered are forgotten.
        """
        clock = self._serf.clock
        until: float | None = None
        while True:
            try:
                if await self._event_time() > self._ltimes.last:
                    break
            except RpcError:
                break  # this agent has no stats
            except SerfError:
                pass  # the agent is away; a new connection begins with compare()
            else:
                now = clock.seconds()
                until = now + _CATCH_UP if until is None else until
                if now >= until:
                    _log.warn("the cluster's event clock has begun anew")
                    self._ltimes.forget()
                    break
            await deferLater(clock, _LOOK_AGAIN)
        self.doubtful = False

    def _stats(self) -> Deferred[dict[str, dict[str, str]]]:
        def remember(stats: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
            self._myself = Myself.from_stats(stats)
            return stats

        return self._serf.stats(timeout=_STATS_TIMEOUT).addCallback(remember)

    async def _event_time(self) -> int:
        """Ask for the LTime that the agent's next user event will have; 0 if the agent does not say."""
        section: Mapping[str, str] = (await self._stats()).get("serf", {})
        told = section.get("event_time", "")
        return int(told) if told.isdecimal() else 0
