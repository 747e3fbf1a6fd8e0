"""``twistd txserf --embedded``: a cluster in this process, in which events happen by themselves."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf.embedded import EmbeddedCluster
from txserf.embedded.agent import EmbeddedAgent
from txserf.errors import Disconnected
from txserf.model import Ack, Answer, Event, Gap, QueryEvent
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

# Seconds that a query waits for answers.
_ANSWERING = 0.3

# Seconds between two events, once each kind has been shown.
_PAUSE = 3.0

_LOADS = ("0.31", "1.07", "0.52")


def greeting(nodes: int, port: int | None) -> tuple[str, str]:
    """
    Return what a user reads first: what is shown, and how to go on.

    :param nodes: how many agents the cluster begins with.
    :param port: the first port that they listen on; None if they listen on none.
    """
    agents = "1 agent" if nodes == 1 else f"{nodes} agents"
    reach = f"From elsewhere: txserf members -a 127.0.0.1:{port}"
    real = "For a real cluster: txserf events -a HOST:PORT"
    return (
        f"A cluster of {agents} in this process: its members, then events as they happen.",
        f"Ctrl-C ends it. {real if port is None else reach}",
    )


class Demo(Service):
    """
    Runs an embedded cluster, in which each kind of event happens once within five seconds, and then one by one.

    :param cluster: the cluster; it is closed when this stops.
    :param port: the port on 127.0.0.1 of the first agent's RPC; the other agents take the next ones. None: no port.
    :param follower: shows the events, which wait for its start; None: nothing happens by itself.
    :param write: called with a line for each record of a query.
    :param format: makes these lines.
    :param greeting: lines that are written at the start.
    :param failed: called with the reason if it can't listen or go on.
    :param reactor: gives the time; None for the global one.
    """

    def __init__(
        self,
        cluster: EmbeddedCluster,
        *,
        port: int | None = None,
        follower: Follower | None = None,
        write: Callable[[str], object],
        format: Format,
        greeting: Iterable[str] = (),
        failed: Callable[[BaseException], object],
        reactor: object | None = None,
    ) -> None:
        self._cluster = cluster
        self._port = port
        self._follower = follower
        self._write = write
        self._format = format
        self._greeting = greeting
        self._failed = failed
        self._reactor = reactor
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
        for line in self._greeting:
            self._write(line)
        cluster = self._cluster
        cluster.failure_detection = _DETECTION
        first, *_ = cluster.agents.values()
        for number, agent in enumerate(cluster.agents.values()):
            agent.handle_query("load", partial(_load, number))
        await follower.when_following()
        for name in ("web-1", "web-2", "web-3"):
            cluster.add(name, {"role": "web"})
        web = cluster.agents["web-1"]
        async with self._connected(first) as serf, self._connected(web) as near:
            await deferLater(serf.clock, _REPORTED)
            await serf.event("deploy", b"v2", coalesce=False)
            await self._ask(serf, follower, acks=True)
            cluster.fail("web-3")
            await near.set_tags({"role": "db"})
            await self._leave("web-2", serf)
            await self._go_on(serf, near, follower)

    def _connected(self, agent: EmbeddedAgent) -> Serf:
        return Serf([agent.endpoint()], reactor=self._reactor)

    async def _go_on(self, serf: Serf, near: Serf, follower: Follower) -> None:
        cluster = self._cluster
        for version in itertools.count(3):
            release = f"v{version}".encode()
            steps: tuple[Callable[[], Awaitable[Any] | None], ...] = (
                lambda: cluster.recover("web-3"),
                partial(serf.event, "deploy", release, coalesce=False),
                partial(near.set_tags, {"version": release.decode()}),
                lambda: cluster.recover("web-2"),
                partial(self._ask, serf, follower, acks=False),
                lambda: cluster.fail("web-3"),
                partial(self._leave, "web-2", serf),
            )
            for step in steps:
                await deferLater(serf.clock, _PAUSE)
                doing = step()
                if doing is not None:
                    await doing

    async def _leave(self, name: str, serf: Serf) -> None:
        await self._cluster.leave(name)
        await deferLater(serf.clock, _LEFT)
        await serf.force_leave(name, prune=True)

    async def _ask(self, serf: Serf, follower: Follower, *, acks: bool) -> None:
        """Ask the agents, and write what they answer behind the query itself; nothing if that is not shown."""
        held: list[Ack | Answer] = []
        is_shown = False

        def release() -> None:
            while is_shown and held:
                self._write(self._format(held.pop(0)))

        def seen(event: Event | Gap) -> None:
            nonlocal is_shown
            if isinstance(event, QueryEvent):
                is_shown = True
                release()

        # The answers may come before the stream's record: they have a connection of their own.
        follower.shown = seen
        async for record in serf.query("load", acks=acks, timeout=_ANSWERING):
            held.append(record)
            release()


def _load(number: int, query: QueryEvent) -> str:
    return _LOADS[number % len(_LOADS)]
