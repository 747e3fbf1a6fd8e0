"""The service behind a `Router`: events in, handlers at work, and none lost or done twice."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.base import DelayedCall
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf.arguments import count, limit
from txserf.errors import Disconnected, reason_text
from txserf.handlers.agent import Identity
from txserf.handlers.handled import Key, LTimes, StateError, key_of
from txserf.handlers.intake import Intake
from txserf.handlers.routes import Routes
from txserf.handlers.scripts import Myself
from txserf.handlers.work import Observer, Outcome, Work, describe, tell
from txserf.model import Event, Gap, UserEvent
from txserf.serf.serf import Serf

# The module's: a class's logger is made anew each time that it is asked for, and there is a line for each event.
_log = Logger(namespace="txserf.handlers")

# Seconds between two writes of the state file.
_SAVE_EVERY = 1.0


class Kept(enum.Enum):
    """An argument that was left out, where None says something else."""

    AS_IT_IS = "as it is"


class RouterService(Service):
    """
    Runs the handlers of a router for the events of a cluster; see `Router.bind`.

    :ivar serf: whose events they are.
    :ivar clock: its source of time, once the service was started.
    :ivar concurrency: how many events may be in work at once.
    :ivar handler_timeout: seconds that a handler may take; None for no limit.
    :ivar observers: are told what happens.
    """

    clock: Any

    def __init__(
        self,
        serf: Serf,
        routes: Routes,
        *,
        concurrency: int,
        timeout: float | None,
        drain: float,
        buffer: int,
        state: Path | None,
        observers: Iterable[Observer],
    ) -> None:
        self.serf = serf
        self.concurrency = concurrency
        self.handler_timeout = timeout
        self.observers = list(observers)
        self._routes = routes
        self._started_serf = False
        self._drain = drain
        self._buffer = buffer
        self._state = state
        self._save_due: DelayedCall | None = None
        self._dropped = 0
        self._dropping = False
        self._queue: deque[Event] = deque()
        self._works: set[Work] = set()
        self._pumping = False
        self._holding: Deferred[None] | None = None  # what has to be known before the next event is begun
        self._subscribing: Deferred[None] = Deferred()  # the first of these: that the stream is there
        self._limit: DelayedCall | None = None  # of the time to work off what came, while it stops
        self._stoppers: deque[Deferred[None]] = deque()
        self._ltimes = LTimes()
        self._identity = Identity(serf, self._ltimes)
        self._intake: Intake | None = None

    def __repr__(self) -> str:
        return f"<RouterService: {self._routes.stream_type}>"

    # What others ask

    @property
    def queued(self) -> int:
        """How many events wait for their handlers."""
        return len(self._queue)

    @property
    def working(self) -> int:
        """How many events are in work."""
        return len(self._works)

    @property
    def dropped(self) -> int:
        """How many events were lost to a full queue, or to the end of the service."""
        return self._dropped

    @property
    def unready(self) -> str | None:
        """Say why events may be missed now; None while all is well."""
        if not self.running or self._intake is None:
            return "not running"
        if self._intake.failure is not None:
            return reason_text(self._intake.failure)
        return self.serf.why_disconnected or (None if self._intake.is_active else "not subscribed")

    def myself(self) -> Deferred[Myself]:
        """Ask the agent for its own name and tags; see `Identity.myself`."""
        return self._identity.myself()

    def when_active(self) -> Deferred[None]:
        """
        Wait until no event that is sent from then on is missed.

        :returns: a Deferred of None, which can be cancelled. It fails with `RpcError` where the
            agent refuses the stream, and with `Disconnected` where the service does not run.
        """
        if self._intake is None:
            return fail(Disconnected("the router's service does not run"))
        return self._intake.when_active()

    # A service

    def startService(self) -> None:
        """Begin to follow the events that have handlers."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's own
        if self._limit is not None:
            self._drained(self._limit)  # it was to stop; what is at work goes on
        self.clock = self.serf.clock
        self._started_serf = not self.serf.running
        if self._started_serf:
            self.serf.startService()
        self._load()
        self._subscribing = Deferred()
        self._hold(self._subscribing)
        self._intake = Intake(self.serf, self._take, self._active)
        self._intake.follow(self._routes.stream_type)

    def stopService(self) -> Deferred[None]:
        """
        Take no more events, and work off those that came.

        :returns: a Deferred of None; past the limit what still runs is cancelled before it fires.
            A `Serf` that the service has started is closed then. Cancelling it ends that waiting only.
        """
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's own
        intake, self._intake = self._intake, None
        if intake is None and self._limit is None and not self._stoppers:
            return succeed(None)
        stopper: Deferred[None] = Deferred(self._stoppers.remove)
        self._stoppers.append(stopper)
        if intake is not None:
            intake.stop()
            if self._save_due is not None:
                self._save_due.cancel()
            self._subscribing.cancel()  # where it holds events up, it would for ever
            self._limit = self.clock.callLater(self._drain, self._give_up)
            self._pump()
        return stopper

    def _give_up(self) -> None:
        dropped = len(self._queue)
        self._queue.clear()
        if dropped:
            self._dropped += dropped
            _log.error("stopping: {count} events that waited are dropped", count=dropped)
        for work in list(self._works):
            work.abort()
        self._pump()  # where none was at work, for what waited was in doubt

    def _drained(self, limit: DelayedCall) -> None:
        self._limit = None
        if limit.active():
            limit.cancel()
        if self._holding is not None and not self._queue:
            self._holding.cancel()  # nothing waits for the answer
        self._save()

        def closed(_: None) -> None:
            while self._stoppers:
                self._stoppers.popleft().callback(None)

        closing = self.serf.stopService() if self._started_serf else succeed(None)
        closing.addCallback(closed)

    def replace(
        self,
        routes: Routes,
        *,
        concurrency: int | None = None,
        timeout: float | Kept | None = Kept.AS_IT_IS,
    ) -> None:
        """
        Use other handlers from now on, also for the events that wait; what is in work goes on as it is.

        :param routes: of a router, as ``router.routes()``.
        :param concurrency: as of `Router.bind`; None leaves it as it is.
        :param timeout: likewise, seconds; None is no limit, and without it the limit stays.
        :raises InvalidRequest: for a bad argument; all stays as it was then.
        """
        if concurrency is not None:
            count(concurrency, "concurrency")
        if not isinstance(timeout, Kept):
            self.handler_timeout = None if timeout is None else limit(timeout, "timeout")
        self.concurrency = concurrency or self.concurrency
        self._routes = routes
        if self._intake is not None:
            self._intake.follow(routes.stream_type)
        self._pump()  # more may be at work now

    # Events

    def _take(self, event: Event) -> None:
        self._queue.append(event)
        if len(self._queue) > self._buffer:
            self._drop(self._queue.popleft())
        self._pump()

    def _drop(self, event: Event) -> None:
        self._dropped += 1
        if not self._dropping:  # once until there is room again: a flood must not flood the log
            self._dropping = True
            _log.error(
                "{count} events wait, the oldest ones are dropped from {event} on",
                event=describe(event),
                count=self._buffer,
            )

    def _pump(self) -> None:
        if self._pumping:
            return  # a handler ended inside the loop below, which goes on by itself
        self._pumping = True
        try:
            queue, works = self._queue, self._works
            while queue and self._holding is None and len(works) < self.concurrency:
                self._begin(queue.popleft())
        finally:
            self._pumping = False
        if self._limit is not None and not self._queue and not self._works:
            self._drained(self._limit)

    def _begin(self, event: Event) -> None:
        self._dropping = False
        handlers = self._routes.handlers(event)
        if not handlers:
            return
        key: Key | None = None
        if isinstance(event, UserEvent):
            key = key_of(event)
            if key in self._ltimes:
                self._seen_before(event)
                return
            self._ltimes.begun(key)
        work = Work(self, event, handlers, key)
        tell(self.observers, lambda observer: observer.arrived(work.type))
        self._works.add(work)
        work.run()

    def finished(self, work: Work) -> None:
        """All handlers of an event are through."""
        self._works.discard(work)
        if work.key is not None:
            if work.outcome is Outcome.CANCELLED:
                self._ltimes.discard(work.key)
            else:
                self._ltimes.handled(work.key)
                if self._state is not None:
                    self._save_soon()
        _log.info(
            "{event} handled in {duration:.6f} s: {result}",
            event=describe(work.event),
            type=work.type,
            duration=work.duration,
            result=work.outcome.value,
        )
        self._pump()

    # What has to be known first

    def _active(self, gap: Gap | None) -> None:
        if gap is not None:
            tell(self.observers, lambda observer: observer.resumed())
            seconds = gap.resumed_at - gap.lost_at
            _log.warn("events may have been missed in {seconds:.3f} s", seconds=seconds)
        self._hold(Deferred.fromCoroutine(self._identity.compare()))

    def _seen_before(self, event: UserEvent) -> None:
        if self._identity.doubtful:
            self._queue.appendleft(event)
            self._hold(Deferred.fromCoroutine(self._identity.find_out()))
            return
        tell(self.observers, lambda observer: observer.duplicate(event.type))
        _log.debug("{event} came again", event=describe(event))

    def _hold(self, until: Deferred[None]) -> None:
        """Begin no event until that has fired, or is cancelled."""
        before, self._holding = self._holding, until
        if before is not None:
            before.cancel()

        def known(result: Failure | None) -> None:
            if self._holding is until:
                self._holding = None
                self._pump()
            if isinstance(result, Failure) and not result.check(CancelledError):
                _log.failure("asking the agent failed", result)

        until.addBoth(known)

    # The state file

    def _load(self) -> None:
        if self._state is not None:
            try:
                self._ltimes.load(self._state)
            except StateError as error:
                _log.error(
                    "which events were handled is not known, nor kept: {reason}", reason=reason_text(error)
                )
                self._state = None  # it may be somebody else's

    def _save_soon(self) -> None:
        if self._save_due is None and self._intake is not None:
            self._save_due = self.clock.callLater(_SAVE_EVERY, self._save)

    def _save(self) -> None:
        self._save_due = None
        if self._state is not None and self._ltimes.changed:
            try:
                self._ltimes.save(self._state)
            except StateError as error:
                _log.error("which events were handled is not kept: {reason}", reason=reason_text(error))
