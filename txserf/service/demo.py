"""``twistd txserf --embedded``: a cluster in this process, in which events happen by themselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf.embedded import EmbeddedCluster
from txserf.errors import Disconnected
from txserf.model import QueryEvent
from txserf.serf.serf import Serf
from txserf.service.follow import Follower
from txserf.service.lines import Format

_log = Logger(namespace="txserf.service")

# A user should see each kind of record within five seconds. Agents report the latest change of each member
# when there was no change for a second.
_REPORTED = 1.2

# A real cluster needs some five seconds to find out that a node has failed.
_DETECTION = 0.1

# A leave takes a second, and is reported at the end of it.
_LEFT = 0.3

_LOADS = ("0.31", "1.07", "0.52")


class Demo(Service):
    """
    Runs an embedded cluster, in which each kind of event happens once.

    :param cluster: the cluster; it is closed when this stops.
    :param port: the port on 127.0.0.1 of the first agent's RPC; the other agents take the next ones. None: no port.
    :param follower: shows the events, which wait for its start; None: nothing happens by itself.
    :param write: called with a line for each record of the query.
    :param format: makes these lines.
    :param failed: called with the reason if it can't listen or go on.
    """

    def __init__(
        self,
        cluster: EmbeddedCluster,
        *,
        port: int | None = None,
        follower: Follower | None = None,
        write: Callable[[str], object],
        format: Format,
        failed: Callable[[BaseException], object],
    ) -> None:
        self._cluster = cluster
        self._port = port
        self._follower = follower
        self._write = write
        self._format = format
        self._failed = failed
        self._happening: Deferred[None] | None = None

    def startService(self) -> None:
        """Listen, and let the events happen."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's own
        if self._port is not None:
            self._cluster.listen(self._port).addCallbacks(self._listening, self._not_listening)
        if self._follower is not None:
            self._happening = Deferred.fromCoroutine(self._happen(self._follower)).addErrback(self._ended)

    def stopService(self) -> Deferred[None]:
        """Let nothing more happen, and close the cluster."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's own
        if self._happening is not None:
            self._happening.cancel()
        return self._cluster.close()

    def _listening(self, ports: list[object]) -> None:
        _log.info("embedded agents listen on {ports}", ports=", ".join(map(str, ports)))

    def _not_listening(self, failure: Failure) -> None:
        _log.error("embedded agents can't listen: {reason}", reason=failure.getErrorMessage())
        self._failed(failure.value or AssertionError())

    def _ended(self, failure: Failure) -> None:
        if failure.check(CancelledError, Disconnected):
            return
        if failure.check(OSError):  # nobody reads the output any more; the follower may find out first
            _log.error("stopped showing: {reason}", reason=failure.getErrorMessage())
        else:
            _log.failure("the demonstration failed", failure)
        self._failed(failure.value or AssertionError())

    async def _happen(self, follower: Follower) -> None:
        cluster = self._cluster
        cluster.failure_detection = _DETECTION
        first, *_ = cluster.agents.values()
        for number, agent in enumerate(cluster.agents.values()):
            agent.handle_query("load", partial(_load, number))
        await follower.when_following()
        async with Serf([first.endpoint()]) as serf:
            for name in ("web-1", "web-2", "web-3"):
                cluster.add(name, {"role": "web"})
            await serf.event("deploy", b"v2", coalesce=False)
            asking = serf.query("load", timeout=0.3)
            async for record in asking:
                self._write(self._format(record))
            await deferLater(serf.clock, _REPORTED)
            cluster.fail("web-3")
            async with Serf([cluster.agents["web-1"].endpoint()]) as web:
                await web.set_tags({"role": "db"})
            await cluster.leave("web-2")
            await deferLater(serf.clock, _LEFT)
            await serf.force_leave("web-2", prune=True)


def _load(number: int, query: QueryEvent) -> str:
    return _LOADS[number % len(_LOADS)]
