"""Following a cluster: a line for each member, then for each event and log line."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf.errors import Disconnected, RequestTimeout, SerfError, reason_text
from txserf.model import Event, Gap, Member
from txserf.serf.logs import LogStream
from txserf.serf.serf import Serf
from txserf.serf.streams import EventStream
from txserf.service.lines import Format

if TYPE_CHECKING:  # which only --http needs
    from txserf.service.live import Live, LiveEvents

_log = Logger(namespace="txserf.service")


class _Phase(enum.Enum):
    STARTING = enum.auto()
    FOLLOWING = enum.auto()  # the members are written, events come
    STOPPED = enum.auto()


class Follower(Service):
    """
    Writes the members of a cluster, then each event as it comes, through agents that come and go.

    :param serf: the connection; its owner starts and stops it.
    :param write: called with each line.
    :param format: makes the lines.
    :param stream: the filter of events; None for no events.
    :param monitor: the level of the agent's log; None for no log.
    :param live: it has the members and the events, so that the agent is not asked for them once more; None to ask.
    :param failed: called with the error that ends it: the agent refuses the stream or the level, or *write* fails.
    :ivar shown: called with each event and gap, once its line is written.
    """

    def __init__(
        self,
        serf: Serf,
        write: Callable[[str], object],
        format: Format,
        *,
        stream: str | None = "*",
        monitor: str | None = None,
        live: Live | None = None,
        failed: Callable[[BaseException], object] = lambda reason: None,
    ) -> None:
        self._serf = serf
        self._write = write
        self._format = format
        self._stream = stream
        self._monitor = monitor
        self._live = live
        self._failed = failed
        self._running: list[Deferred[None]] = []
        self._phase = _Phase.STARTING
        self._events: EventStream | LiveEvents | None = None
        self._askers: list[Deferred[None]] = []
        self.shown: Callable[[Event | Gap], object] = lambda event: None

    def when_following(self) -> Deferred[None]:
        """
        Return a Deferred that fires when the members are written. Every event from then on will be written too.

        :returns: a Deferred of None, which can be cancelled. It fails with `Disconnected` when this is stopped.
        """
        if self._phase is _Phase.STOPPED:
            return fail(Disconnected("the follower is stopped"))
        if self._phase is _Phase.FOLLOWING:
            return succeed(None)
        asker: Deferred[None] = Deferred(self._askers.remove)
        self._askers.append(asker)
        return asker

    @property
    def unready(self) -> str | None:
        """The reason why events may be missed now; None if there is none."""
        active = self._phase is _Phase.FOLLOWING if self._events is None else self._events.is_active
        return self._serf.why_disconnected or (None if active else "not subscribed")

    def startService(self) -> None:
        """Begin to follow."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's own
        self._phase = _Phase.STARTING
        # The stream is opened before the members are read, so that no change between the two is missed.
        self._events = None if self._stream is None else self._opened(self._stream)
        self._follow(self._members_and_events(self._events))
        if self._monitor is not None:
            self._follow(self._lines(self._serf.monitor(self._monitor)))

    def stopService(self) -> None:
        """Stop following; `Serf` ends the streams."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's own
        self._phase = _Phase.STOPPED
        running, self._running = self._running, []
        for following in running:
            following.cancel()
        while self._askers:  # one by one: each may cancel those behind it
            self._askers.pop(0).errback(Disconnected("the follower is stopped"))

    def _opened(self, filter: str) -> EventStream | LiveEvents:
        return self._serf.stream(filter, gaps=True) if self._live is None else self._live.events(filter)

    def _follow(self, work: Any) -> None:
        following = Deferred.fromCoroutine(work)
        self._running.append(following)
        following.addErrback(self._ended)

    def _ended(self, failure: Failure) -> None:
        if failure.check(CancelledError, Disconnected):
            return
        if failure.check(SerfError, OSError):
            _log.error("stopped following: {reason}", reason=reason_text(failure))
        else:
            _log.failure("stopped following", failure)
        self._failed(failure.value or AssertionError())

    async def _members_and_events(self, events: EventStream | LiveEvents | None) -> None:
        if isinstance(events, EventStream):
            await events.when_active()
        for member in await self._members():
            self._write(self._format(member))
        self._phase = _Phase.FOLLOWING
        while self._askers:  # one by one: each may cancel those behind it
            self._askers.pop(0).callback(None)
        if events is not None:
            async for event in events:
                self._write(self._format(event))
                self.shown(event)

    async def _members(self) -> list[Member]:
        if self._live is not None:
            view = await self._live.view.when_ready()
            return view.select(status=None)
        while True:
            try:
                return sorted(await self._serf.members(), key=lambda member: member.name)
            except RequestTimeout as late:
                _log.warn("{reason}", reason=str(late))

    async def _lines(self, lines: LogStream) -> None:
        async for line in lines:
            self._write(self._format(line))
